"""Lesions of bottleneck units and of brain regions, decoded and scored: what the movie loses.

A lesion of voxels reaches the bottleneck through Layer 6, which is linear. So the bottleneck of a
lesioned brain is that of the intact one plus what Layer 6 makes of the change in the lesioned
voxels, and many lesions are one batch.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cosine_similarity

from giblet.analysis.lesion_cost import (
    LesionEffect,
    mean_cost,
    mean_over_trs,
    random_lesions,
)
from giblet.analysis.sources import source_fmri, typical
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out, check_same_data
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import plot_film_strips

N_PERMUTE = 199  # random lesions of a null
FILLS = ("zero", "mean", "resample")
MODES = ("without", "only")
BATCH = 4096  # decodes at a time
BLOCK = 64  # lesions at a time: few bottlenecks in memory


def _check(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}.")


def fill_values(
    reference: Tensor, n_trs: int, fill: str = "zero", generator: torch.Generator | None = None
) -> Tensor:
    """What stands in for a lesioned unit or voxel: (n_trs, n_values).

    Parameters
    ----------
    reference : (n_reference, n_values)
        Intact activity, from which 'mean' takes the mean of each column, and 'resample' whole rows
        at random.
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
    filled = fill_values(
        bottleneck if reference is None else reference, len(bottleneck), fill, generator
    )
    where = units if isinstance(units, slice) else torch.as_tensor(units)
    lesioned = bottleneck.clone()
    lesioned[:, where] += strength * (filled[:, where] - bottleneck[:, where])
    return lesioned


