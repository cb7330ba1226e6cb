"""A data set in the coordinates of span training, and the bases they refer to."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from giblet.basis import Span, fit_basis
from giblet.data.dataset import MultimodalDataset
from giblet.data.features import release
from giblet.data.fmri import npy_writer
from giblet.files import alone, atomic_folder, atomic_path

COORDINATES = ("video", "video_floor", "fmri", "fmri_floor")
BLOCK_COLUMNS = 4096  # pixels or voxels read at a time


def fit_span(
    train: MultimodalDataset,
    folder: str | Path | None = None,
    rank: int | None = None,
    dtype: type = np.float32,
    progress: bool = True,
) -> Span:
    """Bases of the training movie and of the subjects' mean responses, computed once.

    Parameters
    ----------
    train : MultimodalDataset with `average=True`
        Its TRs span the bases. Video or voxels that are no more than its TRs stay as they are.
    folder : folder, default `train.cache`
        Where bases are kept, in a folder named by a hash of data and settings; needed for arrays.
    rank : int, optional
        At most so many directions of each, those of the largest variance; the share they explain is
        in the report.
    dtype : np.float32 or np.float64
        Of the files; the arithmetic is float64.

    Returns
    -------
    Span
    """
    if not train.average:
        raise ValueError(
            "bases are made of the subjects' mean responses: give a dataset with average=True."
        )
    if folder is None and train.cache is None:
        raise ValueError("a dataset of arrays has no cache: give the folder to keep the bases in.")
    key = hashlib.sha256(
        json.dumps([_fingerprint(train), rank, np.dtype(dtype).name]).encode()
    ).hexdigest()[:16]
    path = Path(folder or train.cache) / f"span-{key}"
    if not path.is_dir():  # bases that are there may be read-only
        with alone(path):
            if not path.is_dir():
                _write_span(path, {"id": key, "n_trs": train.n_trs}, train, rank, dtype, progress)
    return Span.open(path)


def _write_span(
    path: Path, report: dict, train: MultimodalDataset, rank, dtype: type, progress: bool
) -> None:
    with atomic_folder(path) as temporary:
        for name in ("video", "fmri"):
            file = temporary / f"{name}.npy"
            report[name] = _write_basis(train, name, file, rank, dtype, progress)
        (temporary / "span.json").write_text(json.dumps(report, indent=2))


def _write_basis(
    train: MultimodalDataset, name: str, file: Path, rank, dtype: type, progress: bool
) -> dict:
    n_values = train.model_dims["video_dim" if name == "video" else "n_voxels"]
    if (rank or train.n_trs) >= n_values:
        return {"n_values": n_values, "n_coordinates": n_values, "explained": 1.0}
    with tqdm(
        total=3 * n_values, desc=f"basis of {name}", unit="column", disable=not progress
    ) as bar:

        def blocks():
            for block in _column_blocks(train, name):
                yield block
                bar.update(block.shape[1])

        vectors, report = fit_basis(blocks, rank)
        with npy_writer(file, (n_values, report["n_coordinates"]), np.dtype(dtype)) as write:
            for block in vectors:
                write(block)
    return {"n_values": n_values} | report


class CoordinateDataset(Dataset):
    """The subjects' mean responses to a movie and the movie itself, as coordinates.

    Items are those of the `MultimodalDataset` it is made of, with `video` (n_coordinates,), `fmri`
    (n_coordinates,) and, in `video_floor` and `fmri_floor`, the mean squared error that lies
    outside the bases.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
        Of any split.
    span : Span
    voxels : bool
        Items also hold the measured responses themselves as `voxels`, for scores by voxel.
    """

    def __init__(self, dataset: MultimodalDataset, span: Span, voxels: bool = False):
        if not dataset.average:
            raise ValueError(
                "span training takes the subjects' mean responses: give a dataset with "
                "average=True."
            )
        self.dataset = dataset
        self.voxels = voxels
        file = span.path / f"{_fingerprint(dataset)}.npz"
        if not file.is_file():  # coordinates that are there may be read-only
            with alone(file):
                if not file.is_file():
                    _write_coordinates(file, dataset, span)
        self.arrays = _read_coordinates(file)
        self.arrays["fmri_floor"] += torch.from_numpy(dataset.fmri_variance[dataset.tr_index])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Sequence[int]) -> dict[str, Tensor]:
        """A batch: a list of indices gives a dict of tensors, one row an index."""
        rows = self.dataset.tr_index[index]
        item = {name: array[index] for name, array in self.arrays.items()}
        item |= {name: self.dataset.stimulus(name, rows) for name in ("audio", "text")}
        item |= {
            "weight": torch.from_numpy(self.dataset.weight[rows]),
            "tr_index": torch.from_numpy(rows),
        }
        if self.voxels:
            item["voxels"] = torch.from_numpy(self.dataset.fmri_mean[rows])
        return item


def _write_coordinates(file: Path, dataset: MultimodalDataset, span: Span) -> None:
    arrays = {}
    for name in ("video", "fmri"):
        coordinates, floor = project(_column_blocks(dataset, name), span.vectors(name))
        arrays |= {name: coordinates, f"{name}_floor": floor}
    with atomic_path(file) as temporary:
        np.savez(temporary, **arrays)


def _read_coordinates(file: Path) -> dict[str, Tensor]:
    try:
        with np.load(file) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in COORDINATES}
    except (ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise ValueError(
            f"{file} is damaged or holds no coordinates ({error}): delete it, and they are "
            "computed again."
        ) from None
    return found


def in_coordinates(data: Dataset, span: Span | None, voxels: bool = False) -> Dataset:
    """What a model with these bases is trained on.

    A `CoordinateDataset`, or without bases the data themselves.
    """
    return data if span is None else CoordinateDataset(data, span, voxels)


def video_coordinates(dataset: MultimodalDataset, span: Span | None) -> Tensor:
    """The movie of a split as a model with these bases reads it: (n_trs, n_coordinates).

    Without bases, as items hold it.
    """
    vectors = None if span is None else span.vectors("video")
    return torch.from_numpy(project(_column_blocks(dataset, "video"), vectors)[0])


def project(
    blocks: Iterable[np.ndarray], vectors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of rows read in blocks of columns, and the mean square outside the basis.

    (n_rows, n_coordinates) and (n_rows,).
    """
    if vectors is None:
        coordinates = np.concatenate(list(blocks), axis=1)
        return coordinates.astype(np.float32), np.zeros(len(coordinates), np.float32)
    coordinates = 0.0
    squares = 0.0
    start = 0
    for block in blocks:
        squares = squares + np.einsum("rc,rc->r", block, block)
        coordinates = coordinates + block @ vectors[start : start + block.shape[1]].astype(
            np.float64
        )
        start += block.shape[1]
        release(vectors)
    outside = np.maximum(squares - np.einsum("rc,rc->r", coordinates, coordinates), 0) / start
    return coordinates.astype(vectors.dtype), outside.astype(vectors.dtype)


