"""Films, words and features in a folder, found by the endings of their names."""

from pathlib import Path

from giblet.data.features import STIMULI
from giblet.data.subjects import files_like

MOVIES = (".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")
SOUNDS = (".wav", ".mp3", ".m4a", ".flac", ".ogg")
WORDS = (".xlsx", ".csv", ".tsv", ".srt", ".vtt", ".json")
FEATURES = (".npy", ".npz", ".h5", ".hdf5")


def find_stimuli(folder: Path, entries: dict, said: list[str]) -> None:
    """Add to entries the files of a folder that they do not name, one a run or one of all.

    Films and sounds are movies; sheets, subtitles and transcripts are annotations; arrays are
    features of the stimulus whose name theirs begins with, such as `video.npy` or `text_run-1.npy`.
    Files of the runs are taken in the order of their names, numbers counting as numbers, or in the
    order of `task` where their names hold the tasks. What was found is added to `said`.

    Raises
    ------
    FileNotFoundError, ValueError
        Where there is no folder or no stimulus in it, or files are neither one nor one a run.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder, but stimuli names it: mend its name.")
    files = [path for path in files_like(folder, "*") if path.is_file()]
    found = {
        "movies": _like(files, MOVIES) or _like(files, SOUNDS),
        "annotations": _like(files, WORDS),
    }
    for name, paths in found.items():
        if name not in entries and paths:
            entries[name] = [str(path.resolve()) for path in _of_runs(paths, name, entries)]
            said.append(f"{name}: {', '.join(Path(path).name for path in entries[name])}")
    for name in STIMULI:
        paths = [path for path in _like(files, FEATURES) if path.name.lower().startswith(name)]
        if paths and name not in entries.get("features", {}):
            of_runs = [str(path.resolve()) for path in _of_runs(paths, "features", entries)]
            entries["features"] = entries.get("features", {}) | {name: of_runs}
            said.append(f"{name} features: {', '.join(Path(path).name for path in of_runs)}")
    if not {"movies", "annotations", "features"} & set(entries):
        raise FileNotFoundError(
            f"{folder} holds no film, words or features, expected files that end in "
            f"{', '.join((*MOVIES[:3], *WORDS[:3], *FEATURES[:2]))} or the like: put them there."
        )


def _like(files: list[Path], endings: tuple[str, ...]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in endings]


def _of_runs(files: list[Path], name: str, entries: dict) -> list[Path]:
    """The files in the order of the runs."""
    n_runs = len(entries["run_trs"])
    if len(files) not in (1, n_runs):
        shown = ", ".join(path.name for path in files)
        raise ValueError(
            f"{files[0].parent} holds {len(files)} files for {name} ({shown}), expected one of all "
            f"{n_runs} runs or one a run: name them with {name}, in the order of the runs."
        )
    task = entries.get("task")
    if isinstance(task, list) and len(task) == len(files):
        by_task = [[path for path in files if one.lower() in path.stem.lower()] for one in task]
        if all(len(paths) == 1 for paths in by_task):
            return [paths[0] for paths in by_task]
    return files
