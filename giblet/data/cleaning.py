"""BOLD without motion, drift and other confounds, by nilearn, a run at a time."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nilearn.interfaces.fmriprep import load_confounds_strategy
from nilearn.signal import clean

from giblet.data.derivatives import confounds_file
from giblet.data.features import release
from giblet.data.pieces import Piece
from giblet.images import load_series

STRATEGIES = ("simple", "scrubbing", "compcor", "ica_aroma")
# Arguments of nilearn's `load_confounds` that a strategy may be given
OPTIONS = (
    "motion",
    "wm_csf",
    "global_signal",
    "scrub",
    "fd_threshold",
    "std_dvars_threshold",
    "compcor",
    "n_compcor",
)
N_VOXELS = 4096  # cleaned at a time
N_SAMPLED = 2048  # voxels that tell whether a series was cleaned
LEAST_MEAN = 1.0  # of a voxel of the scanner, in SDs
SPARE_TRS = 10  # that a run must have beyond its confounds


@dataclass(frozen=True)
class Cleaning:
    """What is taken out of each run, over all its TRs and before the lag is applied.

    Parameters
    ----------
    confounds : str or None
        A strategy of nilearn's `load_confounds_strategy` ('simple', 'scrubbing', 'compcor' or
        'ica_aroma'), whose regressors lie in the table that fMRIPrep writes beside each series.
        Volumes that it scrubs, or that are not in steady state, count as not measured.
    detrend : bool
        Take out a straight line.
    high_pass : float or None
        Hz, of discrete cosines; the strategies have cosines of their own, of 1/128 Hz.
    smoothing_mm : float or None
        Full width at half maximum.
    options : dict
        Other arguments of `load_confounds_strategy`, such as {'global_signal': 'basic'}.
    """

    confounds: str | None = None
    detrend: bool = False
    high_pass: float | None = None
    smoothing_mm: float | None = None
    options: Mapping = field(default_factory=dict)

    @classmethod
    def of_entries(cls, entries: Mapping) -> "Cleaning":
        """From the table [cleaning] of dataset.toml; `confounds = "none"` is none."""
        named = {name: value for name, value in entries.items() if name not in OPTIONS}
        if named.get("confounds") == "none":
            named["confounds"] = None
        options = {name: value for name, value in entries.items() if name in OPTIONS}
        return cls(**({"detrend": True} | named), options=options)

    @property
    def is_filter(self) -> bool:
        """Whether anything is taken out of the series over time."""
        return bool(self.confounds or self.detrend or self.high_pass)

    def __str__(self) -> str:
        if not self.is_filter and not self.smoothing_mm:
            return "nothing"
        said = []
        if self.confounds:
            options = "".join(f", {name}={value}" for name, value in self.options.items())
            said.append(f"nilearn's {self.confounds!r} confounds{options}")
        said += ["a straight line"] * self.detrend
        said += [f"drift below {self.high_pass:g} Hz"] if self.high_pass else []
        text = "taken out of each run: " + " and ".join(said) if said else ""
        smoothed = f"smoothed by {self.smoothing_mm:g} mm" if self.smoothing_mm else ""
        return "; ".join(filter(None, (text, smoothed)))


def existing_confounds(path: Path, cleaning: Cleaning) -> Path:
    """The table of confounds beside a series, which cleaning needs."""
    file = confounds_file(path)
    if file is None:
        raise FileNotFoundError(
            f"{path} has no table of confounds beside it (..._desc-confounds_timeseries.tsv), "
            f"expected one for cleaning by {cleaning.confounds!r}: copy it there, or set "
            "confounds = 'none' in the table cleaning of dataset.toml."
        )
    return file


def read_confounds(piece: Piece, cleaning: Cleaning) -> tuple[np.ndarray, np.ndarray]:
    """Confounds of a run and which of its volumes can be used.

    Returns
    -------
    confounds : (n_trs, n_confounds), 0 where the series has no TR
    measured : (n_trs,) bool
        False where the series has no TR, or the strategy scrubs it or it is not in steady state.

    Raises
    ------
    FileNotFoundError, ValueError
        Where the table is missing, lacks columns of the strategy or has not a row a TR.
    """
    has = piece.has
    if cleaning.confounds is None:
        return np.zeros((len(has), 0)), has
    file = existing_confounds(piece.path, cleaning)
    # nilearn looks at the name of the series alone
    name = f"{piece.path}.gz" if piece.path.suffix == ".nii" else str(piece.path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of columns that differ between versions of fMRIPrep
            table, kept = load_confounds_strategy(name, cleaning.confounds, **cleaning.options)
            values = table.to_numpy(np.float64)
    except Exception as error:  # what a damaged table happens to lead to
        said = " ".join(str(error).split())
        raise ValueError(
            f"{file} cannot be taken by cleaning with {cleaning.confounds!r} ({said}): mend it, or "
            "choose another strategy in the table cleaning of dataset.toml."
        ) from None
    n_trs = load_series(piece.path).shape[3]
    if len(values) != n_trs or not np.isfinite(values).all():
        raise ValueError(
            f"{file} has {len(values)} rows for {n_trs} TRs of {piece.path.name}, or values that "
            "are not finite below its first row, expected a row of numbers a TR: copy both again."
        )
    in_steady_state = np.ones(n_trs, bool)
    if kept is not None:
        in_steady_state = np.isin(np.arange(n_trs), kept)
    confounds = np.zeros((len(has), values.shape[1]))
    confounds[has] = values[piece.trs]
    measured = has.copy()
    measured[has] = in_steady_state[piece.trs]
    return confounds, measured


def check_not_cleaned(bold: np.ndarray, usable: np.ndarray, name: str | Path) -> None:
    """Refuse to take confounds out of series that somebody has cleaned already.

    What is cleaned has voxels with means near 0, where the scanner gives many times their SD.

    Parameters
    ----------
    bold : (n_trs, n_voxels), a memory map
    usable : (n_trs,) bool
    name : what a message calls the run
    """
    columns = slice(None, None, -(-bold.shape[1] // N_SAMPLED))
    sample = np.asarray(bold[:, columns], np.float64)[usable]
    release(bold)
    sd = sample.std(0)
    varying = np.isfinite(sd) & (sd > 0)
    if len(sample) < 2 or not varying.any():
        return
    ratio = float(np.median(np.abs(sample.mean(0)[varying]) / sd[varying]))
    if ratio < LEAST_MEAN:
        raise ValueError(
            f"{name} has voxels whose means are {ratio:.2g} of their SDs, as only series have that "
            "were cleaned before, expected those that fMRIPrep wrote: name these, or set confounds "
            "= 'none' in the table cleaning of dataset.toml."
        )


def clean_run(
    bold: np.ndarray,
    confounds: np.ndarray,
    measured: np.ndarray,
    cleaning: Cleaning,
    tr: float,
    name: str | Path,
) -> None:
    """Clean the measured TRs of one run in place, a few thousand voxels at a time.

    Parameters
    ----------
    bold : (n_trs, n_voxels), a memory map
    confounds : (n_trs, n_confounds)
    measured : (n_trs,) bool
        The others stay as they are and touch nothing.
    tr : float
        Repetition time in seconds, for the high-pass filter.
    name : what a message calls the run

    Raises
    ------
    ValueError
        If too few TRs are left for as many confounds.
    """
    rows = np.flatnonzero(measured)
    if len(rows) == 0:
        return
    if len(rows) < confounds.shape[1] + SPARE_TRS:
        raise ValueError(
            f"{name} has {len(rows)} TRs that can be used and {confounds.shape[1]} confounds, "
            f"expected at least {SPARE_TRS} more TRs than confounds: choose a strategy with fewer, "
            "or leave the run out."
        )
    for start in range(0, bold.shape[1], N_VOXELS):
        columns = slice(start, start + N_VOXELS)
        values = np.asarray(bold[:, columns], np.float64)
        with np.errstate(invalid="ignore"):  # of voxels that are not finite, which are left out
            values[rows] = clean(
                values,
                detrend=cleaning.detrend,
                standardize=None,
                sample_mask=rows,
                confounds=confounds if confounds.shape[1] > 0 else None,
                filter="cosine" if cleaning.high_pass else False,
                high_pass=cleaning.high_pass,
                t_r=tr,
            )
        bold[:, columns] = values
        release(bold)
