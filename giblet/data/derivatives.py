"""fMRIPrep derivatives: the series of each run, their masks and clocks, found by their names.

Names are those of BIDS: `sub-01_ses-1_task-film_run-1_space-MNI152NLin2009cAsym_res-2_desc-
preproc_bold.nii.gz`, beside it `..._desc-brain_mask.nii.gz`, a `.json` and
`..._desc-confounds_timeseries.tsv`.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nilearn.interfaces.bids import parse_bids_filename

from giblet.data.subjects import files_like, in_order, series_of
from giblet.files import read_text
from giblet.images import load_series, stated_tr

PATTERN = "**/sub-*_bold.nii*"
AROMA = "smoothAROMAnonaggr"  # what nilearn's strategy 'ica_aroma' goes on from
PREPARED = ("preproc", AROMA)  # of `desc`, what fMRIPrep has preprocessed
CONFOUNDS = ("_desc-confounds_timeseries.tsv", "_desc-confounds_regressors.tsv")
# Of several spaces the first of these, or of a name that begins so, is taken
SPACES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym", "MNI")
SAME_SECONDS = 0.005  # relative


@dataclass(frozen=True)
class BidsSeries:
    """One preprocessed run of one subject."""

    path: Path

    @cached_property
    def entities(self) -> dict[str, str]:
        """What its name says, such as {'sub': '01', 'task': 'film', 'run': '1'}."""
        return parse_bids_filename(self.path)["entities"]

    def get(self, name: str) -> str:
        """One entity, '' where the name has none."""
        return self.entities.get(name, "")

    def number(self, name: str) -> tuple:
        """A run or session to sort and to compare by: `run-1` is `run-01`; () where none is."""
        return in_order(self.get(name))

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.path.name.split(".nii")[0] + ".json")

    @property
    def mask(self) -> Path:
        """Where the brain mask of its grid lies."""
        name = self.path.name.replace(f"_desc-{self.get('desc')}_bold", "_desc-brain_mask")
        return self.path.with_name(name)


def is_derivatives(path: Path) -> bool:
    """Whether a folder holds BIDS series, in the folders of subjects."""
    return bool(files_like(path, "sub-*/**/*_bold.nii*"))


def confounds_file(path: Path) -> Path | None:
    """The table of confounds beside a preprocessed series."""
    name = path.name
    for part in ("_space-", "_res-", "_desc-"):
        name = name.split(part)[0]
    files = [path.with_name(name + ending) for ending in CONFOUNDS]
    return next((file for file in files if file.is_file()), None)


@dataclass(frozen=True)
class Derivatives:
    """The runs of a study in one space.

    Parameters
    ----------
    subjects : dict of str to tuple of Path or None
        The series of each run by subject, such as 'sub-01'; None where a subject lacks the run.
    runs : tuple of str
        Name of each run, such as 'task-film run-1'.
    said : tuple of str
        What was chosen, a sentence each.
    """

    subjects: dict[str, tuple[Path | None, ...]]
    runs: tuple[str, ...]
    said: tuple[str, ...]

    @property
    def series(self) -> list[Path]:
        """Every series of every subject."""
        return series_of(self.subjects)

    @property
    def masks(self) -> list[Path]:
        """Brain masks beside the series, those that there are."""
        return [mask for path in self.series if (mask := BidsSeries(path).mask).is_file()]

    def of_subjects(self, wanted: list[str] | None) -> "Derivatives":
        """Some of the subjects, in the order given; default all.

        Raises
        ------
        ValueError
            Where one is not there.
        """
        if wanted is None:
            return self
        if missing := [name for name in wanted if name not in self.subjects]:
            raise ValueError(
                f"subjects has {missing[0]}, expected some of {', '.join(self.subjects)}: correct "
                "it."
            )
        return replace(self, subjects={name: self.subjects[name] for name in wanted})

    def tr(self) -> float:
        """Seconds from TR to TR, from the .json of each series, or else from its header.

        Raises
        ------
        ValueError
            Where none says it, or two differ.
        """
        stated = {path: _stated_seconds(path) for path in self.series}
        known = {path: seconds for path, seconds in stated.items() if seconds is not None}
        if not known:
            raise ValueError(
                f"neither {self.series[0]} nor its .json states a RepetitionTime: give tr, in "
                "seconds."
            )
        first = next(iter(known))
        for path, seconds in known.items():
            if not math.isclose(seconds, known[first], rel_tol=SAME_SECONDS):
                raise ValueError(
                    f"{first} has a TR of {known[first]:g} s and {path} of {seconds:g} s, expected "
                    "one of all: choose tasks or subjects of one TR."
                )
        return known[first]


def _stated_seconds(path: Path) -> float | None:
    sidecar = BidsSeries(path).sidecar
    if sidecar.is_file():
        try:
            seconds = json.loads(read_text(sidecar)).get("RepetitionTime")
        except (json.JSONDecodeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{sidecar} is not valid JSON ({error}): copy it again, or delete it."
            ) from None
        if isinstance(seconds, int | float) and 0 < seconds < math.inf:
            return float(seconds)
    return stated_tr(load_series(path))


def find_derivatives(
    path: Path,
    task: str | list[str] | None = None,
    space: str | None = None,
    resolution: str | None = None,
    sessions: list[str] | None = None,
    desc: str | None = None,
) -> Derivatives:
    """Find the preprocessed series of one or several tasks.

    Runs are in the order of the tasks given, then of sessions and runs. Where a subject has each
    run number of a task once, its session does not count: people may see runs on other days.

    Parameters
    ----------
    task : str or list of str
        As in `task-film`; may be left out where there is one.
    space, resolution : str
        As in `space-MNI152NLin2009cAsym` and `res-2`; default an MNI space, said where there are
        several.
    sessions : list of str
        As in `ses-1`; default all.
    desc : str
        As in `desc-preproc`, which is the default where there are several.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming what is missing or can be understood in two ways.
    """
    files = [BidsSeries(file) for file in files_like(path, PATTERN)]
    prepared = [one for one in files if one.get("desc") in PREPARED and not one.get("echo")]
    if not prepared:
        raise FileNotFoundError(_nothing_prepared(path, files))
    tasks = [task] if isinstance(task, str) else task
    if tasks is None:
        tasks = [_only(prepared, "task", "task", path)]
    found = _matching(prepared, "task", tasks, path)
    if sessions is not None:
        found = _matching(found, "ses", sessions, path)
    said: list[str] = []
    for name, wanted in (("space", space), ("res", resolution), ("desc", desc)):
        found = _chosen(found, name, wanted, path, said)
    return _by_subject(found, tasks, tuple(said))


def _nothing_prepared(path: Path, files: list[BidsSeries]) -> str:
    if not files:
        return (
            f"{path} holds no file like sub-*_bold.nii.gz, expected fMRIPrep derivatives: name "
            "their folder, the one of the sub- folders."
        )
    return (
        f"{files[0].path} is not preprocessed, expected desc-preproc in its name: name the folder "
        "of the fMRIPrep derivatives instead of the raw data, or one image without echoes."
    )


def _values(files: list[BidsSeries], name: str) -> list[str]:
    return sorted({one.get(name) for one in files})


def _only(files: list[BidsSeries], name: str, argument: str, path: Path) -> str:
    """The one value that all files have."""
    values = _values(files, name)
    if len(values) > 1:
        shown = ", ".join(value or f"no {name}" for value in values)
        raise ValueError(
            f"{path} has several values of {name} ({shown}), expected one: choose with {argument}, "
            "for several a list in the order of the film."
        )
    return values[0]


def _matching(
    files: list[BidsSeries], name: str, wanted: list[str], path: Path
) -> list[BidsSeries]:
    known = _values(files, name)
    if missing := [value for value in wanted if value not in known]:
        shown = ", ".join(value for value in known if value) or "none"
        raise ValueError(
            f"{path} has no series of {name}-{missing[0]}, expected some of {shown}: correct it."
        )
    return [one for one in files if one.get(name) in wanted]


def _chosen(
    files: list[BidsSeries], name: str, wanted: str | None, path: Path, said: list[str]
) -> list[BidsSeries]:
    """Series of one space, resolution or kind; which of several was taken is said."""
    values = _values(files, name)
    if wanted is not None:
        return _matching(files, name, [wanted], path)
    if len(values) == 1 and (name != "space" or values[0].startswith(SPACES)):
        return files
    preferred = {"space": SPACES, "desc": PREPARED}.get(name, values)
    for start in preferred:
        if likely := [value for value in values if value.startswith(start)]:
            shown = ", ".join(value or "native" for value in values)
            said.append(f"of {name} {shown}, {name}-{likely[0]} is taken")
            return [one for one in files if one.get(name) == likely[0]]
    raise ValueError(
        f"{path} has series in {', '.join(value or 'native space' for value in values)}, expected "
        "an MNI space, in which all brains have the same voxels: choose with space, or run "
        "fMRIPrep with --output-spaces MNI152NLin2009cAsym."
    )


def _by_subject(files: list[BidsSeries], tasks: list[str], said: tuple[str, ...]) -> Derivatives:
    """Sort series into the runs of each subject."""
    without_session = Counter((one.get("sub"), one.get("task"), one.number("run")) for one in files)
    by_session = max(without_session.values()) > 1
    found: dict[str, dict[tuple, BidsSeries]] = {}
    for one in files:
        session = one.number("ses") if by_session else ()
        key = (tasks.index(one.get("task")), session, one.number("run"))
        runs = found.setdefault(f"sub-{one.get('sub')}", {})
        if key in runs:
            raise ValueError(
                f"{runs[key].path} and {one.path} are of one run by their names, expected one file "
                "of each: delete or rename one."
            )
        runs[key] = one
    keys = sorted({key for runs in found.values() for key in runs})
    names = tuple(_run_name(tasks[task], session, run) for task, session, run in keys)
    subjects = {
        name: tuple(runs[key].path if key in runs else None for key in keys)
        for name, runs in found.items()
    }
    return Derivatives(subjects, names, said)


def _run_name(task: str, session: tuple, run: tuple) -> str:
    parts = [f"task-{task}"]
    for name, number in (("ses", session), ("run", run)):
        if number:
            parts.append(f"{name}-{number[1] or number[0]}")
    return " ".join(parts)
