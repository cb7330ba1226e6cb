"""A movie data set as a torch Dataset: one TR of stimulus and the brain's response to it."""

from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from giblet.alignment.splits import SPLITS, Splitting
from giblet.data.arrays import features_from_arrays, frames_of
from giblet.data.audio import AudioProcessor
from giblet.data.features import STIMULI, Features, mean_response, release
from giblet.data.folder import DataFolder
from giblet.data.manifest import Processors, read_manifest
from giblet.data.prepare import group_mean, prepare
from giblet.data.provenance import hash_of
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor
from giblet.files import expanded
from giblet.images import load_image, mask_voxels, voxel_coordinates

FRACTIONS = Splitting.fractions


class MultimodalDataset(Dataset):
    """TR-aligned video, audio, text and fMRI of a data folder.

    Features are prepared once and memory-mapped; the stimulus exists once for all subjects.

    Parameters
    ----------
    data_dir : folder, see data/README.md
    subjects : 'all' or list of str
        Names of NIfTI files without their ending; where those are not unique, of their `sub-`
        folder, or their path.
    split : 'train', 'val', 'test' or 'all'
        'all' is every TR with both stimulus and BOLD, the gaps between the splits included.
    average : bool
        One item a TR, with the mean response of the subjects, instead of one item a subject and TR.
    context : (before, after), optional
        TRs of stimulus around each TR, within its run: widths grow by before + 1 + after, in the
        order of time. Default: what dataset.toml says, or (0, 0).
    video_processor, audio_processor, text_processor : processors
        Kinds and sizes of the features; by default those of the full-size model.
    fractions : (train, val, test)
        Shares of each run, in this order, see `giblet.alignment.split_trs`.
    test_runs : sequence of int, optional
        Runs, counted from 0, that are held out as a whole; their BOLD is z-scored by their own mean
        and SD. Default: what dataset.toml says, or none.
    regions, region_names : optional
        Label image of the regions that tables and lesions take, and names of its labels, as in
        `label_regions`. Default: what dataset.toml says.
    cache_dir : folder, default `data_dir/cache`
    **entries
        Entries of dataset.toml, such as `task` and `stimuli` of fMRIPrep derivatives, which they
        add to or take the place of; paths are relative to the current folder.

    Attributes
    ----------
    tr_index, run : (n_trs,)
        TR of the movie, over all runs, and run of each TR of the split.
    split_labels : TRs of the movie
    gap : int
        TRs that separate the splits: context and hemodynamic response.
    present : tuple of str
        The stimuli that vary over the training TRs. The others are absent: (n_trs, 0).
    features : Features
        What is stored, over all TRs of the movie.
    fmri_mean, fmri_variance : with `average`, mean response and variance of the subjects, over all
    TRs of the movie
    mask_img : image of the voxels
    video_processor, audio_processor, text_processor
        What turns features back into frames, sound and words.
    planted : {network: what drives it} in simulated data, else {}
    truth : all that is planted in simulated data, see `simulate_dataset`, else {}

    Arrays may lack `mask_img` and the processors, and have no `folder`: then these are None.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file or argument that does not fit.
    """

    def __init__(
        self,
        data_dir: str | Path = "data/",
        subjects: str | Sequence[str] = "all",
        split: str = "train",
        *,
        average: bool = False,
        context: Sequence[int] | None = None,
        video_processor: VideoProcessor | None = None,
        audio_processor: AudioProcessor | None = None,
        text_processor: TextProcessor | None = None,
        fractions: Sequence[float] = FRACTIONS,
        test_runs: Sequence[int] | None = None,
        regions=None,
        region_names: Sequence[str] | str | Path = (),
        cache_dir: str | Path | None = None,
        progress: bool = True,
        **entries,
    ):
        _check_split(split)
        self.folder = DataFolder.open(expanded(data_dir), **entries)
        self.tr = self.folder.tr
        self.simulated = self.folder.simulated
        self.truth = self.folder.truth
        self.planted = self.truth.get("planted", {})
        self._splitting = Splitting(
            tuple(self.folder.context if context is None else context),
            tuple(fractions),
            tuple(self.folder.test_runs if test_runs is None else test_runs),
        )
        processors = Processors.of_folder(
            self.folder, video_processor, audio_processor, text_processor
        )
        cache_dir = expanded(cache_dir or self.folder.path / "cache")
        self.cache = prepare(self.folder, processors, self._splitting, cache_dir, progress)
        manifest = read_manifest(self.cache)
        self.mask_img = load_image(self.cache / "mask.nii.gz")
        self.fmri_processor = replace(processors.fmri, mask_img=self.mask_img)
        video: Any = processors.video
        audio: Any = processors.audio
        text: Any = processors.text
        self.video_processor = video
        self.audio_processor = audio and replace(
            audio, mean=self._saved("audio_mean"), sd=self._saved("audio_sd")
        )
        self.text_processor = text and replace(
            text,
            annotations=tuple(manifest["annotations"]),
            embeddings=self._saved("embeddings"),
        )
        self._facts = manifest["data"] | {
            "path": str(self.folder.path.resolve()),
            "entries": self.folder.entries,
        }
        self.region_names = None
        self.region_labels = self.folder.labels if regions is None else (regions, region_names)
        self._choose(Features.load(self.cache), list(self.folder.subjects), subjects)
        self._take(split, average)

    @classmethod
    def from_arrays(
        cls,
        video=None,
        audio=None,
        text=None,
        *,
        fmri,
        runs: Sequence[int] | None = None,
        subjects: Sequence[str] | None = None,
        lag_trs: int = 0,
        tr: float = 1.5,
        split: str = "train",
        average: bool = False,
        context: Sequence[int] = (0, 0),
        fractions: Sequence[float] = FRACTIONS,
        test_runs: Sequence[int] = (),
        regions: Sequence[str] | None = None,
        coordinates=None,
        mask_img=None,
    ) -> "MultimodalDataset":
        """A data set of features that exist as arrays, of any width.

        Parameters
        ----------
        video, audio, text : (n_trs, ...), optional
            Features of each TR, standardised here by the training TRs: each by its own SD, and
            those of text, which are one embedding, by their common one. uint8 video is scaled to
            0..1 instead, and is a film where it has the shape (n_trs, n_frames, height, width) or
            (n_trs, n_frames, height, width, 3); integer audio is codes. A stimulus that is not
            given, or has no feature that varies over the training TRs, is absent: (n_trs, 0) in
            items.
        fmri : (n_subjects, n_trs, n_voxels) or (n_trs, n_voxels)
            BOLD of voxels or parcels, z-scored here within each run by its training TRs. A TR of
            NaN was not measured.
        runs : sequence of int
            TRs of each run; default one run.
        subjects : sequence of str
            Their names; default sub-01, sub-02, ...
        lag_trs : int
            TRs by which `fmri` lags the stimulus; it is shifted within runs.
        tr : float
            Repetition time in seconds, for the gap between splits.
        split, average, context, fractions, test_runs
            As for a folder.
        regions : sequence of str, optional
            Region of each voxel, see `giblet.regions.regions_of`; '' is none.
        coordinates : (n_voxels, 3), optional
            Centre of each voxel or parcel in mm, for random regions that are contiguous.
        mask_img : image, optional
            Whose voxels, in the order of its array, are those of `fmri`: for maps.
        """
        _check_split(split)
        self = cls.__new__(cls)
        self.folder = None
        self.cache = None
        self.tr = tr
        self.simulated = False
        self.truth = {}
        self.planted = {}
        stimuli = {"video": video, "audio": audio, "text": text}
        self._splitting = Splitting(tuple(context), tuple(fractions), tuple(test_runs))
        features = features_from_arrays(stimuli, fmri, runs, lag_trs, tr, self._splitting)
        names = (
            [f"sub-{n + 1:02d}" for n in range(len(features.fmri))]
            if subjects is None
            else list(subjects)
        )
        if len(names) != len(features.fmri):
            raise ValueError(
                f"subjects are {names}, expected a name for each of {len(features.fmri)} series of "
                "fmri."
            )
        self.video_processor = frames_of(video, tr)
        self.audio_processor = None
        self.text_processor = None
        self._facts = {
            "tr": tr,
            "run_trs": np.bincount(features.run).tolist(),
            "lag_trs": lag_trs,
            "path": None,
        }
        self._choose(features, names, "all")
        self._place(regions, coordinates, mask_img)
        self._take(split, average)
        return self

    def _place(self, regions, coordinates, mask_img) -> None:
        """Where the voxels of arrays lie, if that is known."""
        n_voxels = self.features.fmri.shape[-1]
        inside = None if mask_img is None else mask_voxels(mask_img)
        self.mask_img = mask_img and nib.Nifti1Image(inside.astype(np.uint8), mask_img.affine)
        self.region_labels = None
        self.region_names = None if regions is None else tuple(map(str, regions))
        if coordinates is not None:
            self.coordinates = np.asarray(coordinates, np.float64)
        found = {
            "regions": self.region_names,
            "mask_img": None if inside is None else np.flatnonzero(inside),
            "coordinates": self.coordinates,
        }
        for name, values in found.items():
            if values is not None and len(values) != n_voxels:
                raise ValueError(
                    f"{name} has {len(values)} voxels, fmri has {n_voxels}: expected the same."
                )

    def _choose(self, features: Features, names: list, subjects) -> None:
        """Take the features and some of their subjects."""
        self._names = names
        self.subjects = names if isinstance(subjects, str) and subjects == "all" else list(subjects)
        if set(self.subjects) - set(names) or not self.subjects:
            raise ValueError(f"subjects are {subjects!r}, expected 'all' or some of {names}.")
        self.features = features
        self.split_labels = features.split
        self.present = tuple(name for name in STIMULI if getattr(features, name).shape[-1] > 0)
        self.subject_rows = [names.index(name) for name in self.subjects]
        before, after = self._splitting.context
        self.offsets = np.arange(-before, after + 1)
        self.gap = self._splitting.gap(self.tr)
        self.weight = features.valid[self.subject_rows].mean(0, dtype=np.float32)

    def _take(self, split: str, average: bool) -> None:
        """Take the TRs of a split."""
        valid = self.features.valid[self.subject_rows]
        wanted = self.split_labels != "cropped" if split == "all" else self.split_labels == split
        self.split = split
        self.average = average
        self.tr_index = np.flatnonzero(wanted & valid.any(0))
        self.run = self.features.run[self.tr_index]
        self._items = np.argwhere(valid[:, self.tr_index])  # TRs vary fastest, then subjects
        if average and not hasattr(self, "fmri_mean"):
            self._average()

    def select(self, split: str, average: bool | None = None) -> "MultimodalDataset":
        """Another split of the same data, or the same one with another `average`.

        Nothing is copied.
        """
        _check_split(split)
        other = copy(self)
        other._take(split, self.average if average is None else average)
        return other

    def of_subjects(self, subjects: str | Sequence[str]) -> "MultimodalDataset":
        """The same TRs of some people, for instance of one who is left out; nothing is copied.

        Parameters
        ----------
        subjects : 'all' or list of str
            Of those that the folder or the arrays hold.
        """
        other = copy(self)
        for name in ("fmri_mean", "fmri_variance"):
            vars(other).pop(name, None)
        other._choose(self.features, self._names, subjects)
        other._take(self.split, self.average)
        return other

    def _average(self) -> None:
        if self.cache is not None:
            self.fmri_mean, self.fmri_variance = group_mean(self.cache, self.subject_rows)
        else:
            mean, variance = zip(*mean_response(self.features, self.subject_rows), strict=True)
            self.fmri_mean, self.fmri_variance = (
                np.concatenate(x, dtype=np.float32) for x in (mean, variance)
            )

    def __getstate__(self) -> dict:
        """Travel to a worker process without the memory-mapped mean."""
        return {
            name: value
            for name, value in vars(self).items()
            if self.cache is None or name != "fmri_mean"
        }

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if self.average and self.cache is not None:
            self._average()

    def _saved(self, name: str) -> np.ndarray | None:
        path = self.cache / f"{name}.npy"
        return np.load(path) if path.is_file() else None

    def per_subject(self) -> "MultimodalDataset":
        """The same split with an item for each subject and TR instead of the subjects' mean."""
        return self.select(self.split, average=False)

    @cached_property
    def coordinates(self) -> np.ndarray | None:
        """Centre of each voxel in mm, (n_voxels, 3), where the data set knows it."""
        return None if self.mask_img is None else voxel_coordinates(self.mask_img)

    @property
    def label(self) -> str:
        """'SIMULATED data: ' for titles and captions of simulated data, else ''."""
        return "" if self.folder is None else self.folder.label

    @property
    def summary(self) -> str:
        """Subjects, runs, and the TRs of each split: a sentence."""
        run_trs = ", ".join(map(str, np.bincount(self.features.run)))
        counts = {name: int((self.split_labels == name).sum()) for name in SPLITS}
        splits = ", ".join(f"{n} {name}" for name, n in counts.items())
        unused = len(self.split_labels) - sum(counts.values())
        return (
            f"{self.label}{len(self.subjects)} subjects, runs of {run_trs} TRs of {self.tr:g} s: "
            f"{splits}, {unused} in gaps or cropped"
        )

    def marked(self, table: pd.DataFrame) -> pd.DataFrame:
        """Head the columns of a table 'SIMULATED data' where they are; changes it in place."""
        if self.simulated:
            table.columns.names = ["SIMULATED data"] + [None] * (table.columns.nlevels - 1)
        return table

    @property
    def provenance(self) -> dict:
        """What the data are, and how their features were made and split.

        Plain values, for a checkpoint.

        `files` has a fingerprint of each file or array, and `hash` stands for all of it but the
        place, `path`. To what a model was trained on comes `train`, see
        `giblet.data.provenance.trained_on`.
        """
        found = dict(self._facts)
        if self.folder is None:
            found["files"] = self.features.fingerprints
        found |= {name: list(values) for name, values in asdict(self._splitting).items()}
        found |= {"features": self._feature_settings, "subjects": list(self.subjects)}
        return found | {"hash": hash_of(found)}

    @property
    def _feature_settings(self) -> dict | None:
        """Arguments of the processors of a folder."""
        if self.folder is None:
            return None
        video = self.video_processor and asdict(self.video_processor)
        audio = self.audio_processor
        text = self.text_processor
        return {
            "video": video and {name: value for name, value in video.items() if name != "tr"},
            "audio": audio and {"kind": audio.kind, "codec": audio.codec},
            "text": text and {"model": text.model, "n_features": text.n_features},
        }

    @property
    def n_trs(self) -> int:
        """TRs in this split."""
        return len(self.tr_index)

    @property
    def model_dims(self) -> dict[str, int]:
        """The arguments that fit a `MultimodalAutoencoder` to this data set."""
        names = {"video": "video_dim", "audio": "audio_features", "text": "text_dim"}
        dims = {names[n]: len(self.offsets) * getattr(self.features, n).shape[-1] for n in STIMULI}
        if self.features.audio.ndim > 2:  # codes
            del dims["audio_features"]
            dims |= {"use_encodec": True, "audio_frames_per_tr": self.features.audio.shape[-1]}
        return dims | {"n_voxels": self.features.fmri.shape[-1]}

    def fmri(self, voxels: slice = slice(None)) -> np.ndarray:
        """Responses of the split, float32.

        (n_trs, n_voxels) if `average`, else (n_subjects, n_trs, n_voxels).

        NaN where a subject was not measured.
        """
        rows = self.tr_index
        if self.average:
            responses = np.asarray(self.fmri_mean[rows, voxels])
            release(self.fmri_mean)
            return responses
        n_voxels = len(range(self.features.fmri.shape[-1])[voxels])
        responses = np.empty((len(self.subject_rows), self.n_trs, n_voxels), np.float32)
        for response, subject in zip(responses, self.subject_rows, strict=True):
            response[:] = self.features.fmri[subject, rows, voxels]
            release(self.features.fmri)
        responses[~self.features.valid[np.ix_(self.subject_rows, self.tr_index)]] = np.nan
        return responses

    def train_mean(self, stimulus: str) -> Tensor:
        """Mean of a stimulus over the training TRs, as items give it: (n_features,)."""
        stored = getattr(self.features, stimulus)
        if stored.ndim > 2:
            raise ValueError(
                f"{stimulus} holds codes, which have no mean: use features that are amounts."
            )
        mean = self.features.train_mean(stimulus)
        return torch.from_numpy(mean / (255 if stored.dtype == np.uint8 else 1)).repeat(
            len(self.offsets)
        )

    def without_context(self, stimulus: str, values: Tensor) -> Tensor:
        """The part of the TR itself of (n_trs, n_features with context).

        Values are as items and models give them.

        Codes, which have no context, and values of the TR itself stay as they are.
        """
        width = getattr(self.features, stimulus).shape[-1]
        if values.ndim != 2 or values.shape[1] == width:
            return values
        before = -int(self.offsets[0])
        return values[:, before * width : (before + 1) * width]

    def __len__(self) -> int:
        return self.n_trs if self.average else len(self._items)

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor | str | int]:
        """One item, or for a list of indices a whole batch; TRs vary fastest, then subjects.

        `video` is luminance in 0..1, `audio` in SDs, `text` of unit length, `fmri` in SDs;
        `tr_index` counts the movie's TRs from 0 over all runs, `subject_id` is the subject's name,
        or 'mean'. A subject's TRs that were not measured are no items. With `average`, `weight` is
        the share of the subjects that were measured and `fmri_floor` their variance around the
        mean, see `MultimodalAutoencoder.compute_loss`.
        """
        indices = np.atleast_1d(np.asarray(index))
        if indices.min() < -len(self) or indices.max() >= len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} items.")
        indices = indices % len(self)
        if self.average:
            rows = self.tr_index[indices]
            names = ["mean"] * len(indices)
            fmri = self.fmri_mean[rows]
        else:
            subject, position = self._items[indices].T
            rows = self.tr_index[position]
            names = [self.subjects[s] for s in subject]
            fmri = self.features.fmri[np.asarray(self.subject_rows)[subject], rows]
        item = {name: self.stimulus(name, rows) for name in STIMULI}
        item |= {
            "fmri": torch.from_numpy(fmri),
            "subject_id": names,
            "tr_index": torch.from_numpy(rows),
        }
        if self.average:
            item |= {"weight": torch.from_numpy(self.weight[rows])}
            item |= {"fmri_floor": torch.from_numpy(self.fmri_variance[rows])}
        return item if np.ndim(index) else {name: value[0] for name, value in item.items()}

    def stimulus(self, name: str, rows: np.ndarray) -> Tensor:
        """A stimulus at some TRs of the movie, with their context, as items give it."""
        stored = getattr(self.features, name)
        if stored.ndim > 2:
            return torch.from_numpy(stored[rows]).long()
        values = torch.from_numpy(stored[(rows[:, None] + self.offsets).ravel()]).float()
        values = values.div_(255) if stored.dtype == np.uint8 else values
        return values.reshape(len(rows), len(self.offsets) * stored.shape[1])


def _check_split(split: str) -> None:
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)} or all.")