def lesion_voxels(
    fmri: Tensor,
    mask: np.ndarray,
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
    mask : (n_voxels,) bool
    fill, strength, reference
        As in `lesion_units`.
    mode : 'without' or 'only'
        'only' lesions all voxels outside the mask: what these voxels alone see.
    """
    _check("mode", mode, MODES)
    mask = np.asarray(mask, bool)
    lesioned = mask if mode == "without" else ~mask
    return lesion_units(fmri, lesioned, fill, strength, reference, generator)


class Brain:
    """A brain, intact, to be lesioned, decoded and scored against the held-out movie.

    Video and audio are scored by R2 against the training mean (1 - squared error / squared error of
    the mean), codes by the share that is the same, text by its cosine; video in the coordinates in
    which the model was trained, which is exact.

    Parameters
    ----------
    model : MultimodalAutoencoder
    dataset : MultimodalDataset with `average=True`
        Held-out TRs alone.
    source : 'measured' or 'predicted', or (n_trs, n_voxels)
        See `source_fmri`.

    Attributes
    ----------
    bottleneck : (n_trs, bottleneck_dim)
        Of the intact brain.
    intact : {name: (1, n_trs)}
        Its scores.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: MultimodalAutoencoder,
        dataset: MultimodalDataset,
        source: str | np.ndarray = "measured",
    ):
        check_held_out(dataset)
        check_same_data(model.trained_on, dataset)
        fmri = source_fmri(model, dataset, source) if isinstance(source, str) else source
        self.model = model.eval()
        self.dataset = dataset
        self.names = dataset.present
        device = next(model.parameters()).device
        self.fmri = torch.from_numpy(np.ascontiguousarray(fmri, np.float32)).to(device)
        self.reference_fmri = self.fmri
        self.bottleneck = model.fmri_to_bottleneck(self.fmri)
        self.reference = self.bottleneck
        self._set_targets(device)
        self.intact = self.of_bottlenecks(self.bottleneck[None])

    def _set_targets(self, device: torch.device) -> None:
        """Set what reconstructions are compared with.

        Video is in coordinates; `floor` is the error outside them.
        """
        rows = self.dataset.tr_index
        self.target = {name: self.dataset.stimulus(name, rows).to(device) for name in self.names}
        amounts = [n for n in self.names if n != "text" and self.target[n].ndim == 2]  # no codes
        means = {name: self.dataset.train_mean(name)[None].to(device) for name in amounts}
        self.n_values = self.model.n_values["video"]
        self.floor = torch.zeros(len(self.fmri), device=device)
        if "video" in self.names:
            basis = self.model.video_basis
            whole = self.target["video"].square().sum(1)
            self.target["video"] = basis.coordinates(self.target["video"])
            means["video"] = basis.coordinates(means["video"])
            within = self.target["video"].square().sum(1)
            self.floor = (whole - within).clamp(min=0) / self.n_values
        self.mean_error = {name: self._error(name, mean).mean() for name, mean in means.items()}

    def at(self, rows: Sequence[int] | np.ndarray) -> "Brain":
        """The same for some TRs of the split; fills still come from all of them."""
        part = copy(self)
        chosen = np.asarray(rows)
        index = torch.as_tensor(chosen)
        part.fmri = self.fmri[index]
        part.bottleneck = self.bottleneck[index]
        part.floor = self.floor[index]
        part.target = {name: values[index] for name, values in self.target.items()}
        part.intact = {name: values[:, chosen] for name, values in self.intact.items()}
        return part

    def _error(self, name: str, recon: Tensor) -> Tensor:
        """Mean squared error of each TR of (..., n_trs, n_values)."""
        squares = (recon - self.target[name]).square().sum(-1)
        if name == "video":
            return squares / self.n_values + self.floor
        return squares / recon.shape[-1]

    @torch.inference_mode()
    def of_bottlenecks(self, bottlenecks: Tensor) -> dict[str, np.ndarray]:
        """Score of each modality and TR: {name: (n_lesions, n_trs)}.

        The text of a TR without annotation is NaN.

        Parameters
        ----------
        bottlenecks : (n_lesions, n_trs, bottleneck_dim)
        """
        scores: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for block in bottlenecks.split(max(1, BATCH // bottlenecks.shape[1])):
            outputs = self.model.core.decode(block.flatten(0, 1))
            for name in self.names:
                recon = outputs[f"{name}_recon"].float().unflatten(0, block.shape[:2])
                target = self.target[name]
                if name in self.mean_error:
                    scores[name].append(1 - self._error(name, recon) / self.mean_error[name])
                elif name == "text":
                    scores[name].append(
                        (recon * target).sum(-1) / (recon.norm(dim=-1) * target.norm(dim=-1))
                    )
                else:
                    scores[name].append((recon == target).float().mean((-2, -1)))
        return {name: torch.cat(rows).cpu().numpy() for name, rows in scores.items()}

    def of_training_mean(self) -> dict[str, float]:
        """Mean score, by modality, of the training mean in place of a reconstruction.

        Of codes that of the commonest.
        """
        means = {}
        for name in self.names:
            recon = typical(self.dataset, name)[None].to(self.fmri.device)
            if name in self.mean_error:
                means[name] = 0.0
            elif name == "text":
                cosine = cosine_similarity(recon, self.target[name])
                means[name] = cosine[self.target[name].any(1)].mean().item()
            else:
                means[name] = (recon == self.target[name]).float().mean().item()
        return means

    @torch.inference_mode()
    def lesioned(self, lesion: "Lesion") -> Tensor:
        """Bottleneck after a lesion of voxels and then of units: (n_trs, bottleneck_dim)."""
        change = None
        if lesion.mask is not None and lesion.n_voxels:
            change = self.change(lesion.mask, lesion.fill, lesion.random_state)
        return self.changed(lesion, change)

    @torch.inference_mode()
    def change(self, mask: np.ndarray, fill: str = "zero", random_state: int = 0) -> Tensor:
        """What filling the voxels of a mask adds to the bottleneck: (n_trs, bottleneck_dim).

        The changes of several regions add up.
        """
        voxels = np.flatnonzero(mask)
        generator = torch.Generator().manual_seed(random_state)
        filled = fill_values(self.reference_fmri[:, voxels], len(self.fmri), fill, generator)
        return self.through_layer_6(filled - self.fmri[:, voxels], voxels)

    def through_layer_6(self, change: Tensor, voxels: np.ndarray) -> Tensor:
        """What a change (n_trs, n_changed) in some voxels (indices) adds to the bottleneck."""
        return self.model.bottleneck_change(change, torch.from_numpy(voxels))

    @torch.inference_mode()
    def changed(self, lesion: "Lesion", change: Tensor | None) -> Tensor:
        """As `lesioned`, from the sum of the `change` of its regions; None changes no voxel."""
        bottleneck = self.bottleneck
        if change is not None and lesion.mode == "only":
            nothing = self._nothing(lesion.fill, lesion.random_state)
            bottleneck = bottleneck + lesion.strength * (nothing - change - bottleneck)
        elif change is not None:
            bottleneck = bottleneck + lesion.strength * change
        if lesion.n_units:
            how = (lesion.fill, lesion.strength, self.reference)
            generator = torch.Generator().manual_seed(lesion.random_state)
            bottleneck = lesion_units(bottleneck, lesion.unit_indices, *how, generator)
        return bottleneck

    def _nothing(self, fill: str, random_state: int) -> Tensor:
        """Bottleneck of a brain that is all fill; Layer 6 is affine, so means go through it."""
        if fill == "zero":
            return self.model.core.encoder.to_bottleneck.bias.expand(len(self.fmri), -1)
        generator = torch.Generator().manual_seed(random_state)
        return fill_values(self.reference, len(self.fmri), fill, generator)

    def of_lesions(self, lesions: Sequence["Lesion"]) -> dict[str, np.ndarray]:
        """Scores after each of many lesions of this brain: {name: (n_lesions, n_trs)}."""
        parts = []
        for start in range(0, len(lesions), BLOCK):
            block = [self.lesioned(lesion) for lesion in lesions[start : start + BLOCK]]
            parts.append(self.of_bottlenecks(torch.stack(block)))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion of voxels, of bottleneck units, or of both, in one brain.

    Parameters
    ----------
    brain : Brain
    mask : (n_voxels,) bool, optional
        Lesioned voxels. None or an empty one leaves the voxels intact, in both modes.
    units : sequence of int, or (bottleneck_dim,) bool
        Lesioned units of the bottleneck.
    fill : 'zero', 'mean' or 'resample'
        What stands in for them, see `fill_values`; it comes from this brain and its bottleneck.
    strength : float
        0 leaves them as they are, 1 replaces them.
    mode : 'without' or 'only'
        'only' lesions all voxels outside the mask: what these voxels alone see.
    random_state : int
        Of 'resample'.
    """

    brain: Brain
    mask: np.ndarray | None = field(default=None, repr=False)
    units: Sequence[int] | np.ndarray = ()
    fill: str = "zero"
    strength: float = 1.0
    mode: str = "without"
    random_state: int = 0

    def __post_init__(self):
        _check("fill", self.fill, FILLS)
        _check("mode", self.mode, MODES)

    @property
    def n_voxels(self) -> int:
        """Number of voxels in the mask."""
        return 0 if self.mask is None else int(np.count_nonzero(self.mask))

    @property
    def unit_indices(self) -> np.ndarray:
        """The lesioned units: (n_units,) int."""
        units = np.asarray(self.units)
        return np.flatnonzero(units) if units.dtype == bool else units.astype(int)

    @property
    def n_units(self) -> int:
        """Number of lesioned units."""
        return len(self.unit_indices)

    @cached_property
    def bottleneck(self) -> Tensor:
        """(n_trs, bottleneck_dim)."""
        return self.brain.lesioned(self)

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Score of each modality and TR, see `Brain`: {name: (n_trs,)}."""
        found = self.brain.of_bottlenecks(self.bottleneck[None])
        return {name: values[0] for name, values in found.items()}

    @property
    def video(self) -> Tensor:
        """Decoded video: (n_trs, video_dim)."""
        return decoded_video(self.brain, self.bottleneck)

    def null(self, n_permute: int = N_PERMUTE, random_state: int = 0) -> dict[str, np.ndarray]:
        """Mean cost of random lesions of the same size: {name: (n_permute,)}.

        They have as many voxels at random places, see `random_lesions`, and as many units. A lesion
        of nothing has no null: NaN.

        Parameters
        ----------
        n_permute : int
            Random lesions.
        """
        if self.n_voxels == 0 and self.n_units == 0:
            return {name: np.full(n_permute, np.nan) for name in self.brain.names}
        rng = np.random.default_rng(random_state)
        drawn = [replace(self, mask=None, units=()) for _ in range(n_permute)]
        if self.n_voxels:
            masks = random_lesions(self.brain.dataset, self.n_voxels, n_permute, rng)
            drawn = [replace(one, mask=mask) for one, mask in zip(drawn, masks, strict=True)]
        if self.n_units:
            every = self.brain.bottleneck.shape[1]
            groups = [rng.choice(every, self.n_units, replace=False) for _ in range(n_permute)]
            drawn = [replace(one, units=units) for one, units in zip(drawn, groups, strict=True)]
        found = self.brain.of_lesions(drawn)
        return {name: mean_cost(self.brain.intact[name], found[name]) for name in found}

    def effects(self, n_permute: int = N_PERMUTE, random_state: int = 0) -> dict[str, LesionEffect]:
        """Cost of the lesion in each modality, beside its null."""
        return lesion_effects(self, self.scores, self.null(n_permute, random_state))

    def table(self, n_permute: int = N_PERMUTE, random_state: int = 0) -> pd.DataFrame:
        """The same as a table.

        Returns
        -------
        DataFrame
            One row per modality: mean score `intact` and `lesioned`, what is `lost`, and its `z`
            and `p` among random lesions, see `LesionEffect`.
        """
        rows = {}
        for name, effect in self.effects(n_permute, random_state).items():
            scores = {"intact": mean_over_trs(effect.intact)}
            scores["lesioned"] = mean_over_trs(effect.lesioned)
            rows[name] = scores | {"lost": effect.effect, "z": effect.z, "p": effect.p}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("modality")
        return self.brain.dataset.marked(table)

    def plot(self, n_stills: int = 8, title: str = "without and with the lesion") -> Figure:
        """Frames of held-out TRs: the movie, intact, lesioned, and the difference of the two."""
        dataset = self.brain.dataset
        intact = decoded_video(self.brain, self.brain.bottleneck)
        strips = {"movie": dataset.stimulus("video", dataset.tr_index), "intact": intact}
        strips |= {"lesioned": self.video, "difference": 0.5 + self.video - intact}
        rows = np.linspace(0, dataset.n_trs - 1, n_stills).astype(int)
        return plot_film_strips(strips, rows, dataset, f"{dataset.label}{title}")


@torch.inference_mode()
def decoded_video(brain: Brain, bottleneck: Tensor) -> Tensor:
    """Video that a bottleneck (n_trs, bottleneck_dim) gives: (n_trs, video_dim), on the CPU."""
    return brain.model.decoder(bottleneck)[0].cpu()


def lesion_effects(
    lesion: Lesion, lesioned: dict[str, np.ndarray], null: dict[str, np.ndarray]
) -> dict[str, LesionEffect]:
    """Effects of a lesion by modality, from its scores {name: (n_trs,)} and its null."""
    intact = lesion.brain.intact
    mode = lesion.mode if lesion.n_voxels else "without"  # units alone are silenced in both modes
    return {
        name: LesionEffect(intact[name][0], lesioned[name], null[name], mode)
        for name in lesion.brain.names
    }
