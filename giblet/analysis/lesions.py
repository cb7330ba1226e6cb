"""Lesions of bottleneck units and of brain regions, decoded and scored: what the movie loses.

What lesions at random places cost is in `lesion_effects`.

A lesion of voxels reaches the bottleneck through Layer 6, which is linear. So the bottleneck of a lesioned brain is
that of the intact one plus what Layer 6 makes of the change in the lesioned voxels, and many lesions are one batch.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, linear

from giblet.analysis.reconstruction import source_fmri, typical
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out, check_same_data
from giblet.models import MultimodalAutoencoder, SpanAutoencoder

FILLS = ("zero", "mean", "resample")
MODES = ("without", "only")
BATCH = 4096  # decodes at a time
NO_UNITS = np.zeros(0, int)


def _check(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")


def fill_values(reference: Tensor, n_trs: int, fill: str = "zero", generator: torch.Generator | None = None) -> Tensor:
    """What stands in for a lesioned unit or voxel: (n_trs, n_values).

    Parameters
    ----------
    reference : (n_reference, n_values)
        Intact activity, from which 'mean' takes the mean of each column, and 'resample' whole rows at random.
    fill : 'zero', 'mean' or 'resample'
    """
    _check("fill", fill, FILLS)
    if fill == "zero":
        return reference.new_zeros(1, reference.shape[1]).expand(n_trs, -1)
    if fill == "mean":
        return reference.mean(0, keepdim=True).expand(n_trs, -1)
    return reference[torch.randint(len(reference), (n_trs,), generator=generator)]


def lesion_units(
    bottleneck: Tensor,
    units: slice | Sequence[int] | np.ndarray,
    fill: str = "zero",
    strength: float = 1.0,
    reference: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A copy of a bottleneck in which some units are silenced.

    Parameters
    ----------
    bottleneck : (n_trs, bottleneck_dim)
    units : slice, indices or (bottleneck_dim,) bool
    fill : 'zero', 'mean' or 'resample'
        See `fill_values`.
    strength : float
        0 leaves the units as they are, 1 replaces them.
    reference : (n_reference, bottleneck_dim), optional
        Intact activity; by default `bottleneck` itself.
    """
    filled = fill_values(bottleneck if reference is None else reference, len(bottleneck), fill, generator)
    units = units if isinstance(units, slice) else torch.as_tensor(units)
    lesioned = bottleneck.clone()
    lesioned[:, units] += strength * (filled[:, units] - bottleneck[:, units])
    return lesioned


