"""What a data folder holds: its files and its clock.

They come from dataset.toml, or from a layout that is known.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from giblet.data.cleaning import Cleaning, existing_confounds
from giblet.data.derivatives import AROMA, find_derivatives
from giblet.data.entries import check_runs, from_here, is_text, read_entries
from giblet.data.feature_files import FeatureFiles
from giblet.data.pieces import Piece, pieces_of
from giblet.data.stimuli import find_stimuli
from giblet.data.subjects import (
    copies,
    find_subjects,
    in_order_of_film,
    missing_runs,
    other_trs,
    series_of,
    series_trs,
    starts_of,
)
from giblet.files import read_text

HEMODYNAMIC_DELAY = 4.5  # seconds by which BOLD that nobody has shifted follows the film
NOT_CLEANED = (
    "fMRIPrep leaves confounds and drift in these series, and no cleaning is asked for: make sure "
    "of [cleaning] in dataset.toml"
)
# What is said where a file is not given
NOT_GIVEN = {
    "masks": "no mask given: voxels within 6 mm of the MNI152 brain that vary in every subject",
    "movies": "no movies given: trains without pictures and sound of a film",
    "annotations": "no annotations given: trains without text",
}


@dataclass(frozen=True)
class DataFolder:
    """A movie data set on disk.

    Parameters
    ----------
    tr : float
        Repetition time in seconds.
    run_trs : tuple of int
        TRs of each run, in the order of the NIfTI series.
    lag_trs : int
        TRs by which the BOLD in the files still lags the movie; 0 where it was shifted already.
    movies : tuple of Path
        One movie a run, or one that holds all runs back to back; () without any.
    annotations : tuple of Path
        Words and their times, see `giblet.data.segments`: one file a run, or one of all; () without
        any.
    text_columns : tuple of str
        Columns of a sheet whose words are embedded.
    features : dict of str to FeatureFiles
        Stimuli whose features were made elsewhere.
    subjects : dict of str to tuple of Path or None
        NIfTI series by subject: one of all runs, or one a run, None where a run was not measured.
    starts : dict of str to tuple of int
        TRs of the series of each run before its film begins, by subject.
    cleaning : Cleaning
        What is taken out of the series.
    masks : tuple of Path
        NIfTI masks on the grid of the series, whose common voxels are used; (): the MNI152 brain
        and a margin.
    skip_trs : tuple of int
        TRs at the start of each run that are in no split.
    context, test_runs : tuple of int
        What `MultimodalDataset` takes where it is not told otherwise.
    regions : Path or None
        Label image of the regions that tables and lesions take; None: networks of Seitzman et al.
    region_names : tuple of str or Path
        Names of its labels, see `giblet.regions.label_regions`, or a BIDS table of them
        (.tsv).
    simulated : bool
        Written by `simulate_dataset`.
    entries : dict
        Those that were given beside dataset.toml.
    inferred : tuple of str
        What was not given and had to be found out, a sentence each.
    """

    path: Path
    tr: float
    run_trs: tuple[int, ...]
    lag_trs: int
    movies: tuple[Path, ...]
    annotations: tuple[Path, ...]
    text_columns: tuple[str, ...]
    features: dict[str, FeatureFiles]
    subjects: dict[str, tuple[Path | None, ...]]
    starts: dict[str, tuple[int, ...]]
    cleaning: Cleaning
    masks: tuple[Path, ...]
    skip_trs: tuple[int, ...]
    context: tuple[int, ...] = (0, 0)
    test_runs: tuple[int, ...] = ()
    regions: Path | None = None
    region_names: tuple[str, ...] | Path = ()
    simulated: bool = False
    entries: dict = field(default_factory=dict, compare=False)
    inferred: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        """'SIMULATED data: ' for titles and captions of simulated data, else ''."""
        return "SIMULATED data: " if self.simulated else ""

    @property
    def truth(self) -> dict:
        """What is planted in simulated data, see `simulate_dataset`; empty for real data."""
        return _truth(self.path / "truth.json") if self.simulated else {}

    @property
    def labels(self) -> tuple[Path, tuple[str, ...] | Path] | None:
        """Label image of the regions and the names of its labels, if the folder has one."""
        return None if self.regions is None else (self.regions, self.region_names)

    @property
    def runs(self) -> list[slice]:
        """TRs of each run."""
        stops = [sum(self.run_trs[: index + 1]) for index in range(len(self.run_trs))]
        return [slice(stop - n_trs, stop) for stop, n_trs in zip(stops, self.run_trs, strict=True)]

    @property
    def series(self) -> list[Path]:
        """Every series of every subject."""
        return series_of(self.subjects)

    def pieces(self, subject: str) -> list[Piece]:
        """Where the TRs of the film lie in a subject's series, in their order."""
        return pieces_of(self.subjects[subject], self.starts[subject], self.run_trs)

    @classmethod
    def open(cls, path: str | Path, **given) -> "DataFolder":
        """Read `dataset.toml`, or recognise a known layout, and find the files.

        Without a dataset.toml these are the derivatives of fMRIPrep and the published Sherlock
        data.

        Parameters
        ----------
        **given
            Entries of dataset.toml, which they add to or take the place of; paths in them are
            relative to the current folder.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the file or the entry that is missing or does not fit.
        """
        path = Path(path)
        given = {name: from_here(name, value) for name, value in given.items()}
        said: list[str] = []
        entries, source = read_entries(path, given, said)
        if "derivatives" in entries:
            subjects, masks = _from_derivatives(path, entries, source, said)
        else:
            subjects = find_subjects(path, entries["fmri"], entries.get("subjects"), source)
            masks = ()
        subjects = in_order_of_film(subjects, entries.get("run_order", {}), source)
        starts = starts_of(subjects, entries.get("series_starts", {}), source)
        said += missing_runs(subjects)
        run_trs, of_lengths = series_trs(subjects, starts, entries.get("run_trs"), source)
        said += of_lengths
        said += copies(subjects, source)
        entries["run_trs"] = run_trs
        if "stimuli" in entries:
            find_stimuli(path / os.path.expanduser(entries["stimuli"]), entries, said)
        said += other_trs(subjects, entries["tr"], source)
        check_runs(entries, source)
        return cls._of(path, entries, source, subjects, starts, masks, given, said)

    @classmethod
    def _of(
        cls, path, entries: dict, source: Path, subjects, starts, masks, given: dict, said: list
    ) -> "DataFolder":
        """The folder of entries that are checked, if the files that they name are there."""

        def existing(name: str) -> tuple[Path, ...]:
            names = entries.get(name, [])
            names = [names] if isinstance(names, str) else names
            return tuple(_existing(path, one, name, source) for one in names)

        annotations = existing("annotations")
        movies = existing("movies")
        masks = existing("mask") or masks
        features = {
            name: FeatureFiles.of_entry(told, lambda one: _existing(path, one, "features", source))
            for name, told in entries.get("features", {}).items()
        }
        _check_stimulus(movies, annotations, features, source)
        words = annotations or "text" in features
        given_files = {"masks": masks, "movies": movies or features, "annotations": words}
        said += [told for name, told in NOT_GIVEN.items() if not given_files[name]]
        names = entries.get("region_names", ())
        if isinstance(names, str):
            names = _existing(path, names, "region_names", source)
        return cls(
            path=path,
            tr=entries["tr"],
            run_trs=tuple(entries["run_trs"]),
            lag_trs=entries["lag_trs"],
            movies=movies,
            annotations=annotations,
            text_columns=tuple(entries.get("text_columns", ())),
            features=features,
            subjects=subjects,
            starts=starts,
            cleaning=_cleaning(entries, series_of(subjects), said),
            masks=masks,
            skip_trs=tuple(entries.get("skip_trs", [0] * len(entries["run_trs"]))),
            context=tuple(entries.get("context", (0, 0))),
            test_runs=tuple(entries.get("test_runs", ())),
            regions=next(iter(existing("regions")), None),
            region_names=names if isinstance(names, Path) else tuple(names),
            simulated="simulation" in entries,
            entries=given,
            inferred=tuple(said),
        )


