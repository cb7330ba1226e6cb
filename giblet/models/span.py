"""Span training: the full-size model in the coordinates of what training saw.

Gradient descent moves the matrices that touch pixels or voxels only within the span of the training movie and of the
training responses. With orthonormal bases of the two, these matrices are small and their training is the same.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from giblet.models.autoencoder import MultimodalAutoencoder
from giblet.models.decoder import MultimodalDecoder
from giblet.models.encoder import MultimodalEncoder
from giblet.models.layers import check_shape

SMALLEST = 1e-9  # of the largest eigenvalue: what is below is numerical noise


def fit_basis(blocks: Callable[[], Iterator[np.ndarray]], rank: int | None = None) -> tuple[Iterator[np.ndarray], dict]:
    """Orthonormal basis of the rows of a matrix that is read in blocks of columns.

    The eigenvectors of the float64 Gram matrix, then orthonormalised once more: a film with repeated TRs has a
    singular one, which leaves its first basis far from orthonormal.

    Parameters
    ----------
    blocks : callable
        Iterates over the matrix, (n_rows, n_block) float64, from the first column on; it is called three times.
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
    report = {"n_coordinates": len(keep), "explained": float(1 - lost / variance) if variance > 0 else 1.0}
    return ((correct @ (whiten @ block)).T for block in blocks()), report


class Basis(nn.Module):
    """Orthonormal vectors as columns, (n_values, n_coordinates); without them coordinates are the values."""

    def __init__(self, n_values: int, vectors: Tensor | None = None):
        super().__init__()
        self.n_values = n_values
        self.n_coordinates = n_values if vectors is None else vectors.shape[1]
        self.register_buffer("vectors", vectors, persistent=False)  # checkpoints name its file, they do not hold it

    def coordinates(self, values: Tensor) -> Tensor:
        """(batch, n_values) -> (batch, n_coordinates), of the part within the span."""
        return self._times(values, lambda vectors: vectors)

    def expand(self, coordinates: Tensor) -> Tensor:
        """(batch, n_coordinates) -> (batch, n_values)."""
        return self._times(coordinates, lambda vectors: vectors.T)

    def _times(self, x: Tensor, matrix: Callable[[Tensor], Tensor]) -> Tensor:
        if self.vectors is None:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return x.to(self.vectors.dtype) @ matrix(self.vectors)


@dataclass(frozen=True)
class Span:
    """The bases of a training set, in a folder of their own: `video.npy`, `fmri.npy` and `span.json`.

    They contain the film and the brains: never publish them.
    """

    path: Path
    report: dict

    @classmethod
    def open(cls, path: str | Path) -> "Span":
        """Read the folder that `giblet.data.fit_span` wrote."""
        path = Path(path)
        if not (path / "span.json").is_file():
            raise FileNotFoundError(f"{path} holds no bases: prepare the data again, or give the folder they moved to.")
        return cls(path, json.loads((path / "span.json").read_text()))

    @property
    def id(self) -> str:
        """Names the data and settings the bases were made of."""
        return self.report["id"]

    def vectors(self, name: str) -> np.ndarray | None:
        """The basis of 'video' or 'fmri', (n_values, n_coordinates), memory-mapped; None if values are coordinates."""
        file = self.path / f"{name}.npy"
        return np.load(file, mmap_mode="c") if file.is_file() else None  # never written to: torch asks for the right

    def basis(self, name: str) -> Basis:
        """The same as a module."""
        vectors = self.vectors(name)
        return Basis(self.report[name]["n_values"], None if vectors is None else torch.from_numpy(vectors))