def lesion_voxels(
    fmri: Tensor,
    region: np.ndarray,
    fill: str = "zero",
    strength: float = 1.0,
    mode: str = "without",
    reference: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A copy of a brain without a region, or with nothing but it.

    Parameters
    ----------
    fmri : (n_trs, n_voxels)
        Predicted or measured.
    region : (n_voxels,) bool
    fill, strength, reference
        As in `lesion_units`.
    mode : 'without' or 'only'
        'only' lesions all voxels outside the region: what this region alone sees.
    """
    _check("mode", mode, MODES)
    region = np.asarray(region, bool)
    return lesion_units(fmri, region if mode == "without" else ~region, fill, strength, reference, generator)


class LesionScores:
    """Lesioned brains decoded and scored against the held-out film, many at a time.

    Video and audio are scored by R2 against the training mean (1 - squared error / squared error of the mean), codes by
    the share that is the same, text by its cosine; video in the coordinates of the span where the model has one, which
    is exact.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
        Held-out TRs alone.
    fmri : 'measured' or 'predicted', or (n_trs, n_voxels)
        The brain to lesion, see `source_fmri`.

    Attributes
    ----------
    bottleneck : (n_trs, bottleneck_dim)
        Of the intact brain.
    intact : {name: (1, n_trs)}
        Its scores.
    """

    @torch.inference_mode()
    def __init__(self, model: MultimodalAutoencoder, dataset: MultimodalDataset, fmri: str | np.ndarray = "measured"):
        check_held_out(dataset)
        check_same_data(model.trained_on, dataset)
        if isinstance(fmri, str):
            fmri = source_fmri(fmri, model, dataset)
        self.model, self.dataset, self.names = model.eval(), dataset, dataset.present
        self.core = model.core if isinstance(model, SpanAutoencoder) else model
        device = next(model.parameters()).device
        self.fmri = self.reference_fmri = torch.from_numpy(np.ascontiguousarray(fmri, np.float32)).to(device)
        self.bottleneck = self.reference = model.fmri_to_bottleneck(self.fmri)
        self.target = {name: dataset.stimulus(name, dataset.tr_index).to(device) for name in self.names}
        measured = [name for name in self.names if name != "text" and self.target[name].ndim == 2]  # no codes
        means = {name: dataset.train_mean(name)[None].to(device) for name in measured}
        self.n_values, self.floor = model.n_values["video"], torch.zeros(len(self.fmri), device=device)
        if isinstance(model, SpanAutoencoder) and "video" in self.names:
            whole = self.target["video"].square().sum(1)
            self.target["video"], means["video"] = (
                model.video_basis.coordinates(x["video"]) for x in (self.target, means)
            )
            self.floor = (whole - self.target["video"].square().sum(1)).clamp(min=0) / self.n_values
        self.mean_error = {name: self._error(name, mean).mean() for name, mean in means.items()}
        self.intact = self.of_bottlenecks(self.bottleneck[None])

    def at(self, rows: Sequence[int]) -> "LesionScores":
        """The same for some TRs of the split; fills still come from all of them."""
        part, rows = copy(self), torch.as_tensor(np.asarray(rows))
        part.fmri, part.bottleneck, part.floor = self.fmri[rows], self.bottleneck[rows], self.floor[rows]
        part.target = {name: values[rows] for name, values in self.target.items()}
        part.intact = {name: values[:, rows.numpy()] for name, values in self.intact.items()}
        return part

    def _error(self, name: str, recon: Tensor) -> Tensor:
        """Mean squared error of each TR of (..., n_trs, n_values)."""
        squares = (recon - self.target[name]).square().sum(-1)
        return squares / self.n_values + self.floor if name == "video" else squares / recon.shape[-1]

    @torch.inference_mode()
    def of_bottlenecks(self, bottlenecks: Tensor) -> dict[str, np.ndarray]:
        """Score of each modality and TR: (n_lesions, n_trs, bottleneck_dim) -> {name: (n_lesions, n_trs)}.

        The text of a TR without annotation is NaN.
        """
        scores: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for block in bottlenecks.split(max(1, BATCH // bottlenecks.shape[1])):
            outputs = self.core.decode(block.flatten(0, 1))
            for name in self.names:
                recon, target = outputs[f"{name}_recon"].float().unflatten(0, block.shape[:2]), self.target[name]
                if name in self.mean_error:
                    scores[name].append(1 - self._error(name, recon) / self.mean_error[name])
                elif name == "text":
                    scores[name].append((recon * target).sum(-1) / (recon.norm(dim=-1) * target.norm(dim=-1)))
                else:
                    scores[name].append((recon == target).float().mean((-2, -1)))
        return {name: torch.cat(rows).cpu().numpy() for name, rows in scores.items()}

    def of_training_mean(self) -> dict[str, float]:
        """Mean score of the training mean in place of a reconstruction, by modality; of codes that of the commonest."""
        means = {}
        for name in self.names:
            recon = typical(self.dataset, name)[None].to(self.fmri.device)
            if name in self.mean_error:
                means[name] = 0.0
            elif name == "text":
                means[name] = cosine_similarity(recon, self.target[name])[self.target[name].any(1)].mean().item()
            else:
                means[name] = (recon == self.target[name]).float().mean().item()
        return means

    def through_layer_6(self, change: Tensor, voxels: np.ndarray) -> Tensor:
        """What a change (n_trs, n_changed) in some voxels (indices) adds to the bottleneck."""
        layer, voxels = self.core.encoder.to_bottleneck, torch.from_numpy(voxels)
        if isinstance(self.model, SpanAutoencoder) and self.model.fmri_basis.vectors is not None:
            return linear(change @ self.model.fmri_basis.vectors[voxels], layer.weight)
        return linear(change, layer.weight[:, voxels])

    @torch.inference_mode()
    def lesioned(
        self,
        region: np.ndarray | None = None,
        units: np.ndarray = NO_UNITS,
        fill: str = "zero",
        strength: float = 1.0,
        mode: str = "without",
        seed: int = 0,
    ) -> Tensor:
        """Bottleneck after a lesion of voxels, as of `lesion_voxels`, and then of units: (n_trs, bottleneck_dim).

        Parameters
        ----------
        region : (n_voxels,) bool, optional
            None or an empty one leaves the brain intact, in both modes.
        units : indices
        fill, strength, mode : as in `lesion_voxels`; fills come from this brain and its bottleneck
        seed : int
            Of 'resample'.
        """
        change = None
        if region is not None and region.any():
            change = self.change(region, fill, seed)
        return self.changed(change, units, fill, strength, mode, seed)

    @torch.inference_mode()
    def change(self, region: np.ndarray, fill: str = "zero", seed: int = 0) -> Tensor:
        """What filling a region, (n_voxels,) bool, adds to the bottleneck: (n_trs, bottleneck_dim); regions add up."""
        voxels = np.flatnonzero(region)
        generator = torch.Generator().manual_seed(seed)
        filled = fill_values(self.reference_fmri[:, voxels], len(self.fmri), fill, generator)
        return self.through_layer_6(filled - self.fmri[:, voxels], voxels)

    @torch.inference_mode()
    def changed(
        self,
        change: Tensor | None,
        units: np.ndarray = NO_UNITS,
        fill: str = "zero",
        strength: float = 1.0,
        mode: str = "without",
        seed: int = 0,
    ) -> Tensor:
        """As `lesioned`, from the sum of the `change` of its regions."""
        _check("mode", mode, MODES)
        bottleneck = self.bottleneck
        if change is not None:
            only = mode == "only"
            bottleneck = bottleneck + strength * (self._nothing(fill, seed) - change - bottleneck if only else change)
        if len(units):
            generator = torch.Generator().manual_seed(seed)
            bottleneck = lesion_units(bottleneck, units, fill, strength, self.reference, generator)
        return bottleneck

    def _nothing(self, fill: str, seed: int) -> Tensor:
        """Bottleneck of a brain that is all fill; Layer 6 is affine, so that the mean goes through it unchanged."""
        if fill == "zero":
            return self.core.encoder.to_bottleneck.bias.expand(len(self.fmri), -1)
        return fill_values(self.reference, len(self.fmri), fill, torch.Generator().manual_seed(seed))

    def of_regions(self, regions: Sequence[np.ndarray], **lesion) -> dict[str, np.ndarray]:
        """Scores after the lesion of each (n_voxels,) bool region: {name: (n_lesions, n_trs)}; see `lesioned`."""
        return self._of([{"region": region} | lesion for region in regions])

    def of_units(self, groups: Sequence[np.ndarray], **lesion) -> dict[str, np.ndarray]:
        """Scores after silencing each group of units: {name: (n_lesions, n_trs)}; see `lesioned`."""
        return self._of([{"units": units} | lesion for units in groups])

    def _of(self, lesions: list[dict]) -> dict[str, np.ndarray]:
        blocks = (lesions[start : start + 64] for start in range(0, len(lesions), 64))  # few bottlenecks in memory
        parts = [self.of_bottlenecks(torch.stack([self.lesioned(**x) for x in block])) for block in blocks]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}
