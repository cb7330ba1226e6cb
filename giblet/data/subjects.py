"""The series of a data folder: of each subject one file, or one a run, under its name."""

import glob
import math
import os
import re
import unicodedata
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TypeVar

from giblet.data.provenance import fingerprint_file
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
) -> dict[str, tuple[Path, ...]]:
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


def _by_subject(files: dict[str, Path], path: Path, source: Path) -> dict[str, tuple[Path, ...]]:
    """Files of one subject together: its runs in their order.

    Other files of one subject, such as echoes or spaces, are refused.
    """
    of_subject: dict[str, list[str]] = {}
    for name, file in files.items():
        whose = _label(file, path) or _without(PARTS, file, path) or _below(file, path)
        of_subject.setdefault(whose, []).append(name)
    if len(of_subject) == len(files):
        return {name: (file,) for name, file in files.items()}
    runs = {
        whose: _in_order([files[name] for name in names], path, source)
        for whose, names in of_subject.items()
    }
    first = next(iter(runs))
    for whose, found in runs.items():
        if found.keys() != runs[first].keys():
            shown = [" ".join(map(str, one.values())) for one in (runs[first], found)]
            raise ValueError(
                f"{whose} has the series {shown[1]}, but {first} {shown[0]}, expected a file of "
                f"each run of every subject, or one of all runs: add what is missing, or narrow "
                f"'fmri' or 'subjects' in {source}."
            )
    return {whose: tuple(found.values()) for whose, found in runs.items()}


def _in_order(files: list[Path], path: Path, source: Path) -> dict[tuple, Path]:
    """Series of one subject that differ in session and run alone, by these, sorted."""
    numbers = [_numbers(file, path) for file in files]
    if len({number[1] for number in numbers}) == len(files):
        numbers = [number[1:] for number in numbers]  # runs of all sessions count on
    found = dict(zip(numbers, files, strict=True))
    rests = {_without(RUN, file, path) for file in files}
    if len(found) < len(files) or len(rests) > 1:
        raise ValueError(
            f"{files[0]} and {files[1]} are of one subject by their names, expected one file per "
            "subject, or one per run: join its runs one after the other into one file, or narrow "
            f"'fmri' or 'subjects' in {source}."
        )
    return {number: found[number] for number in sorted(found)}


def _numbers(file: Path, path: Path) -> tuple[tuple, tuple]:
    """Session and run in the name of a series, to sort by; () where there is none."""
    found = {"s": (), "r": ()}
    for match in RUN.finditer(_below(file, path)):
        kind, number = match[1][0].lower(), re.sub(r"^[a-z]+[-_]?", "", match[1].lower())
        found[kind] = (int(number), "") if number.isdecimal() else (0, number)
    return found["s"], found["r"]


def _without(parts: re.Pattern, file: Path, path: Path) -> str:
    """The path of a file without some parts of its name and what separates them."""
    return re.sub(r"[_.-]+(?=/|$)|(?<![^/])/", "", parts.sub("", _below(file, path)))


def _below(file: Path, path: Path) -> str:
    return _stem(Path(os.path.relpath(file, path)).as_posix())


def series_trs(
    subjects: dict[str, tuple[Path, ...]], run_trs: list[int] | None, source: Path
) -> list[int]:
    """TRs of each series of a subject, which must be those of the runs and the same of everyone."""
    n_trs = []
    for files in zip(*subjects.values(), strict=True):
        lengths = {path: load_series(path).shape[3] for path in files}
        shortest = min(lengths, key=lengths.get)
        longest = max(lengths, key=lengths.get)
        if lengths[shortest] != lengths[longest]:
            raise ValueError(
                f"{shortest} has {lengths[shortest]} TRs and {longest} {lengths[longest]}, "
                "expected the same of every subject: cut them, or leave one out of 'fmri' in "
                f"{source}."
            )
        n_trs.append(lengths[shortest])
    if run_trs is None:
        return n_trs
    if len(n_trs) == 1 and sum(run_trs) != n_trs[0]:
        raise ValueError(
            f"run_trs in {source} is {run_trs}, {sum(run_trs)} TRs, but {shortest} has "
            f"{n_trs[0]}, expected the same: mend run_trs, or join the runs of the series."
        )
    if len(n_trs) > 1 and run_trs != n_trs:
        raise ValueError(
            f"run_trs in {source} is {run_trs}, but the series of the runs have {n_trs} TRs, "
            "expected the same: mend run_trs, or leave it out."
        )
    return n_trs


def other_trs(subjects: dict[str, tuple[Path, ...]], tr: float, source: Path) -> list[str]:
    """Say which headers state another repetition time than `tr`, a sentence for each time."""
    stated = {}
    for path in chain.from_iterable(subjects.values()):
        seconds = stated_tr(load_series(path))
        if seconds is not None and not math.isclose(seconds, tr, rel_tol=0.005):
            stated.setdefault(round(seconds, 6), []).append(path)
    return [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: the header states a "
        f"TR of {seconds:g} s, but {source} says {tr:g} s, which is taken: make sure of it"
        for seconds, paths in stated.items()
    ]


def copies(subjects: dict[str, tuple[Path, ...]], source: Path) -> list[str]:
    """Refuse a file under two names, and say which files hold the same bytes."""
    seen = {}
    said = []
    status = {file: file.stat() for file in chain.from_iterable(subjects.values())}
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
