"""What a data folder holds: its files and its clock.

They come from dataset.toml, or from a layout that is known.
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib

REQUIRED = ("tr", "lag_trs", "movies", "fmri")
OPTIONAL = {
    "run_trs",
    "annotations",
    "text_columns",
    "mask",
    "skip_trs",
    "subjects",
    "context",
    "test_runs",
    "regions",
    "region_names",
    "simulation",
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
    annotations, text_columns
        The sheet, and the columns whose words are embedded; None and () without a sheet.
    subjects : dict of str to Path
        NIfTI series by subject.
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
    annotations: Path | None
    text_columns: tuple[str, ...]
    subjects: dict[str, Path]
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
    def planted(self) -> dict[str, list[str]]:
        """What drives each planted network of simulated data; empty for real data."""
        return (
            json.loads((self.path / "truth.json").read_text())["planted"] if self.simulated else {}
        )

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
        entries, source = _entries(path, inferred)
        files = {
            name: _existing(path, entries.get(name), source)
            for name in ("annotations", "mask", "regions")
        }
        names = entries.get("region_names", ())
        names = _existing(path, names, source) if isinstance(names, str) else tuple(names)
        movies = tuple(_existing(path, name, source) for name in entries["movies"])
        subjects = _subjects(path, entries["fmri"], entries.get("subjects"), source)
        if "run_trs" not in entries:
            entries["run_trs"] = [_one_run(subjects, source)]
            inferred.append(f"one run of {entries['run_trs'][0]} TRs, the length of the series")
        if files["mask"] is None:
            inferred.append(
                "no mask given: voxels within 6 mm of the MNI152 brain that vary in every subject"
            )
        if files["annotations"] is None:
            inferred.append("no annotations given: trains without text")
        n_runs = len(entries["run_trs"])
        if len(movies) not in (1, n_runs):
            raise ValueError(
                f"{source} names {len(movies)} movies for {n_runs} runs, expected one a run or one "
                "for all."
            )
        skip = entries.get("skip_trs", [0] * n_runs)
        if len(skip) != n_runs:
            raise ValueError(
                f"skip_trs in {source} is {skip}, expected a number for each of {n_runs} runs."
            )
        return cls(
            path=path,
            tr=entries["tr"],
            run_trs=tuple(entries["run_trs"]),
            lag_trs=entries["lag_trs"],
            movies=movies,
            annotations=files["annotations"],
            text_columns=tuple(entries.get("text_columns", ())),
            subjects=subjects,
            mask=files["mask"],
            skip_trs=tuple(skip),
            context=tuple(entries.get("context", (0, 0))),
            test_runs=tuple(entries.get("test_runs", ())),
            regions=files["regions"],
            region_names=names,
            simulated="simulation" in entries,
            inferred=tuple(inferred),
        )


def _entries(path: Path, inferred: list[str]) -> tuple[dict, Path]:
    source = path / "dataset.toml"
    if not source.is_file():
        if not list(path.glob(SHERLOCK["fmri"])):
            raise FileNotFoundError(
                f"{source} is missing: see data/README.md for what a data folder holds."
            )
        inferred.append(
            f"no dataset.toml, recognised the published Sherlock layout: {json.dumps(SHERLOCK)}; "
            "BOLD is taken as already shifted by the lag, and the cartoon that opens both runs is "
            "in no split"
        )
        return dict(SHERLOCK), path
    try:
        entries = tomllib.loads(source.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is not valid TOML: {error}.") from None
    if missing := [name for name in REQUIRED if name not in entries]:
        raise ValueError(
            f"{source} lacks {', '.join(missing)}: see data/README.md for each entry's meaning."
        )
    if unknown := sorted(set(entries) - {*REQUIRED, *OPTIONAL}):
        raise ValueError(
            f"{source} has {', '.join(unknown)}, expected only "
            f"{', '.join(sorted({*REQUIRED, *OPTIONAL}))}."
        )
    if "region_names" in entries and "regions" not in entries:
        raise ValueError(
            f"{source} has region_names without regions, expected the label image that they name."
        )
    if ("annotations" in entries) != ("text_columns" in entries):
        raise ValueError(
            f"{source} has only one of annotations and text_columns, expected both or none."
        )
    return entries, source


def _existing(path: Path, name: str | None, source: Path) -> Path | None:
    if name is None:
        return None
    if not (path / name).is_file():
        raise FileNotFoundError(
            f"{path / name} is missing, but {source} names it: mend one or the other."
        )
    return path / name


def _subjects(path: Path, pattern: str, wanted: list[str] | None, source: Path) -> dict[str, Path]:
    series = sorted(
        path.glob(pattern),
        key=lambda file: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", file.name)],
    )
    if not series:
        raise FileNotFoundError(
            f"{path} holds no file like {pattern!r}, expected one a subject: mend 'fmri' in "
            f"{source}."
        )
    files = {file.name.removesuffix(".gz").removesuffix(".nii"): file for file in series}
    if wanted is None:
        return files
    if missing := [name for name in wanted if name not in files]:
        raise ValueError(
            f"subjects in {source} has {', '.join(missing)}, expected some of "
            f"{', '.join(files)}, the series that 'fmri' finds."
        )
    return {name: files[name] for name in wanted}


def _one_run(subjects: dict[str, Path], source: Path) -> int:
    lengths = {path: nib.load(path).shape[-1] for path in subjects.values()}
    shortest = min(lengths, key=lengths.get)
    longest = max(lengths, key=lengths.get)
    if lengths[shortest] != lengths[longest]:
        raise ValueError(
            f"{shortest} has {lengths[shortest]} TRs and {longest} {lengths[longest]}, expected "
            f"the same of every subject: cut them, or leave one out of 'fmri' in {source}."
        )
    return lengths[shortest]
