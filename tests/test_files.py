import errno
import fcntl
import os
import resource
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from giblet.data.media import write_movie, write_wav
from giblet.files import (
    alone,
    atomic_folder,
    atomic_path,
    check_writable,
    expanded,
    in_words,
    load_array,
    open_reserved,
    remove_leftovers,
)
from giblet.training import save_checkpoint


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
        pytest.raises(
            TimeoutError, match=r"another process has held \S+/new/\.file\.lock for 0 s: wait"
        ),
        alone(tmp_path / "new/file", timeout=0),
    ):
        pass
    with alone(tmp_path / "new/file", timeout=0):
        pass


SYSTEM = {
    errno.ENOSPC: (OSError, "free some space, or choose another disk, with --out"),
    errno.EDQUOT: (OSError, "free some space, or choose another disk, with --out"),
    errno.EFBIG: (OSError, "free some space, or choose another disk, with --out"),
    errno.EACCES: (PermissionError, "choose a folder that you may write to, with --out"),
    errno.EROFS: (OSError, "choose a folder that you may write to, with --out"),
    errno.ENOTDIR: (NotADirectoryError, "remove what is in the way, or choose another folder"),
    errno.EISDIR: (IsADirectoryError, "remove what is in the way, or choose another folder"),
    errno.ENAMETOOLONG: (OSError, "choose a shorter name"),
}


@pytest.mark.parametrize("number", SYSTEM)
@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_what_the_system_refuses_is_one_sentence(tmp_path, write, number):
    kind, remedy = SYSTEM[number]
    reason = os.strerror(number)
    with pytest.raises(kind) as refused, write(tmp_path / "new/name") as temporary:
        raise OSError(number, reason, str(temporary / "part"))
    assert str(refused.value).startswith(f"{tmp_path}/new/name cannot be written ({reason}): ")
    assert remedy in str(refused.value)
    assert "--cache-dir (in Python cache_dir)" in str(refused.value)
    assert in_words(refused.value) == str(refused.value)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("error", [ZeroDivisionError("1 / 0"), RuntimeError("shape"), KeyError(3)])
def test_an_error_of_the_program_stays_what_it_is(tmp_path, error):
    with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "file"):
        raise error
    assert raised.value is error


def test_an_error_about_another_file_names_that_file(tmp_path):
    source = tmp_path / "source"
    refusal = PermissionError(errno.EACCES, "Permission denied", str(source))
    with pytest.raises(PermissionError) as raised, atomic_path(tmp_path / "out/file"):
        raise refusal
    assert in_words(raised.value) == (
        f"{source} cannot be read or written (Permission denied): check that it is there, whole, "
        "and yours to use."
    )


NOISE = np.random.default_rng(0)


def write_film(path: Path) -> None:
    write_movie(path, NOISE.integers(0, 255, (50, 120, 160, 3), dtype=np.uint8), 25)


def write_figure(path: Path) -> None:
    figure = Figure()
    figure.subplots().imshow(NOISE.random((300, 300)))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=200)


def atomically(write):
    def written(path: Path) -> None:
        with atomic_path(path) as temporary:
            write(temporary)

    return written


WRITERS = {
    "checkpoint.pt": lambda path: save_checkpoint(path, {"weights": torch.zeros(100_000)}),
    "weights.safetensors": atomically(lambda path: save_file({"w": torch.zeros(100_000)}, path)),
    "array.npy": atomically(lambda path: np.save(path, np.zeros(100_000))),
    "arrays.npz": atomically(lambda path: np.savez(path, a=np.zeros(100_000))),
    "map.npy": atomically(lambda path: open_reserved(path, np.uint8, (100_000,))),
    "table.csv": atomically(lambda path: pd.DataFrame(np.zeros(100_000)).to_csv(path)),
    "log.jsonl": atomically(lambda path: path.write_text("a" * 100_000)),
    "figure.png": write_figure,
    "brain.nii": atomically(lambda path: nib.save(nib.Nifti1Image(np.ones((50,) * 3), None), path)),
    "sound.wav": lambda path: write_wav(path, np.zeros(100_000)),
    "film.mp4": write_film,
}


