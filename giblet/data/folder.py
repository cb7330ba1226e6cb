"""What a data folder holds: its files and its clock, from dataset.toml."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

REQUIRED = ("tr", "run_trs", "lag_trs", "movies", "annotations", "text_columns", "fmri", "mask")


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
        One movie a run.
    annotations, text_columns
        The sheet, and the columns whose words are embedded.
    subjects : dict of str to Path
        NIfTI series by subject.
    mask : Path
        NIfTI mask on the grid of the series.
    simulated : bool
        Written by `simulate_dataset`.
    """

    path: Path
    tr: float
    run_trs: tuple[int, ...]
    lag_trs: int
    movies: tuple[Path, ...]
    annotations: Path
    text_columns: tuple[str, ...]
    subjects: dict[str, Path]
    mask: Path
    simulated: bool

    @property
    def planted(self) -> dict[str, list[str]]:
        """What drives each planted network of simulated data; empty for real data."""
        return json.loads((self.path / "truth.json").read_text())["planted"] if self.simulated else {}

    @classmethod
    def open(cls, path: str | Path) -> "DataFolder":
        """Read `dataset.toml` in a data folder and find the files it names.

        Raises
        ------
        FileNotFoundError, ValueError
            Naming the file or the entry that is missing.
        """
        path = Path(path)
        description = path / "dataset.toml"
        if not description.is_file():
            raise FileNotFoundError(f"{description} is missing: see data/README.md for what a data folder holds.")
        try:
            entries = tomllib.loads(description.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{description} is not valid TOML: {error}.") from None
        missing = [name for name in REQUIRED if name not in entries]
        if missing:
            raise ValueError(f"{description} lacks {', '.join(missing)}: see data/README.md for each entry's meaning.")
        series = sorted(path.glob(entries["fmri"]))
        files = [path / name for name in (*entries["movies"], entries["annotations"], entries["mask"])]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing, but {description} names it: mend one or the other.")
        if not series:
            raise FileNotFoundError(f"{path} holds no file like {entries['fmri']!r}: mend 'fmri' in {description}.")
        if len(entries["movies"]) != len(entries["run_trs"]):
            raise ValueError(
                f"{description} names {len(entries['movies'])} movies for {len(entries['run_trs'])} runs, "
                f"expected one a run."
            )
        return cls(
            path,
            entries["tr"],
            tuple(entries["run_trs"]),
            entries["lag_trs"],
            tuple(files[:-2]),
            files[-2],
            tuple(entries["text_columns"]),
            {file.name.removesuffix(".gz").removesuffix(".nii"): file for file in series},
            files[-1],
            "simulation" in entries,
        )
