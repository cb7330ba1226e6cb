"""The series of a data folder: of each subject one file, or one a run, under its name."""

import glob
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from giblet.data.provenance import N_NAMED, fingerprint_file
from giblet.images import load_series, stated_tr

IMAGE = re.compile(r"\.(nii|hdr|img)(\.\w+)?$", re.IGNORECASE)
# Parts of names in which files of one subject differ, where none has a `sub-` label
PARTS = re.compile(
    r"(?<![^_/.-])"
    r"((run|ses|session|echo|part|r|e)[-_]?\d+|(run|ses|echo|part|space|res|desc)-[^_/]+)"
    r"(?=[_/.-]|$)",
    re.IGNORECASE,
)
# Parts in which the runs of a subject differ
RUN = re.compile(
    r"(?<![^_/.-])((?:run|r|session|ses)[-_]?\d+|(?:run|ses)-[^_/]+)(?=[_/.-]|$)", re.IGNORECASE
)
Series = Mapping[str, tuple[Path | None, ...]]  # by subject: one of all runs, or one a run
Found = TypeVar("Found")  # a file, or those of a subject


def files_like(path: Path, pattern: str) -> list[Path]:
    """Files like a pattern, by their names and then folders; none that a wildcard must not hide."""
    found = glob.glob(os.path.expanduser(pattern), root_dir=path, recursive=True)
    files = [path / name for name in found]
    return sorted(files, key=lambda file: (_natural(file.name), _natural(file.as_posix())))


