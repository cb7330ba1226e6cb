"""The series of a data folder: one file per subject, each under a name of its own."""

import glob
import math
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

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
) -> dict[str, Path]:
    """One file per subject, by its name."""
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
    if wanted is not None:
        files = _chosen(files, wanted, source)
    _check_subjects(files, path, source)
    return files


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


def _chosen(files: dict[str, Path], wanted: list[str], source: Path) -> dict[str, Path]:
    """The files of some subjects, whose names may be composed otherwise than on disk."""
    composed = {unicodedata.normalize("NFC", name): name for name in files}
    names = [
        name if name in files else composed.get(unicodedata.normalize("NFC", name))
        for name in wanted
    ]
    if missing := [name for name, found in zip(wanted, names, strict=True) if found is None]:
        raise ValueError(
            f"subjects in {source} has {', '.join(missing)}, expected some of "
            f"{', '.join(files)}, the series that 'fmri' finds."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"subjects in {source} is {wanted}, expected each subject once.")
    return {name: files[name] for name in names}


def _check_subjects(files: dict[str, Path], path: Path, source: Path) -> None:
    """Refuse several files of one subject: its runs, sessions, echoes or spaces."""
    seen = {}
    for file in files.values():
        below = _stem(Path(os.path.relpath(file, path)).as_posix())
        rest = re.sub(r"[_.-]+(?=/|$)|(?<![^/])/", "", PARTS.sub("", below))
        whose = _label(file, path) or rest or below
        first = seen.setdefault(whose, file)
        if first != file:
            raise ValueError(
                f"{first} and {file} are of one subject by their names, expected one file per "
                "subject: join its runs one after the other into one file, or narrow 'fmri' or "
                f"'subjects' in {source}."
            )


def series_trs(subjects: dict[str, Path], run_trs: list[int] | None, source: Path) -> int:
    """TRs of each series, which must be those of the runs."""
    lengths = {path: load_series(path).shape[3] for path in subjects.values()}
    shortest = min(lengths, key=lengths.get)
    longest = max(lengths, key=lengths.get)
    if lengths[shortest] != lengths[longest]:
        raise ValueError(
            f"{shortest} has {lengths[shortest]} TRs and {longest} {lengths[longest]}, expected "
            f"the same of every subject: cut them, or leave one out of 'fmri' in {source}."
        )
    if run_trs is not None and sum(run_trs) != lengths[shortest]:
        raise ValueError(
            f"run_trs in {source} is {run_trs}, {sum(run_trs)} TRs, but {shortest} has "
            f"{lengths[shortest]}, expected the same: mend run_trs, or join the runs of the series."
        )
    return lengths[shortest]


def other_trs(subjects: dict[str, Path], tr: float, source: Path) -> list[str]:
    """Say which headers state another repetition time than `tr`, a sentence for each time."""
    stated = {}
    for path in subjects.values():
        seconds = stated_tr(load_series(path))
        if seconds is not None and not math.isclose(seconds, tr, rel_tol=0.005):
            stated.setdefault(round(seconds, 6), []).append(path)
    return [
        f"{paths[0]} states a TR of {seconds:g} s in its header"
        f"{f', as {len(paths) - 1} others do' if len(paths) > 1 else ''}, but {source} says {tr:g}"
        " s, which is taken: make sure of it"
        for seconds, paths in stated.items()
    ]


def copies(subjects: dict[str, Path], source: Path) -> list[str]:
    """Refuse a file under two names, and say which files hold the same bytes."""
    seen = {}
    said = []
    status = {file: file.stat() for file in subjects.values()}
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
                said.append(f"{twin} and {file} hold the same bytes, but count as two subjects")
    return said
