"""Orthonormal bases of a movie and of brain responses: what span training trains in.

Fitted by `fit_basis`, kept in a folder by `giblet.data.fit_span`, and used by `giblet.models.span`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from giblet.files import load_array

COPY_BASES = "copy these bases again, or delete their folder and train again"
SMALLEST = 1e-9  # of the largest eigenvalue: what is below is numerical noise


def fit_basis(
    blocks: Callable[[], Iterator[np.ndarray]], rank: int | None = None
) -> tuple[Iterator[np.ndarray], dict]:
    """Orthonormal basis of the rows of a matrix that is read in blocks of columns.

    The eigenvectors of the float64 Gram matrix, then orthonormalised once more: a film with
    repeated TRs has a singular one, which leaves its first basis far from orthonormal.

    Parameters
    ----------
    blocks : callable
        Iterates over the matrix, (n_rows, n_block) float64, from the first column on; it is called
        three times.
    rank : int, optional
        Keep at most this many directions, those of the largest variance.

    Returns
    -------
    vectors : iterator of (n_block, n_coordinates) float64
        The basis, one vector a column, block by block.
    report : dict
        `n_coordinates`, and `explained`: the share of the rows' variance that the basis holds.
    """
    gram = sum(block @ block.T for block in blocks())
    eigenvalues, directions = np.linalg.eigh(gram)
    keep = np.flatnonzero(eigenvalues > SMALLEST * eigenvalues[-1])[::-1][:rank]
    whiten = (directions[:, keep] / np.sqrt(eigenvalues[keep])).T
    second = sum(first @ first.T for first in (whiten @ block for block in blocks()))
    correct = np.linalg.inv(np.linalg.cholesky(second))
    variance = np.trace(gram) - gram.mean(0).sum()
    lost = np.trace(gram) - eigenvalues[keep].sum()
    report = {
        "n_coordinates": len(keep),
        "explained": float(1 - lost / variance) if variance > 0 else 1.0,
    }
    return ((correct @ (whiten @ block)).T for block in blocks()), report


def _sizes(report: dict) -> tuple[int, int]:
    """n_values and n_coordinates of a basis."""
    return int(report["n_values"]), int(report["n_coordinates"])


class Basis(nn.Module):
    """Orthonormal vectors as columns, (n_values, n_coordinates).

    Without vectors, values are their own coordinates.
    """

    def __init__(self, n_values: int, vectors: Tensor | None = None):
        super().__init__()
        self.n_values = n_values
        self.n_coordinates = n_values if vectors is None else vectors.shape[1]
        self.register_buffer(
            "vectors", vectors, persistent=False
        )  # checkpoints name its file, they do not hold it

    def coordinates(self, values: Tensor) -> Tensor:
        """(batch, n_values) -> (batch, n_coordinates), of the part within the span."""
        return self._times(values, lambda vectors: vectors)

    def expand(self, coordinates: Tensor) -> Tensor:
        """(batch, n_coordinates) -> (batch, n_values)."""
        return self._times(coordinates, lambda vectors: vectors.T)

    vectors: Tensor | None

    def _times(self, x: Tensor, matrix: Callable[[Tensor], Tensor]) -> Tensor:
        if self.vectors is None:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return x.to(self.vectors.dtype) @ matrix(self.vectors)


@dataclass(frozen=True)
class Span:
    """The bases of a training set, in a folder of their own.

    The folder holds `video.npy`, `fmri.npy` and `span.json`.

    They contain the film and the brains: never publish them.
    """

    path: Path
    report: dict

    @classmethod
    def open(cls, path: str | Path) -> "Span":
        """Read the folder that `giblet.data.fit_span` wrote.

        Raises
        ------
        FileNotFoundError
            If it holds no bases.
        ValueError
            If a file in it is damaged, missing or of another size than `span.json` says.
        """
        path = Path(path)
        file = path / "span.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no bases: train again, or put the folder {path.name} of the cache "
                "in which the model was trained into the folder of the run."
            )
        try:
            report = json.loads(file.read_text())
            sizes = {name: _sizes(report[name]) for name in ("video", "fmri")}
            known = isinstance(report["id"], str)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}): {COPY_BASES}.") from None
        if not known:
            raise ValueError(f"{file} is damaged (id is {report['id']!r}): {COPY_BASES}.")
        span = cls(path, report)
        for name, (n_values, n_coordinates) in sizes.items():
            vectors = span.vectors(name)
            found = (n_values, n_values) if vectors is None else vectors.shape
            if found != (n_values, n_coordinates):
                raise ValueError(
                    f"{path / name}.npy has shape {found}, expected {(n_values, n_coordinates)} "
                    f"as span.json says: {COPY_BASES}."
                )
        return span

    @property
    def id(self) -> str:
        """Names the data and settings the bases were made of."""
        return self.report["id"]

    def vectors(self, name: str) -> np.ndarray | None:
        """The basis of 'video' or 'fmri', (n_values, n_coordinates), memory-mapped.

        None if values are their own coordinates.
        """
        file = self.path / f"{name}.npy"
        sizes = _sizes(self.report[name])
        if sizes[0] == sizes[1]:
            return None
        if not file.is_file():
            raise ValueError(f"{file} is missing, but span.json names it: {COPY_BASES}.")
        return load_array(file, COPY_BASES, "c")  # never written to: torch asks for the right

    def basis(self, name: str) -> Basis:
        """The same as a module."""
        vectors = self.vectors(name)
        return Basis(
            self.report[name]["n_values"], None if vectors is None else torch.from_numpy(vectors)
        )
