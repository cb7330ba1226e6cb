"""The entries of dataset.toml: read, and checked one by one and together."""

import json
import math
import os
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from giblet.data.cleaning import OPTIONS, STRATEGIES
from giblet.data.derivatives import is_derivatives
from giblet.data.features import STIMULI
from giblet.data.subjects import files_like
from giblet.files import read_text

REQUIRED = ("tr", "lag_trs", "fmri")
BIDS = ("task", "space", "resolution", "sessions")  # what chooses series of fMRIPrep derivatives
LONGEST_LAG = 15.0  # seconds
PATHS = ("derivatives", "stimuli", "movies", "annotations", "mask", "regions", *STIMULI)
SIMULATED = ("tr", "run_trs")  # entries that the table `simulation` may repeat


def is_text(value) -> bool:
    """Whether an entry is a name or pattern that is not blank."""
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _is_count(value) -> bool:
    return type(value) is int and value >= 0


def _is_names(value) -> bool:
    return is_text(value) or _is_list(value, is_text, distinct=True)


def _is_table(value, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_cleaning(value) -> bool:
    """Whether a table has entries of `Cleaning`, each of its kind."""
    if not isinstance(value, dict) or set(value) - {*CLEANING, *OPTIONS}:
        return False
    return all(fits(value[name]) for name, fits in CLEANING.items() if name in value)


def _is_features(value) -> bool:
    """Whether a table names files of features made elsewhere."""
    return (
        isinstance(value, dict)
        and set(value) <= set(STIMULI)
        and all(_is_names(told) or _is_feature_table(told) for told in value.values())
    )


def _is_feature_table(value) -> bool:
    if not isinstance(value, dict) or not {"files"} <= set(value) <= set(FEATURES):
        return False
    return all(fits(value[name]) for name, fits in FEATURES.items() if name in value)


def _is_positive(value) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_list(value, fits: Callable[[object], bool], distinct: bool = False) -> bool:
    if not isinstance(value, list) or not value or not all(fits(item) for item in value):
        return False
    return not distinct or len(set(value)) == len(value)


FEATURES: dict[str, Callable] = {
    "files": _is_names,
    "rate": _is_positive,
    "offset": lambda value: type(value) in (int, float) and abs(value) < 86400,
    "key": is_text,
}
CLEANING: dict[str, Callable] = {
    "confounds": lambda value: value in (*STRATEGIES, "none"),
    "detrend": lambda value: isinstance(value, bool),
    "high_pass": lambda value: _is_positive(value) and value < 1,
    "smoothing_mm": lambda value: _is_positive(value) and value < 50,
}
# What each entry of dataset.toml has to be, in words and as a test
A_FILE = ("the name of a file, such as 'mask.nii.gz'", is_text)
ENTRIES: dict[str, tuple[str, Callable]] = {
    "tr": (
        "seconds from 0.05 to 30, such as 1.5",
        lambda value: type(value) in (int, float) and 0.05 <= value <= 30,
    ),
    "lag_trs": ("a whole number of TRs, 0 or more, such as 3", _is_count),
    "movies": (
        "a list of file names, such as ['film.mp4']",
        lambda value: _is_list(value, is_text),
    ),
    "fmri": ("a pattern of file names in quotes, such as 'sub-*.nii.gz'", is_text),
    "run_trs": (
        "a list with the TRs of each run, whole numbers above 0, such as [240, 240]",
        lambda value: _is_list(value, lambda n: _is_count(n) and n > 0),
    ),
    "annotations": (
        "the name of a file, such as 'annotations.xlsx', or a list with one for each run",
        lambda value: is_text(value) or _is_list(value, is_text),
    ),
    "text_columns": (
        "a list of different column names, such as ['Narration']",
        lambda value: _is_list(value, is_text, distinct=True),
    ),
    "mask": A_FILE,
    "skip_trs": (
        "a list with a whole number for each run, 0 or more, such as [0, 0]",
        lambda value: _is_list(value, _is_count),
    ),
    "subjects": (
        "a list of different names, such as ['sub-01', 'sub-02']",
        lambda value: _is_list(value, is_text, distinct=True),
    ),
    "context": (
        "two whole numbers of TRs, 0 or more, such as [2, 0]",
        lambda value: _is_list(value, _is_count) and len(value) == 2,
    ),
    "test_runs": (
        "a list of different runs, counted from 0, such as [1]",
        lambda value: value == [] or _is_list(value, _is_count, distinct=True),
    ),
    "regions": A_FILE,
    "region_names": (
        "the name of a .tsv file, or a list of names, such as ['V1', 'V2']",
        lambda value: is_text(value) or _is_list(value, is_text),
    ),
    "derivatives": ("the name of the folder of fMRIPrep's derivatives", is_text),
    "task": ("a task in quotes, such as 'film', or a list of them in the order of runs", _is_names),
    "space": ("a space in quotes, such as 'MNI152NLin2009cAsym'", is_text),
    "resolution": ("a resolution in quotes, such as '2'", is_text),
    "sessions": (
        "a list of different sessions, such as ['1', '2']",
        lambda value: _is_list(value, is_text, distinct=True),
    ),
    "stimuli": ("the name of the folder of films, words and features", is_text),
    "cleaning": (
        f"a table with some of confounds ({', '.join(STRATEGIES)} or none), detrend (true or "
        "false), high_pass (in Hz), smoothing_mm, and options of nilearn's load_confounds "
        f"({', '.join(OPTIONS)})",
        _is_cleaning,
    ),
    "series_starts": (
        "a list with the TRs before the film in the series of each run, such as [5, 5], or a table "
        "with such a list for each subject",
        lambda value: (
            _is_list(value, _is_count)
            or _is_table(value, lambda counts: _is_list(counts, _is_count))
        ),
    ),
    "run_order": (
        "a table with the runs of the film in the order in which a subject saw them, such as "
        "{sub-02 = [2, 1]}",
        lambda value: _is_table(value, lambda order: _is_list(order, _is_count, distinct=True)),
    ),
    "features": (
        "a table with video, audio or text, each the name of a file, a list of one a run, or a "
        "table of files, rate, offset and key",
        _is_features,
    ),
    "simulation": ("a table, [simulation]", lambda value: isinstance(value, dict)),
}
# Chen et al. (2017), Nature Neuroscience 20:115-125, as published: BOLD is already shifted by 3
# TRs, one movie holds both runs, and both open with the same 39 s cartoon.
SHERLOCK = {
    "tr": 1.5,
    "run_trs": [946, 1030],
    "lag_trs": 0,
    "movies": ["stimuli_Sherlock.m4v"],
    "annotations": "annotations.xlsx",
    "text_columns": ["Scene Details - A Level"],
    "fmri": "sherlock_nii/sherlock_movie_s*.nii*",
    "skip_trs": [26, 26],
}


def read_entries(path: Path, given: dict, inferred: list[str]) -> tuple[dict, Path]:
    """Entries of a data folder and the file, or known layout, that says so.

    What was not given and had to be found out is added to `inferred`.

    Parameters
    ----------
    given : dict
        Entries that add to those of dataset.toml or take their place, see `from_here`.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the entry that is missing or is not what it has to be.
    """
    source = path / "dataset.toml"
    if source.exists():
        entries = _read_toml(source)
    elif "derivatives" in given:
        entries = {}
    elif is_derivatives(path):
        entries = {"derivatives": "."}
        inferred.append(f"no dataset.toml, recognised the series of fMRIPrep in {path}")
    elif files_like(path, SHERLOCK["fmri"]):
        entries = dict(SHERLOCK)
        source = path
        inferred.append(
            f"no dataset.toml, recognised the published Sherlock layout: {json.dumps(SHERLOCK)}; "
            "BOLD is taken as already shifted by the lag, and the cartoon that opens both runs is "
            "in no split"
        )
    else:
        raise FileNotFoundError(
            f"{source} is missing: see data/README.md for what a data folder holds, or name the "
            "folder of fMRIPrep's derivatives, in which the sub- folders lie."
        )
    entries |= given
    check_entries(entries, source)
    return entries, source


def _read_toml(source: Path) -> dict:
    text = read_text(source)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid TOML: {error}.") from None


def from_here(name: str, value):
    """An argument as an entry: tuples as lists, and paths, from the current folder, absolute."""
    if isinstance(value, tuple | list):
        return [from_here(name, item) for item in value]
    if isinstance(value, dict):
        return {key: from_here(name if key == "files" else key, x) for key, x in value.items()}
    if name in PATHS and isinstance(value, str | Path):
        return os.path.abspath(os.path.expanduser(value))
    return value


def check_entries(entries: dict, source: Path) -> None:
    """Refuse entries that are unknown, missing, or not what they have to be."""
    _check_names(entries, source)
    for name, value in entries.items():
        expected, fits = ENTRIES[name]
        if not fits(value):
            raise ValueError(f"{name} in {source} is {value!r}, expected {expected}.")
    _check_pairs(entries, source)


def _check_names(entries: dict, source: Path) -> None:
    """Refuse unknown and missing entries."""
    if unknown := sorted(set(entries) - set(ENTRIES)):
        close = {name: get_close_matches(name.lower(), ENTRIES, n=1) for name in unknown}
        meant = [f"{found[0]} for {name}" for name, found in close.items() if found]
        raise ValueError(
            f"{source} has {', '.join(unknown)}, expected only {', '.join(sorted(ENTRIES))}"
            f"{': write ' if meant else ''}{', '.join(meant)}."
        )
    required = () if "derivatives" in entries else REQUIRED
    if missing := [name for name in required if name not in entries]:
        raise ValueError(
            f"{source} lacks {', '.join(missing)}: see data/README.md for each entry's meaning."
        )


def _check_pairs(entries: dict, source: Path) -> None:
    """Refuse entries without their partner, and those below the table of the simulation."""
    if "region_names" in entries and "regions" not in entries:
        raise ValueError(
            f"{source} has region_names without regions, expected the label image that they name: "
            "add regions."
        )
    if "text_columns" in entries and not {"annotations", "stimuli"} & set(entries):
        raise ValueError(
            f"{source} has text_columns without annotations, expected the file that they are in: "
            "add annotations."
        )
    chosen = [name for name in BIDS if name in entries]
    if chosen and "derivatives" not in entries:
        raise ValueError(
            f"{source} has {chosen[0]} without derivatives, expected the folder of fMRIPrep's "
            "derivatives, in which it chooses: add derivatives, or take a pattern in fmri."
        )
    if "derivatives" in entries and "fmri" in entries:
        raise ValueError(
            f"{source} has both derivatives and fmri, expected one of them: leave one out."
        )
    inside = set(entries.get("simulation", ())) & set(ENTRIES) - set(SIMULATED)
    if inside:
        raise ValueError(
            f"{source} has {', '.join(sorted(inside))} below [simulation], where it is not read: "
            "move it above that line."
        )


def check_runs(entries: dict, source: Path) -> None:
    """Refuse entries that do not fit the number of runs, or their TRs."""
    run_trs = entries["run_trs"]
    n_runs = len(run_trs)
    shortest = min(run_trs)
    n_movies = len(entries.get("movies", []))
    if n_movies not in (0, 1, n_runs):
        raise ValueError(
            f"{source} names {n_movies} movies for {n_runs} runs, expected one a run or one for "
            "all: correct movies or run_trs."
        )
    annotations = entries.get("annotations", "")
    if isinstance(annotations, list) and len(annotations) not in (1, n_runs):
        raise ValueError(
            f"{source} names {len(annotations)} annotations for {n_runs} runs, expected one a run "
            "or one for all: correct annotations or run_trs."
        )
    skip = entries.get("skip_trs", [0] * n_runs)
    if len(skip) != n_runs:
        raise ValueError(
            f"skip_trs in {source} is {skip}, expected a number for each of {n_runs} runs."
        )
    test_runs = entries.get("test_runs", [])
    fewer = f"fewer TRs than the runs have, {run_trs}"
    for name, fits, expected in (
        ("skip_trs", all(n < n_trs for n, n_trs in zip(skip, run_trs, strict=True)), fewer),
        ("lag_trs", entries["lag_trs"] < shortest, fewer),
        (
            "lag_trs",
            entries["lag_trs"] * entries["tr"] <= LONGEST_LAG,
            f"at most {LONGEST_LAG:g} s, {int(LONGEST_LAG / entries['tr'])} TRs of "
            f"{entries['tr']:g} s: BOLD follows a film by 4 to 6 s",
        ),
        ("context", sum(entries.get("context", [])) < shortest, fewer),
        (
            "test_runs",
            set(test_runs) <= set(range(n_runs)) and len(test_runs) < n_runs,
            f"some of 0 to {n_runs - 1}, not all, so that a run is left to train on",
        ),
    ):
        if not fits:
            raise ValueError(f"{name} in {source} is {entries[name]!r}, expected {expected}.")
