"""What a data folder holds: its files and its clock.

They come from dataset.toml, or from a layout that is known.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from giblet.data.entries import check_runs, is_text, read_entries
from giblet.data.subjects import copies, find_subjects, other_trs, series_trs
from giblet.files import read_text

# What is said where a file is not given
NOT_GIVEN = {
    "mask": "no mask given: voxels within 6 mm of the MNI152 brain that vary in every subject",
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
        One movie a run, or one that holds all runs back to back.
    annotations : tuple of Path
        Words and their times, see `giblet.data.segments`: one file a run, or one of all; () without
        any.
    text_columns : tuple of str
        Columns of a sheet whose words are embedded.
    subjects : dict of str to tuple of Path
        NIfTI series by subject: one of all runs, or one a run.
    mask : Path or None
        NIfTI mask on the grid of the series; None: the MNI152 brain and a margin.
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
    subjects: dict[str, tuple[Path, ...]]
    mask: Path | None
    skip_trs: tuple[int, ...]
    context: tuple[int, ...] = (0, 0)
    test_runs: tuple[int, ...] = ()
    regions: Path | None = None
    region_names: tuple[str, ...] | Path = ()
    simulated: bool = False
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

    @classmethod
    def open(cls, path: str | Path) -> "DataFolder":
        """Read `dataset.toml`, or recognise the published Sherlock layout, and find the files.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the file or the entry that is missing or does not fit.
        """
        path = Path(path)
        inferred = []
        entries, source = read_entries(path, inferred)
        files = {
            name: _existing(path, entries[name], name, source) if name in entries else None
            for name in ("mask", "regions")
        }
        names = entries.get("region_names", ())
        if isinstance(names, str):
            names = _existing(path, names, "region_names", source)
        words = entries.get("annotations", [])
        words = [words] if isinstance(words, str) else words
        annotations = tuple(_existing(path, name, "annotations", source) for name in words)
        movies = tuple(_existing(path, name, "movies", source) for name in entries["movies"])
        subjects = find_subjects(path, entries["fmri"], entries.get("subjects"), source)
        n_trs = series_trs(subjects, entries.get("run_trs"), source)
        inferred += copies(subjects, source)
        inferred += other_trs(subjects, entries["tr"], source)
        if "run_trs" not in entries:
            entries["run_trs"] = n_trs
            runs = "one run" if len(n_trs) == 1 else f"{len(n_trs)} runs"
            inferred.append(f"{runs} of {', '.join(map(str, n_trs))} TRs, the length of the series")
        given = files | {"annotations": annotations or None}
        inferred += [said for name, said in NOT_GIVEN.items() if given[name] is None]
        check_runs(entries, source)
        return cls(
            path=path,
            tr=entries["tr"],
            run_trs=tuple(entries["run_trs"]),
            lag_trs=entries["lag_trs"],
            movies=movies,
            annotations=annotations,
            text_columns=tuple(entries.get("text_columns", ())),
            subjects=subjects,
            mask=files["mask"],
            skip_trs=tuple(entries.get("skip_trs", [0] * len(entries["run_trs"]))),
            context=tuple(entries.get("context", (0, 0))),
            test_runs=tuple(entries.get("test_runs", ())),
            regions=files["regions"],
            region_names=names if isinstance(names, Path) else tuple(names),
            simulated="simulation" in entries,
            inferred=tuple(inferred),
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