def _from_derivatives(
    path: Path, entries: dict, source: Path, said: list[str]
) -> tuple[dict[str, tuple[Path | None, ...]], tuple[Path, ...]]:
    """Series and masks of fMRIPrep; what its files tell is added to the entries."""
    where = path / os.path.expanduser(entries["derivatives"])
    if not where.is_dir():
        raise FileNotFoundError(
            f"{where} is no folder, but derivatives in {source} names it: mend its name."
        )
    entries.setdefault("cleaning", {"confounds": "simple"})
    cleaning = Cleaning.of_entries(entries["cleaning"])
    found = find_derivatives(
        where,
        entries.get("task"),
        entries.get("space"),
        entries.get("resolution"),
        entries.get("sessions"),
        AROMA if cleaning.confounds == "ica_aroma" else None,
    ).of_subjects(entries.get("subjects"))
    said += found.said
    said.append(f"{len(found.subjects)} subjects, runs: {', '.join(found.runs)}")
    if "tr" not in entries:
        entries["tr"] = found.tr()
        said.append(f"a TR of {entries['tr']:g} s, as the series say")
    if "lag_trs" not in entries:
        entries["lag_trs"] = round(HEMODYNAMIC_DELAY / entries["tr"])
        said.append(
            f"lag_trs is {entries['lag_trs']}: fMRIPrep does not shift BOLD, which follows the "
            f"film by about {HEMODYNAMIC_DELAY} s"
        )
    said.append(f"cleaning: {cleaning}")
    return found.subjects, tuple(found.masks)


def _cleaning(entries: dict, series: list[Path], said: list[str]) -> Cleaning:
    """What is taken out of the series, if what it takes lies beside them."""
    cleaning = Cleaning.of_entries(entries["cleaning"]) if "cleaning" in entries else Cleaning()
    if cleaning.confounds:
        for path in series:
            existing_confounds(path, cleaning)
    if not cleaning.is_filter and any("desc-preproc" in path.name for path in series):
        said.append(NOT_CLEANED)
    return cleaning


def _check_stimulus(movies, annotations, features, source: Path) -> None:
    if not (movies or annotations or features):
        raise ValueError(
            f"{source} names no stimulus, expected a film, words or features of one: add stimuli, "
            "movies, annotations or features."
        )


def _existing(path: Path, name: str, entry: str, source: Path) -> Path:
    file = path / os.path.expanduser(name)
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder, but {entry} in {source} names it, expected a file: name the file "
            "in it."
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing, but {entry} in {source} names it: mend one or the other."
        )
    return file


def _truth(file: Path) -> dict:
    try:
        truth = json.loads(read_text(file))
        planted = truth["planted"].items()
        whole = all(is_text(name) and isinstance(by, list) for name, by in planted)
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{file} is damaged, expected the truth that `simulate_dataset` wrote: simulate the "
            "data again."
        )
    return truth
