"""Films, words and features found in a folder."""

import pytest

from giblet.data.stimuli import find_stimuli


def found(folder, names, run_trs=(5, 5), **entries) -> dict:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    entries = {"run_trs": list(run_trs)} | entries
    find_stimuli(folder, entries, [])
    shown = {}
    for name in ("movies", "annotations"):
        shown[name] = [path.rsplit("/", 1)[1] for path in entries.get(name, [])]
    shown["features"] = {
        name: [path.rsplit("/", 1)[1] for path in paths]
        for name, paths in entries.get("features", {}).items()
    }
    return shown


def test_files_of_each_kind(tmp_path):
    names = ["film-10.MP4", "film-2.mp4", "words.srt", "text.npy", "video_1.h5", "video_2.h5"]
    assert found(tmp_path / "s", [*names, "notes.txt", ".hidden.mp4"]) == {
        "movies": ["film-2.mp4", "film-10.MP4"],
        "annotations": ["words.srt"],
        "features": {"video": ["video_1.h5", "video_2.h5"], "text": ["text.npy"]},
    }


def test_films_of_tasks(tmp_path):
    """They are in the order of the tasks, if their names hold them."""
    names = ["Sintel.mp4", "BigBuckBunny.mp4"]
    tasks = ["sintel", "bigbuckbunny"]
    assert found(tmp_path / "s", names, task=tasks)["movies"] == names
    assert found(tmp_path / "s", names, task=["a", "b"])["movies"] == names[::-1]


def test_sound_alone_and_entries_that_name_files(tmp_path):
    names = ["story.wav", "one.srt", "two.csv"]
    entries = {"annotations": ["x/one.srt"], "run_trs": (5,)}
    assert found(tmp_path / "s", names, **entries) == {
        "movies": ["story.wav"],
        "annotations": ["one.srt"],
        "features": {},
    }


def test_refused_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder, but stimuli names it"):
        found_nothing = {"run_trs": [5]}
        find_stimuli(tmp_path / "nowhere", found_nothing, [])
    with pytest.raises(FileNotFoundError, match="holds no film, words or features, expected"):
        found(tmp_path / "a", ["notes.txt"])
    message = r"holds 3 files for movies \(1\.mp4, 2\.mp4, 3\.mp4\), expected one of all 2 runs or"
    with pytest.raises(ValueError, match=message):
        found(tmp_path / "b", ["1.mp4", "2.mp4", "3.mp4"])
