"""A movie data set as a torch Dataset: one TR of stimulus and the brain's response to it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from giblet.alignment.splits import SPLITS
from giblet.data.audio import AudioProcessor
from giblet.data.fmri import FMRIProcessor
from giblet.data.folder import DataFolder
from giblet.data.prepare import prepare
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor


class MultimodalDataset(Dataset):
    """TR-aligned video, audio, text and fMRI of a data folder.

    Features are prepared once and memory-mapped; the stimulus exists once for all subjects.

    Parameters
    ----------
    data_dir : folder with a `dataset.toml`, see data/README.md
    subjects : 'all' or list of str
        Names of NIfTI files without their ending.
    split : 'train', 'val', 'test' or 'all'
        'all' is every TR with both stimulus and BOLD, the gaps between the splits included.
    average : bool
        One item a TR, with the mean response of the subjects, instead of one item a subject and TR.
    video_processor, audio_processor, text_processor : processors
        Kinds and sizes of the features; by default those of the full-size model.
    fractions : (train, val, test)
        Shares of each run, in this order, see `giblet.alignment.split_trs`.
    cache_dir : folder, default `data_dir/cache`

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
        video_processor: VideoProcessor | None = None,
        audio_processor: AudioProcessor | None = None,
        text_processor: TextProcessor | None = None,
        fractions: tuple[float, float, float] = (0.6, 0.15, 0.25),
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ):
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)} or all.")
        self.folder = DataFolder.open(data_dir)
        tr = self.folder.tr
        self.video_processor = replace(video_processor or VideoProcessor(), tr=tr)
        self.text_processor = text_processor or TextProcessor()
        audio = replace(audio_processor or AudioProcessor(), tr=tr, mean=None, sd=None)
        self.cache = prepare(
            self.folder,
            self.video_processor,
            audio,
            self.text_processor,
            FMRIProcessor(tr),
            tuple(fractions),
            Path(cache_dir or self.folder.path / "cache"),
            progress,
        )
        self.subjects = list(self.folder.subjects) if subjects == "all" else list(subjects)
        unknown = sorted(set(self.subjects) - set(self.folder.subjects))
        if unknown or not self.subjects:
            raise ValueError(f"subjects are {subjects!r}, expected 'all' or some of {list(self.folder.subjects)}.")
        self._subject_rows = [list(self.folder.subjects).index(name) for name in self.subjects]
        self.split, self.average = split, average
        self.mask_img = nib.load(self.folder.mask)
        self.audio_processor = replace(audio, mean=self._load("audio_mean"), sd=self._load("audio_sd"))
        self._video, self._audio, self._text, self._fmri = map(self._load, ("video", "audio", "text", "fmri"))
        self.split_labels = self._load("split")
        wanted = self.split_labels != "cropped" if split == "all" else self.split_labels == split
        self.tr_index = np.flatnonzero(wanted)  # of the movie, over all runs
        self.run = np.repeat(np.arange(len(self.folder.run_trs)), self.folder.run_trs)[self.tr_index]

    def _load(self, name: str) -> np.ndarray:
        return np.load(self.cache / f"{name}.npy", mmap_mode="r")

    @property
    def n_trs(self) -> int:
        """TRs in this split."""
        return len(self.tr_index)

    @property
    def model_dims(self) -> dict[str, int]:
        """The arguments that fit a `MultimodalAutoencoder` to this data set."""
        widths = {
            "video_dim": self._video,
            "audio_features": self._audio,
            "text_dim": self._text,
            "n_voxels": self._fmri,
        }
        return {name: array.shape[-1] for name, array in widths.items()}

    def fmri(self) -> np.ndarray:
        """The split's responses: (n_trs, n_voxels) if `average`, else (n_subjects, n_trs, n_voxels), float32."""
        responses = self._fmri[np.ix_(self._subject_rows, self.tr_index)]
        return responses.mean(0) if self.average else responses

    def train_mean(self, modality: str) -> Tensor:
        """Mean of 'video', 'audio' or 'text' over the training TRs, as items give it: (n_features,)."""
        stored = {"video": self._video, "audio": self._audio, "text": self._text}[modality]
        mean = stored[self.split_labels == "train"].mean(0, dtype=np.float32)
        return torch.from_numpy(mean / (255 if modality == "video" else 1))

    def __len__(self) -> int:
        return self.n_trs * (1 if self.average else len(self.subjects))

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor | str | int]:
        """One item, or a whole batch at once for a list of indices; TRs vary fastest, then subjects.

        `video` is luminance in 0..1, `audio` in SDs, `text` of unit length, `fmri` in SDs; `tr_index` counts the
        movie's TRs from 0 over all runs, `subject_id` is the subject's name, or 'mean'.
        """
        indices = np.atleast_1d(np.asarray(index))
        if indices.min() < -len(self) or indices.max() >= len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} items.")
        subject, position = np.divmod(indices % len(self), self.n_trs)
        rows = self.tr_index[position]
        if self.average:
            fmri, names = self._fmri[np.ix_(self._subject_rows, rows)].mean(0), ["mean"] * len(rows)
        else:
            fmri = self._fmri[np.asarray(self._subject_rows)[subject], rows]
            names = [self.subjects[s] for s in subject]
        item = {
            "video": torch.from_numpy(self._video[rows]).float().div_(255),
            "audio": torch.from_numpy(self._audio[rows]),
            "text": torch.from_numpy(self._text[rows]),
            "fmri": torch.from_numpy(fmri),
            "subject_id": names,
            "tr_index": torch.from_numpy(rows),
        }
        return item if np.ndim(index) else {name: value[0] for name, value in item.items()}