def _column_blocks(dataset: MultimodalDataset, name: str) -> Iterator[np.ndarray]:
    """The 'video' or mean 'fmri' of a split, in blocks of columns: (n_trs, n_block) float64."""
    stored, offsets = (
        (dataset.features.video, dataset.offsets) if name == "video" else (dataset.fmri_mean, [0])
    )
    scale = np.float32(255 if stored.dtype == np.uint8 else 1)
    for offset in offsets:
        for start in range(0, max(1, stored.shape[1]), BLOCK_COLUMNS):
            block = stored[dataset.tr_index + offset, start : start + BLOCK_COLUMNS].astype(
                np.float32
            )
            yield (block / scale).astype(np.float64)  # of the very numbers that items hold
            release(stored)


def _fingerprint(dataset: MultimodalDataset) -> str:
    """Names the rows that a data set holds and what is in them."""
    subjects = "-".join(map(str, dataset.subject_rows))
    digest = hashlib.sha256(
        f"{dataset.cache and dataset.cache.name} {subjects} {dataset.offsets}".encode()
    )
    digest.update(np.ascontiguousarray(dataset.tr_index))
    if dataset.cache is None:
        for array in (dataset.features.video, dataset.fmri_mean, dataset.split_labels):
            digest.update(np.ascontiguousarray(array).view(np.uint8))
    return f"{dataset.split}-{digest.hexdigest()[:16]}"