class SpanEncoder(nn.Module):
    """A `MultimodalEncoder` in coordinates, seen from outside as the full-size one."""

    def __init__(self, core: MultimodalEncoder, video_basis: Basis, fmri_basis: Basis):
        super().__init__()
        self.core, self.video_basis, self.fmri_basis = core, video_basis, fmri_basis

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return `fmri_pred` (batch, n_voxels) and `bottleneck` (batch, bottleneck_dim)."""
        check_shape("video", video, (self.video_basis.n_values,))
        fmri_pred, bottleneck = self.core(self.video_basis.coordinates(video), audio, text)
        return self.fmri_basis.expand(fmri_pred), bottleneck

    def to_bottleneck(self, fmri: Tensor) -> Tensor:
        """Layer 6: (batch, n_voxels) -> (batch, bottleneck_dim)."""
        check_shape("fmri", fmri, (self.fmri_basis.n_values,))
        return self.core.to_bottleneck(self.fmri_basis.coordinates(fmri))


class SpanDecoder(nn.Module):
    """A `MultimodalDecoder` in coordinates, seen from outside as the full-size one."""

    def __init__(self, core: MultimodalDecoder, video_basis: Basis):
        super().__init__()
        self.core, self.video_basis = core, video_basis

    def forward(self, bottleneck: Tensor, audio_logits: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """As `MultimodalDecoder`."""
        video, audio, text = self.core(bottleneck, audio_logits)
        return self.video_basis.expand(video), audio, text


class SpanAutoencoder(MultimodalAutoencoder):
    """The full-size model whose widest layers live in the span of the training data.

    Everything of `MultimodalAutoencoder` works as it does there, in pixels and voxels. Training runs on `core`, the
    same layers between coordinates: its losses are those of the full-size model.

    Parameters
    ----------
    span : Span
        Bases of the training set, from `giblet.data.fit_span`.
    **settings
        Arguments of `MultimodalAutoencoder`; the sizes of video and fMRI are those of the span.

    Attributes
    ----------
    core : MultimodalAutoencoder
        Takes coordinates as `video` and gives them as `fmri_pred` and `video_recon`. Its initial weights have the
        scale that those of the full-size model have within the span.
    """

    def __init__(self, span: Span, **settings):
        video_basis, fmri_basis = span.basis("video"), span.basis("fmri")
        with torch.device("meta"):
            super().__init__(**({"video_dim": video_basis.n_values, "n_voxels": fmri_basis.n_values} | settings))
        wanted = {"video": video_basis.n_values, "fmri": fmri_basis.n_values}
        if self.n_values != wanted:
            raise ValueError(f"the model has sizes {self.n_values}, expected {wanted} as the bases in {span.path}.")
        del self.encoder, self.decoder
        self.span, self.video_basis, self.fmri_basis = span, video_basis, fmri_basis
        sizes = {"video_dim": video_basis.n_coordinates, "n_voxels": fmri_basis.n_coordinates}
        self.core = MultimodalAutoencoder(**(self._config | sizes))
        self.core.n_values = self.n_values
        for name, basis in self._input_layers.items():
            for parameter in self.core.get_submodule(name).parameters():
                nn.init.uniform_(parameter, -(basis.n_values**-0.5), basis.n_values**-0.5)
        views = {"encoder": SpanEncoder(self.core.encoder, video_basis, fmri_basis)}
        views["decoder"] = SpanDecoder(self.core.decoder, video_basis)
        self.__dict__.update(views)  # their parameters are those of core, and counted there

    @property
    def _input_layers(self) -> dict[str, Basis]:
        """Layers of `core` that read coordinates, with their bases."""
        layers = {"encoder.video_encoder.0.0": self.video_basis, "encoder.to_bottleneck": self.fmri_basis}
        return {name: basis for name, basis in layers.items() if basis.n_values > 0}

    @property
    def _output_layers(self) -> dict[str, Basis]:
        """Layers of `core` that give coordinates, with their bases."""
        layers = {"encoder.to_voxels": self.fmri_basis, "decoder.video_decoder.2": self.video_basis}
        return {name: basis for name, basis in layers.items() if basis.n_values > 0}

    def memory_estimate(self, batch_size: int = 32) -> dict[str, int]:
        """Bytes to train `core` in float32 with Adam, as `MultimodalAutoencoder.memory_estimate`."""
        return self.core.memory_estimate(batch_size)

    @torch.no_grad()
    def materialize(self) -> MultimodalAutoencoder:
        """The same model with its full-size weights: 7.74 GB at the seed's sizes."""
        with torch.device("meta"):
            direct = MultimodalAutoencoder(**self._config)
        state = {name: value.clone() for name, value in self.core.state_dict().items()}
        for name, basis in self._output_layers.items():
            state[f"{name}.weight"] = basis.expand(state[f"{name}.weight"].T).T.contiguous()
            state[f"{name}.bias"] = basis.expand(state[f"{name}.bias"])
        for name, basis in self._input_layers.items():
            state[f"{name}.weight"] = basis.expand(state[f"{name}.weight"])
        direct.load_state_dict(state, assign=True)
        direct.trained_on = self.trained_on
        return direct.train(self.training)
