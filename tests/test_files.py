import shutil

import pytest
from filelock import Timeout

from giblet.files import alone, atomic_folder, atomic_path, remove_leftovers


def test_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "new/file.txt") as temporary:
        temporary.write_text("all")
        assert temporary.suffix == ".txt"
        assert not (tmp_path / "new/file.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]
    assert (tmp_path / "new/file.txt").read_text() == "all"


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_interrupted_write_leaves_the_old_file(tmp_path, interruption):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(interruption), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise interruption
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [OSError, KeyboardInterrupt])
def test_interrupted_folder_is_not_there(tmp_path, interruption):
    with pytest.raises(interruption), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "half").write_text("half")
        raise interruption
    assert list(tmp_path.iterdir()) == []


def test_first_of_two_folders_stays(tmp_path):
    with atomic_folder(tmp_path / "folder") as slow:
        (slow / "slow").touch()
        with atomic_folder(tmp_path / "folder") as fast:
            (fast / "fast").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "fast"]


def test_leftovers_of_killed_writers_go(tmp_path):
    (tmp_path / "last.pt").touch()
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "last.pt") as temporary:
        temporary.touch()
        shutil.copy(temporary, tmp_path / f".{'f' * 32}-last.pt")
        raise KeyboardInterrupt
    (tmp_path / ".run.lock").touch()
    remove_leftovers(tmp_path, "*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.lock", "last.pt"]


def test_one_at_a_time(tmp_path):
    with (
        alone(tmp_path / "new/file"),
        pytest.raises(Timeout),
        alone(tmp_path / "new/file", timeout=0),
    ):
        pass
    with alone(tmp_path / "new/file", timeout=0):
        pass