def _natural(name: str) -> list:
    """Numbers in a name count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def find_subjects(
    path: Path, pattern: str, wanted: list[str] | None, source: Path
) -> dict[str, tuple[Path | None, ...]]:
    """The series of each subject, by its name: one of all runs, or one a run, in their order."""
    series = files_like(path, pattern)
    if not series:
        raise FileNotFoundError(
            f"{path} holds no file like {pattern!r}, expected one a subject: mend 'fmri' in "
            f"{source}."
        )
    if others := [file for file in series if file.is_dir() or not IMAGE.search(file.name)]:
        raise ValueError(
            f"fmri in {source} is {pattern!r}, which finds {others[0]}, expected NIfTI files "
            "alone: narrow it, for instance to 'sub-*/func/*_bold.nii.gz'."
        )
    files = dict(zip(_names(series, path), series, strict=True))
    if wanted is None:
        return _by_subject(files, path, source)
    if set(map(_composed, wanted)) <= set(map(_composed, files)):
        return _by_subject(_chosen(files, wanted, source), path, source)
    return _chosen(_by_subject(files, path, source), wanted, source)


def _names(series: list[Path], path: Path) -> list[str]:
    """Stems of the files; where they are equal, the `sub-` label of a folder, or else the path."""
    files = [Path(os.path.abspath(file)) for file in series]
    base = os.path.abspath(path)
    if not all(file.is_relative_to(base) for file in files):
        base = os.path.commonpath([file.parent for file in files])
    below = [file.relative_to(base).as_posix() for file in files]
    stems = [_stem(file.name) for file in series]
    labels = [_label(file, path) for file in series]
    paths = [_stem(name) for name in below]
    names = []
    for *candidates, last in zip(stems, labels, paths, below, strict=True):
        counts = (Counter(column) for column in (stems, labels, paths))
        unique = [name for name, n in zip(candidates, counts, strict=True) if n[name] == 1]
        names.append(next(filter(None, unique), last))
    return names


def _stem(name: str) -> str:
    return IMAGE.sub("", name)


def _label(file: Path, path: Path) -> str | None:
    """The `sub-` label of a file: of its name, or else of the nearest folder."""
    for part in reversed(Path(os.path.relpath(file, path)).parts):
        if found := re.search(r"sub-[^_.]+", part):
            return found[0]
    return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _chosen(found: dict[str, Found], wanted: list[str], source: Path) -> dict[str, Found]:
    """The files of some subjects, whose names may be composed otherwise than on disk."""
    composed = {_composed(name): name for name in found}
    names = [name if name in found else composed.get(_composed(name)) for name in wanted]
    if missing := [name for name, known in zip(wanted, names, strict=True) if known is None]:
        raise ValueError(
            f"subjects in {source} has {', '.join(missing)}, expected some of "
            f"{', '.join(found)}, the series that 'fmri' finds."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"subjects in {source} is {wanted}, expected each subject once.")
    return {name: found[name] for name in names if name is not None}


def _by_subject(
    files: dict[str, Path], path: Path, source: Path
) -> dict[str, tuple[Path | None, ...]]:
    """Files of one subject together: its runs in their order, None where it lacks one.

    Other files of one subject, such as echoes or spaces, are refused.
    """
    of_subject: dict[str, list[Path]] = {}
    for file in files.values():
        whose = _label(file, path) or _without(PARTS, file, path) or _below(file, path)
        of_subject.setdefault(whose, []).append(file)
    if len(of_subject) == len(files):
        return {name: (file,) for name, file in files.items()}
    by_session = any(_repeats_runs(found, path) for found in of_subject.values())
    runs = {
        whose: _numbered(found, by_session, path, source) for whose, found in of_subject.items()
    }
    keys = sorted({key for found in runs.values() for key in found})
    labelled = {tuple(len(number) > 0 for number in key) for key in keys}
    if len(labelled) > 1:
        whose, found = min(runs.items(), key=lambda item: len(item[1]))
        raise ValueError(
            f"{whose} has {' '.join(map(str, found.values()))}, whose name has not the labels of "
            "the others, expected a file of each run, or one of all runs, of every subject: rename "
            f"it, or narrow 'fmri' or 'subjects' in {source}."
        )
    return {whose: tuple(found.get(key) for key in keys) for whose, found in runs.items()}


def _repeats_runs(files: list[Path], path: Path) -> bool:
    """Whether a subject has a run number more than once, so that sessions tell runs apart."""
    runs = [_numbers(file, path)[1] for file in files]
    return len(set(runs)) < len(runs)


def _numbered(files: list[Path], by_session: bool, path: Path, source: Path) -> dict[tuple, Path]:
    """Series of one subject that differ in session and run alone, by these."""
    numbers = [_numbers(file, path) for file in files]
    if not by_session:
        numbers = [number[1:] for number in numbers]  # runs of all sessions count on
    found = dict(zip(numbers, files, strict=True))
    rests = {_without(RUN, file, path) for file in files}
    if len(found) < len(files) or len(rests) > 1:
        raise ValueError(
            f"{files[0]} and {files[1]} are of one subject by their names, expected one file per "
            "subject, or one per run: join its runs one after the other into one file, or narrow "
            f"'fmri' or 'subjects' in {source}."
        )
    return found


def _numbers(file: Path, path: Path) -> tuple[tuple, tuple]:
    """Session and run in the name of a series, to sort by; () where there is none."""
    found = {"s": (), "r": ()}
    for match in RUN.finditer(_below(file, path)):
        kind, number = match[1][0].lower(), re.sub(r"^[a-z]+[-_]?", "", match[1].lower())
        found[kind] = in_order(number)
    return found["s"], found["r"]


def in_order(number: str) -> tuple:
    """The number of a run or session to sort and to compare by: 1 is 01; () where there is none."""
    if not number:
        return ()
    return (int(number), "") if number.isdecimal() else (0, number)


def _without(parts: re.Pattern, file: Path, path: Path) -> str:
    """The path of a file without some parts of its name and what separates them."""
    return re.sub(r"[_.-]+(?=/|$)|(?<![^/])/", "", parts.sub("", _below(file, path)))


def _below(file: Path, path: Path) -> str:
    return _stem(Path(os.path.relpath(file, path)).as_posix())


def series_of(subjects: Series) -> list[Path]:
    """Every series of every subject."""
    return [file for files in subjects.values() for file in files if file is not None]


def missing_runs(subjects: Series) -> list[str]:
    """Say which subjects lack which runs."""
    return [
        f"{name} has no series of run {number}: not measured there"
        for name, files in subjects.items()
        for number, file in enumerate(files, start=1)
        if file is None
    ]


def in_order_of_film(
    subjects: Series, run_order: dict[str, list[int]], source: Path
) -> dict[str, tuple[Path | None, ...]]:
    """The series of each subject in the order of the film's runs.

    Parameters
    ----------
    run_order : dict of str to list of int
        Of subjects who saw the runs in another order, the run of the film that each series is of,
        counted from 1.
    """
    ordered = dict(subjects)
    for name, order in run_order.items():
        if name not in subjects or sorted(order) != list(range(1, len(subjects[name]) + 1)):
            raise ValueError(
                f"run_order in {source} has {name} = {order}, expected one of "
                f"{', '.join(subjects)} and each of its runs once, counted from 1: correct it."
            )
        shown = dict(zip(order, subjects[name], strict=True))
        ordered[name] = tuple(shown[run] for run in sorted(order))
    return ordered


def starts_of(
    subjects: Series, told: list[int] | dict[str, list[int]], source: Path
) -> dict[str, tuple[int, ...]]:
    """TRs of the series of each run before its film begins, by subject; () where all are 0.

    Parameters
    ----------
    told : list, or dict of str to list
        Of each run, of all subjects or by subject.
    """
    if isinstance(told, list):
        return dict.fromkeys(subjects, tuple(told))
    if unknown := [name for name in told if name not in subjects]:
        raise ValueError(
            f"series_starts in {source} has {unknown[0]}, expected some of {', '.join(subjects)}: "
            "correct it."
        )
    return {name: tuple(told.get(name, ())) for name in subjects}


def series_trs(
    subjects: Series,
    starts: dict[str, tuple[int, ...]],
    run_trs: list[int] | None,
    source: Path,
) -> tuple[list[int], list[str]]:
    """TRs of each run, and what was cropped for them, a sentence for each run.

    Series a run may differ in length: a run is as long as `run_trs` says, or else as half of its
    series are. TRs that a series lacks were not measured, and what it has beyond is cropped. A
    series that holds several runs must be as long as these.
    """
    lengths = {file: load_series(file).shape[3] for file in series_of(subjects)}
    n_series = len(next(iter(subjects.values())))
    if run_trs is not None and n_series == 1 and len(run_trs) > 1:
        _check_joined(subjects, starts, lengths, run_trs, source)
        return run_trs, []
    if run_trs is not None and len(run_trs) != n_series:
        raise ValueError(
            f"run_trs in {source} is {run_trs}, but subjects have series of {n_series} runs, "
            "expected as many numbers: mend run_trs, or leave it out."
        )
    found, said = [], []
    for run in range(n_series):
        n_trs = {
            files[run]: lengths[files[run]] - _start(starts[name], run, n_series, source)
            for name, files in subjects.items()
            if files[run] is not None
        }
        usual = sorted(n_trs.values(), reverse=True)[len(n_trs) // 2]
        wanted = usual if run_trs is None else run_trs[run]
        if wanted not in n_trs.values():
            raise ValueError(
                f"run_trs in {source} is {run_trs}, but run {run + 1} has {usual} TRs in "
                f"{next(iter(n_trs))}, expected the same: mend run_trs, or leave it out."
            )
        if wanted < 1:
            raise ValueError(
                f"series_starts in {source} leaves no TR of run {run + 1}, expected fewer than its "
                f"series have: correct it."
            )
        said += _said_of_lengths(n_trs, wanted, run + 1)
        found.append(wanted)
    if run_trs is None:
        runs = "one run" if n_series == 1 else f"{n_series} runs"
        said.insert(0, f"{runs} of {', '.join(map(str, found))} TRs, the length of the series")
    return found, said


def _start(starts: tuple[int, ...], run: int, n_series: int, source: Path) -> int:
    if starts and len(starts) != n_series:
        raise ValueError(
            f"series_starts in {source} is {list(starts)}, expected a number for each of "
            f"{n_series} runs."
        )
    return starts[run] if starts else 0


def _said_of_lengths(n_trs: dict[Path, int], wanted: int, run: int) -> list[str]:
    """Which series of a run are shorter or longer than it, in a sentence."""
    told = [
        f"{file.name} has {n} ({wanted - n} not measured)"
        if n < wanted
        else f"{file.name} has {n} ({n - wanted} cropped at its end)"
        for file, n in n_trs.items()
        if n != wanted
    ]
    more = f"; and {len(told) - N_NAMED} more" if len(told) > N_NAMED else ""
    shown = "; ".join(told[:N_NAMED])
    return [f"run {run} has {wanted} TRs, but {shown}{more}"] if told else []


def _check_joined(
    subjects: Series,
    starts: dict[str, tuple[int, ...]],
    lengths: dict[Path, int],
    run_trs: list[int],
    source: Path,
) -> None:
    """Refuse series of several runs that are longer or shorter than these."""
    for name, (file,) in subjects.items():
        before = starts[name]
        _start(before, 0, len(run_trs), source)
        if file is not None and lengths[file] != sum(run_trs) + sum(before):
            raise ValueError(
                f"run_trs in {source} is {run_trs}, {sum(run_trs)} TRs, but {file} has "
                f"{lengths[file] - sum(before)}, expected the same: mend run_trs, or join the runs "
                "of the series."
            )


def other_trs(subjects: Series, tr: float, source: Path) -> list[str]:
    """Say which headers state another repetition time than `tr`, a sentence for each time."""
    stated = {}
    for path in series_of(subjects):
        seconds = stated_tr(load_series(path))
        if seconds is not None and not math.isclose(seconds, tr, rel_tol=0.005):
            stated.setdefault(round(seconds, 6), []).append(path)
    return [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: the header states a "
        f"TR of {seconds:g} s, but {source} says {tr:g} s, which is taken: make sure of it"
        for seconds, paths in stated.items()
    ]


def copies(subjects: Series, source: Path) -> list[str]:
    """Refuse a file under two names, and say which files hold the same bytes."""
    seen = {}
    said = []
    status = {file: file.stat() for file in series_of(subjects)}
    n_sizes = Counter(found.st_size for found in status.values())
    for file, found in status.items():
        first = seen.setdefault((found.st_dev, found.st_ino), file)
        if first != file:
            raise ValueError(
                f"{first} and {file} are the same file, expected one per subject: narrow 'fmri' in "
                f"{source}."
            )
        if n_sizes[found.st_size] > 1:
            twin = seen.setdefault(fingerprint_file(file), file)
            if twin != file:
                said.append(f"{twin} and {file} hold the same bytes, but count as two series")
    return said