@contextmanager
def small_files():
    """No file may grow beyond 30,000 bytes: a writer is stopped halfway, as by a full disk.

    For the call alone: what pytest prints may go to a longer file.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel's file
@pytest.mark.parametrize("name", WRITERS)
def test_writer_that_is_stopped_halfway(tmp_path, name):
    """By whatever library: one sentence, the old file stays, and nothing is left of the new one."""
    (tmp_path / name).write_text("old")
    refusal = rf"{name} cannot be written \(.*\): free some space, or"
    with pytest.raises(OSError, match=refusal), small_files():
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_space_of_a_map_is_reserved(tmp_path):
    with atomic_path(tmp_path / "map.npy") as temporary:
        array = open_reserved(temporary, np.uint8, (100_000, 10))
        assert temporary.stat().st_blocks * 512 >= 1_000_000
        array[:] = 7
        array.flush()
    assert (np.load(tmp_path / "map.npy") == 7).all()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_space_is_checked_where_it_cannot_be_reserved(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert open_reserved(tmp_path / "map.npy", np.uint8, (10,)).shape == (10,)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 90))
    with pytest.raises(OSError, match=r"map2\.npy needs 138 bytes, the disk has 90 free"):
        open_reserved(tmp_path / "map2.npy", np.uint8, (10,))


@pytest.mark.parametrize(
    ("in_the_way", "reason"), [("file", "Not a directory"), ("n" * 300, "File name too long")]
)
def test_folder_that_cannot_be_is_refused_early(tmp_path, in_the_way, reason):
    (tmp_path / "file").touch()
    for folder in (tmp_path / in_the_way, tmp_path / in_the_way / "run"):
        with pytest.raises(OSError, match=rf"cannot be written \({reason}\)"):
            check_writable(folder)
    check_writable(tmp_path / "new/run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tilde_is_home_where_there_is_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/run") == Path("/home/me/run")
    assert expanded("my ~/run") == Path("my ~/run")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert expanded("~/run") == Path("~/run")


def hold(path: Path) -> tuple[threading.Event, threading.Thread]:
    """Hold the lock on a path in another thread, until the event is set."""
    holding = threading.Event()
    free = threading.Event()

    def held():
        with alone(path):
            holding.set()
            free.wait(30)

    thread = threading.Thread(target=held)
    thread.start()
    assert holding.wait(30)
    return free, thread


def test_a_wait_is_announced_and_ends(tmp_path, monkeypatch, capsys):
    free, thread = hold(tmp_path / "file")
    monkeypatch.setattr("giblet.files.NOTICE_SECONDS", 0.1)
    monkeypatch.setattr("giblet.files.LONGEST_WAIT", 0.3)
    with (
        pytest.raises(TimeoutError, match=r"has held .*/\.file\.lock for 0 s"),
        alone(tmp_path / "file"),
    ):
        pass
    assert capsys.readouterr().err == (
        f"waiting for another process, which holds {tmp_path}/.file.lock\n"
    )
    free.set()
    thread.join()
    with alone(tmp_path / "file"):
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_disk_without_locks_is_one_sentence(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(
            OSError, match=r"\.file\.lock cannot be written .*: choose a disk whose files can"
        ),
        alone(tmp_path / "file"),
    ):
        pass


def test_lock_library_without_locks_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("no flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(OSError, match=r"choose a disk whose files can"), alone(tmp_path / "file"):
        pass


def test_whoever_may_write_to_the_folder_may_lock(tmp_path):
    before = os.umask(0o077)
    try:
        with alone(tmp_path / "file"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ".file.lock").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("contents", [b"", b"\x93NUMPY", b"text", b"PK\x05\x06" + b"\0" * 18])
def test_damaged_array_is_one_sentence(tmp_path, contents):
    (tmp_path / "a.npy").write_bytes(contents)
    with pytest.raises(ValueError, match=r"a\.npy is damaged or no \.npy \(.*\): make it anew\.$"):
        load_array(tmp_path / "a.npy", "make it anew", "r")


def test_array_that_was_cut_is_one_sentence(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(1000))
    os.truncate(tmp_path / "a.npy", 500)
    with pytest.raises(ValueError, match=r"a\.npy is damaged or no \.npy"):
        load_array(tmp_path / "a.npy", "make it anew", "r")
