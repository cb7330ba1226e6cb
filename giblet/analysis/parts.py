"""Which part of the picture and of the sound comes back, and what a lesion costs in it."""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from giblet.analysis.lesion_cost import random_lesions, size_bin
from giblet.analysis.lesions import N_PERMUTE, Brain, Lesion
from giblet.data import MultimodalDataset
from giblet.data.audio import mel_frequencies

BANDS_HZ = {
    "below 500 Hz": (0, 500),
    "500 Hz to 2 kHz": (500, 2000),
    "above 2 kHz": (2000, math.inf),
}


def middle_frame(dataset: MultimodalDataset) -> slice:
    """Values of the middle frame of a TR among those of its video, context included."""
    video = dataset.video_processor
    n_values = math.prod(video.frame_shape)
    before = -int(dataset.offsets[0]) * video.n_frames  # of the TRs of context
    middle = before + video.n_frames // 2
    return slice(middle * n_values, (middle + 1) * n_values)


def picture_parts(dataset: MultimodalDataset) -> dict[str, np.ndarray]:
    """The halves of a frame: {name: (n_values,) bool}."""
    shape = dataset.video_processor.frame_shape
    down, across = (np.indices(shape)[axis].ravel() for axis in (0, 1))
    upper = down < shape[0] / 2
    left = across < shape[1] / 2
    return {"left": left, "right": ~left, "upper": upper, "lower": ~upper}


def sound_parts(dataset: MultimodalDataset) -> dict[str, np.ndarray]:
    """Bands of log-mel features: {name: (n_features,) bool}."""
    n_frames, n_mels = cast(tuple[int, int], dataset.audio_processor.mel_shape)
    hz = np.tile(mel_frequencies(n_mels), n_frames)
    return {name: (low <= hz) & (hz < high) for name, (low, high) in BANDS_HZ.items()}


class Parts:
    """Scores of parts of what a brain gives: halves of the middle frame of each TR, bands of sound.

    A score is R2 against the training mean, over all TRs and values of the part.

    Parameters
    ----------
    brain : Brain
        Of a data set with a film, or with log-mel sound, or both.

    Raises
    ------
    ValueError
        If the data set has neither.
    """

    def __init__(self, brain: Brain):
        self.brain = brain
        dataset = brain.dataset
        self.of: dict[str, dict[str, np.ndarray]] = {}
        self.targets: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        rows = dataset.tr_index
        if "video" in dataset.present and dataset.video_processor is not None:
            self.of["video"] = picture_parts(dataset)
            self.pixels = middle_frame(dataset)
            self.targets["video"] = dataset.stimulus("video", rows)[:, self.pixels]
            self.means["video"] = dataset.train_mean("video")[self.pixels]
        audio = dataset.audio_processor
        if "audio" in dataset.present and audio is not None and audio.mel_shape is not None:
            self.of["audio"] = sound_parts(dataset)
            own = dataset.without_context("audio", dataset.stimulus("audio", rows))
            self.targets["audio"] = own
            mean = dataset.train_mean("audio")[None]
            self.means["audio"] = dataset.without_context("audio", mean)[0]
        if not self.of:
            raise ValueError(
                "the data have no film and no log-mel sound, of which parts could be scored: take "
                "data with either."
            )
        self.intact = self.of_bottleneck(brain.bottleneck)

    @torch.inference_mode()
    def errors(self, bottleneck: Tensor) -> dict[str, Tensor]:
        """Mean squared error of each value over the TRs: {modality: (n_values,)}."""
        decoded = {}
        if "video" in self.of:
            decoded["video"] = self.brain.model.decode_pixels(bottleneck, self.pixels)
        if "audio" in self.of:
            audio = self.brain.model.core.decode(bottleneck)["audio_recon"]
            decoded["audio"] = self.brain.dataset.without_context("audio", audio.cpu())
        return {
            name: (values.float().cpu() - self.targets[name]).square().mean(0)
            for name, values in decoded.items()
        }

    def of_bottleneck(self, bottleneck: Tensor) -> dict[str, float]:
        """R2 of every part that a bottleneck (n_trs, bottleneck_dim) gives."""
        scores = {}
        for name, error in self.errors(bottleneck).items():
            floor = (self.targets[name] - self.means[name]).square().mean(0)
            for part, where in self.of[name].items():
                inside = torch.from_numpy(where)
                scores[part] = 1 - float(error[inside].sum() / floor[inside].sum())
        return scores


def part_sweep(
    brain: Brain,
    masks: Mapping[str, np.ndarray],
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
) -> pd.DataFrame:
    """What lesions of voxels cost in each part, beside random regions of about the same size.

    Parameters
    ----------
    masks : {name: (n_voxels,) bool}
    n_permute : int
        Random regions of a null, see `random_lesions`.

    Returns
    -------
    DataFrame
        One row per lesion; columns (quantity, part): R2 `lost`, and the 95 % of random regions,
        `low` to `high`.
    """
    parts = Parts(brain)
    rng = np.random.default_rng(random_state)
    nulls: dict[int, pd.DataFrame] = {}
    rows = {}
    for name, mask in masks.items():
        lost = _lost(parts, Lesion(brain, mask))
        size = size_bin(int(mask.sum()), len(mask))
        if size not in nulls:
            drawn = random_lesions(brain.dataset, size, n_permute, rng)
            nulls[size] = pd.DataFrame([_lost(parts, Lesion(brain, one)) for one in drawn])
        low, high = (nulls[size].quantile(share) for share in (0.025, 0.975))
        quantities = {"lost": lost, "low": low, "high": high}
        rows[name] = {
            (quantity, part): values[part]
            for quantity, values in quantities.items()
            for part in lost
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("lesion")
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return brain.dataset.marked(table)


def _lost(parts: Parts, lesion: Lesion) -> dict[str, float]:
    lesioned = parts.of_bottleneck(lesion.bottleneck)
    return {part: parts.intact[part] - score for part, score in lesioned.items()}
