"""Features that were made elsewhere: arrays of a row a TR, or of a rate of their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giblet.data.movie import Say

LOBES = 3  # of the Lanczos kernel, on each side


@dataclass(frozen=True)
class FeatureFiles:
    """Features of one stimulus, such as those of V-JEPA, CLIP, Whisper or a language model.

    Parameters
    ----------
    files : tuple of Path
        One a run, or one of all runs: .npy, .npz or .h5, rows in the order of time.
    rate : float or None
        Rows a second; None: one row a TR.
    offset : float
        Second of the film at which the first row begins.
    key : str or None
        Name of the array in an .npz or .h5 that holds several.
    """

    files: tuple[Path, ...]
    rate: float | None = None
    offset: float = 0.0
    key: str | None = None

    @classmethod
    def of_entry(cls, told: str | list | dict, existing: Callable[[str], Path]) -> "FeatureFiles":
        """From an entry of [features] in dataset.toml; `existing` finds a file by its name."""
        told = told if isinstance(told, dict) else {"files": told}
        files = [told["files"]] if isinstance(told["files"], str) else told["files"]
        return cls(**(told | {"files": tuple(existing(name) for name in files)}))

    def read(
        self, run_trs: Sequence[int], tr: float, say: Say = print
    ) -> tuple[np.ndarray, list[int]]:
        """Features on the TRs of the runs.

        A rate of their own is brought to that of the TRs by a Lanczos kernel, whose cutoff is the
        lower of both Nyquist frequencies, at the middle of each TR; nothing crosses a run where
        each has its file.

        Returns
        -------
        features : (n_trs, n_features) float32
        covered : TRs of each run that the features reach; beyond them they are 0

        Raises
        ------
        ValueError
            Where a file is no array of finite numbers, or does not fit the runs.
        """
        if len(self.files) not in (1, len(run_trs)):
            raise ValueError(
                f"features are {len(self.files)} files for {len(run_trs)} runs, expected one a run "
                "or one of all: name as many."
            )
        lengths = [sum(run_trs)] if len(self.files) == 1 else list(run_trs)
        parts = [
            self._of_file(file, n_trs, tr, say)
            for file, n_trs in zip(self.files, lengths, strict=True)
        ]
        widths = {part.shape[1] for part, _ in parts}
        if len(widths) > 1:
            raise ValueError(
                f"{self.files[0]} and the files of other runs have {sorted(widths)} features, "
                "expected the same of every run: make them alike."
            )
        reached = [covered for _, covered in parts]
        if len(self.files) == 1:
            starts = np.cumsum([0, *run_trs[:-1]])
            reached = [
                int(np.clip(reached[0] - start, 0, n))
                for start, n in zip(starts, run_trs, strict=True)
            ]
        return np.concatenate([part for part, _ in parts]), reached

    def _of_file(self, file: Path, n_trs: int, tr: float, say: Say) -> tuple[np.ndarray, int]:
        rows = read_array(file, self.key)
        rows = rows.reshape(len(rows), -1)
        if self.rate is None:
            covered = min(len(rows), n_trs)
            features = np.zeros((n_trs, rows.shape[1]), np.float32)
            features[:covered] = rows[:covered]
            told = f"{len(rows)} rows for {n_trs} TRs"
        else:
            seconds = self.offset + len(rows) / self.rate
            covered = int(np.clip(seconds / tr + 1e-6, 0, n_trs))
            features = resampled(rows, self.rate, self.offset, n_trs, tr)
            features[covered:] = 0
            told = f"{len(rows)} rows, {self.rate:g} a second, on {n_trs} TRs"
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
            raise ValueError(
                f"{file} holds a value that is not finite, or too large for float32, at TR {row}, "
                "expected numbers: fill it in, or leave the feature out."
            )
        say(f"{file}: {told}, {rows.shape[1]} features")
        return features, covered


def read_array(file: Path, key: str | None = None) -> np.ndarray:
    """The array of real numbers in an .npy, .npz or .h5 file, (n_rows, ...).

    Raises
    ------
    ValueError
        Where there is none, or several and no key, or the file is damaged or holds objects.
    """
    try:
        read = _read_h5 if file.suffix.lower() in (".h5", ".hdf5") else _read_npy
        array = read(file, key)
    except (OSError, EOFError, KeyError, ValueError) as error:
        if str(file) in str(error):
            raise ValueError(" ".join(str(error).split())) from None
        raise ValueError(
            f"{file} cannot be read as an array ({error}): write it with numpy.save, numbers alone."
        ) from None
    if array.ndim < 1 or len(array) == 0 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"{file} holds {array.dtype} values of shape {array.shape}, expected rows of real "
            "numbers: write it anew."
        )
    return array[:, None] if array.ndim == 1 else array


def _read_npy(file: Path, key: str | None) -> np.ndarray:
    found = np.load(file, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        return found[_key(file, list(found), key)]


def _read_h5(file: Path, key: str | None) -> np.ndarray:
    import h5py  # slow to import, and rarely needed

    with h5py.File(file, "r") as opened:
        names: list[str] = []
        opened.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
        return opened[_key(file, names, key)][()]


def _key(file: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        told = "no key is given" if key is None else f"key is {key!r}"
        raise ValueError(
            f"{file} holds {', '.join(names[:8]) or 'nothing'}, and {told}, expected one of them: "
            "name it with key."
        )
    return key


def resampled(rows: np.ndarray, rate: float, offset: float, n_trs: int, tr: float) -> np.ndarray:
    """Rows of a rate of their own at the middle of each TR: (n_trs, n_features) float32.

    By a Lanczos kernel of three lobes whose cutoff is the lower of both Nyquist frequencies: what
    changes faster than TRs can show is taken out, as in encoding models of language (Huth et al.
    2016, Nature 532:453-458). At the edges of the film, weights are those of the rows that are
    there.
    """
    times = offset + (np.arange(len(rows)) + 0.5) / rate
    features = np.zeros((n_trs, rows.shape[1]), np.float32)
    cutoff = min(1 / tr, rate)  # twice the cutoff frequency: zeros of the kernel a second
    reach = LOBES / cutoff
    for index in range(n_trs):
        middle = (index + 0.5) * tr
        first, stop = np.searchsorted(times, [middle - reach, middle + reach])
        if first == stop:
            continue
        x = (times[first:stop] - middle) * cutoff
        weights = np.sinc(x) * np.sinc(x / LOBES)
        if weights.sum() > 0:
            block = np.asarray(rows[first:stop], np.float64)
            features[index] = weights / weights.sum() @ block
    return features
