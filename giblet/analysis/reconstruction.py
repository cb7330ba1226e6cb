"""What comes back of a movie from predicted, measured and wrong brains, beside ridge regression."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from giblet.analysis.chance import N_PERMUTE
from giblet.analysis.identification import Identification, identify
from giblet.analysis.lesions import Brain
from giblet.analysis.ridge_decoding import ridge_batches
from giblet.analysis.scores import score_trs
from giblet.analysis.sources import BRAINS, shifted_rows, source_fmri, typical
from giblet.data import MultimodalDataset
from giblet.data.features import STIMULI
from giblet.data.provenance import check_held_out, check_same_data
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import plot_film_strips

REFERENCES = ("movie", "ceiling", "mean")
SOURCES = ("ceiling", "raw", "predicted", "measured", "ridge", "shifted", "mean")  # of tables
BATCH_TRS = 128  # TRs of video in memory at a time: for each batch the whole basis is read


@torch.no_grad()
def decode_batches(
    model: MultimodalAutoencoder, fmri: np.ndarray, batch_trs: int = BATCH_TRS
) -> Iterator[dict]:
    """Reconstruct (n_trs, n_voxels) of brain in batches of TRs, on the CPU.

    Yields `{'video', 'audio', 'text'}`.
    """
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, len(fmri), batch_trs):
        outputs = model.decode_fmri(
            torch.from_numpy(np.ascontiguousarray(fmri[start : start + batch_trs])).to(device)
        )
        yield {name: outputs[f"{name}_recon"].cpu() for name in STIMULI}


def reconstruct(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    source: str = "measured",
    subject: str | None = None,
    mask: np.ndarray | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Reconstructions of a split in batches of TRs, in the units of the data set, without context.

    Parameters
    ----------
    source : 'movie', 'ceiling', 'raw', 'noisy', 'predicted', 'measured', 'ridge', 'shifted', 'mean'
        'movie' is the split's own stimulus. 'ceiling' is its video projected on the span of the
        training video: every reconstruction is a combination of training frames, and this is the
        best one; its audio and text are the split's own. 'mean' is the mean of the training TRs,
        the floor. 'ridge' is decoded from the measured brain by ridge regression, see
        `RidgeDecoder`; of codes, which have none, it gives the commonest, as 'mean' does. The
        others see `source_fmri`.
    subject : str, optional
        As in `source_fmri`.
    mask : (n_voxels,) bool, optional
        Voxels that keep their value; the others stay at their mean, 0. This is the smuggling test:
        leave the RAW predicted brain only the voxels in which nothing of the measured one is
        predicted. If the movie still comes back, the model has hidden it there, and what comes back
        from that brain proves nothing.

    Yields
    ------
    dict of `video`, `audio`, `text` : (n_batch, n_features)
    """
    check_same_data(model.trained_on, dataset)
    known = (*REFERENCES, "ridge", *BRAINS)
    if source not in known:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(known)}.")
    if source in REFERENCES:
        batches = _reference_batches(model, dataset, source)
    else:
        brain = "measured" if source == "ridge" else source
        fmri = source_fmri(model, dataset, brain, subject)
        kept = fmri if mask is None else np.where(mask, fmri, np.float32(0))
        ridge = source == "ridge"
        batches = ridge_batches(dataset, kept) if ridge else decode_batches(model, kept)
    for batch in batches:
        yield {name: dataset.without_context(name, values) for name, values in batch.items()}


def _reference_batches(
    model: MultimodalAutoencoder, dataset: MultimodalDataset, source: str
) -> Iterator[dict]:
    """What needs no brain: one of REFERENCES, with context."""
    device = next(model.parameters()).device
    for start in range(0, dataset.n_trs, BATCH_TRS):
        rows = dataset.tr_index[start : start + BATCH_TRS]
        batch = {name: dataset.stimulus(name, rows) for name in STIMULI}
        if source == "mean":
            batch = {
                name: typical(dataset, name).expand_as(values) for name, values in batch.items()
            }
        elif source == "ceiling":
            batch["video"] = model.project_video(batch["video"].to(device)).cpu()
        yield batch


def collect(batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All batches as one: {'video', 'audio', 'text'}, each (n_trs, n_features)."""
    parts = list(batches)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def similarity(
    batches: Iterator[dict[str, Tensor]], dataset: MultimodalDataset, names: Sequence[str] = STIMULI
) -> dict[str, np.ndarray]:
    """Similarity of every reconstruction with every TR of a split.

    {name: (n_reconstructed, n_trs)} float32.

    The cosine of what distinguishes the two from the training mean, so that looking like the
    average film is worth nothing and the mean itself is alike to nothing (0). Of codes, the share
    that is the same.
    """
    own = {
        name: dataset.without_context(name, dataset.stimulus(name, dataset.tr_index))
        for name in names
    }
    target = {name: _deviations(values, dataset, name) for name, values in own.items()}
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in batches:
        for name in names:
            if batch[name].ndim > 2:
                same = [(row == target[name]).float().flatten(1).mean(1) for row in batch[name]]
                parts[name].append(torch.stack(same))
            else:
                parts[name].append(_deviations(batch[name].float(), dataset, name) @ target[name].T)
    return {name: torch.cat(rows).numpy() for name, rows in parts.items()}


def _deviations(values: Tensor, dataset: MultimodalDataset, name: str) -> Tensor:
    """Unit vectors from the training mean to each row; 0 for what is the mean but for rounding."""
    if values.ndim > 2:
        return values
    mean = dataset.without_context(name, dataset.train_mean(name)[None])
    away = values - mean
    length = away.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-5 * mean.norm(), away / length.clamp(min=1e-30), 0)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What comes back of the held-out movie from one brain.

    Decoding, scores and identification are computed when they are first asked for, and kept.

    Parameters
    ----------
    model : MultimodalAutoencoder
    dataset : MultimodalDataset
        Held-out TRs.
    source : 'movie', 'ceiling', 'raw', 'noisy', 'predicted', 'measured', 'ridge', 'shifted', 'mean'
        See `reconstruct`.
    subject : str, optional
        One subject's measured brain instead of the mean of the group.
    mask : (n_voxels,) bool, optional
        Voxels that keep their value.
    """

    model: MultimodalAutoencoder
    dataset: MultimodalDataset
    source: str = "measured"
    subject: str | None = None
    mask: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def held_out(self) -> MultimodalDataset:
        """The data set with the mean response of the subjects."""
        return self.dataset.select(self.dataset.split, average=True)

    @cached_property
    def decoded(self) -> dict[str, Tensor]:
        """All of it: {'video', 'audio', 'text'}, each (n_trs, n_features)."""
        parts = (self.model, self.held_out, self.source, self.subject, self.mask)
        return collect(reconstruct(*parts))

    @property
    def video(self) -> Tensor:
        """(n_trs, video_dim)."""
        return self.decoded["video"]

    @property
    def audio(self) -> Tensor:
        """(n_trs, audio_features), or codes."""
        return self.decoded["audio"]

    @property
    def text(self) -> Tensor:
        """(n_trs, text_dim)."""
        return self.decoded["text"]

    @cached_property
    def brain(self) -> Brain:
        """The brain that was decoded, to be lesioned."""
        fmri = source_fmri(self.model, self.held_out, self.source, self.subject)
        return Brain(self.model, self.held_out, fmri if self.mask is None else fmri * self.mask)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score of every TR, see `score_trs`."""
        return score_trs(iter([self.decoded]), self.held_out)

    @cached_property
    def _similarity(self) -> dict[str, np.ndarray]:
        """Of what whole runs of brain give with the held-out TRs: {name: (n_trs, n_held_out)}."""
        held_out = self.held_out
        check_held_out(held_out)
        whole = held_out.select("all")
        source = "measured" if self.source == "shifted" else self.source
        batches = reconstruct(self.model, whole, source, self.subject, self.mask)
        alike = similarity(batches, held_out, held_out.present)
        if self.source == "shifted":
            own = np.isin(whole.tr_index, held_out.tr_index)
            for rows in alike.values():
                rows[own] = rows[own][shifted_rows(held_out.run)]
        return alike

    def identify(
        self, n_permute: int = N_PERMUTE, random_state: int = 0
    ) -> dict[str, Identification]:
        """Identify the held-out TRs by each modality, see the function of this name."""
        whole = self.held_out.select("all")
        own = np.isin(whole.tr_index, self.held_out.tr_index)
        clock = (whole.run, own, whole.tr_index, whole.gap)
        return {
            name: identify(rows, *clock, n_permute, random_state)
            for name, rows in self._similarity.items()
        }

    def plot(self, n_stills: int = 8) -> Figure:
        """Frames of held-out TRs: of the movie, and of what came back.

        Raises
        ------
        ValueError
            Where the data have no pictures.
        """
        if "video" not in self.dataset.present:
            raise ValueError(
                "the data have no pictures to draw: take `scores`, or one with a film."
            )
        rows = np.linspace(0, self.held_out.n_trs - 1, n_stills).astype(int)
        movie = collect(reconstruct(self.model, self.held_out, "movie"))["video"]
        strips = {"movie": movie, self.source: self.video}
        title = f"{self.dataset.label}held-out movie and what came back"
        return plot_film_strips(strips, rows, self.held_out, title)


def reconstruction_table(
    recon: Mapping[str, Reconstruction],
    n_permute: int = N_PERMUTE,
    block_trs: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Mean scores of every source beside each other.

    Parameters
    ----------
    recon : {source: Reconstruction}
        Of the same held-out TRs.
    n_permute : int
        Null draws of identification.
    block_trs : int, optional
        TRs that are resampled together, see `default_block_trs`.

    Returns
    -------
    DataFrame
        One row per modality and score, one column per source. To the scores come `R2` of video and
        audio (1 - mean squared error / that of the training mean), `2-way`
        (identification, chance .5) with its 95 % interval `low` to `high`, its `p` in the null of
        other times, and `top 5` with its chance.
    """
    columns = {}
    dataset = next(iter(recon.values())).held_out
    mean_errors = _mean_errors(dataset)
    for source, one in recon.items():
        means = one.scores.mean().to_dict()
        explained = {n: 1 - means[n, "mse"] / error for n, error in mean_errors.items()}
        column = {(name, "R2"): value for name, value in explained.items()} | means
        for name, found in one.identify(n_permute, random_state).items():
            low, high = found.interval(block_trs)
            top, chance = found.top(5)
            column[name, "2-way"] = found.two_way.mean()
            column |= {(name, "low"): low, (name, "high"): high, (name, "p"): found.p}
            column |= {(name, "top 5"): top, (name, "top 5 chance"): chance}
        columns[source] = column
    table = pd.DataFrame(columns)
    present = [name for name in STIMULI if name in table.index.levels[0]]
    return dataset.marked(table.loc[present])


def _mean_errors(dataset: MultimodalDataset) -> dict[str, float]:
    """Mean squared error of the training mean in video and audio, unless they are codes."""
    errors: dict[str, float] = {}
    for name in ("video", "audio"):
        if name in dataset.present and getattr(dataset.features, name).ndim == 2:
            mean = dataset.without_context(name, dataset.train_mean(name)[None]).double()
            squares = 0.0
            for start in range(0, dataset.n_trs, BATCH_TRS):
                rows = dataset.tr_index[start : start + BATCH_TRS]
                own = dataset.without_context(name, dataset.stimulus(name, rows))
                squares += (own.double() - mean).square().mean(1).sum().item()
            errors[name] = squares / dataset.n_trs
    return errors


def compare_with_ridge(table: pd.DataFrame) -> dict[str, str]:
    """By how much the decoder of measured brains is above or below ridge regression, in words.

    Parameters
    ----------
    table : DataFrame
        As `reconstruction_table` gives it, with the sources 'measured' and 'ridge'.

    Returns
    -------
    {modality: sentence}
        Of `R2` or, of text, `cosine`, and of `2-way`. Codes have no ridge regression.
    """
    sentences = {}
    for name in table.index.unique(0):
        score = "cosine" if name == "text" else "R2"
        if (name, score) in table.index:
            parts = [_against_ridge(table.loc[(name, one)], one) for one in (score, "2-way")]
            sentences[name] = f"{name}: {', '.join(parts)}"
    return sentences


def _against_ridge(scores: pd.Series, name: str) -> str:
    difference = scores["measured"] - scores["ridge"]
    where = "above" if difference >= 0 else "below"
    return (
        f"{name} {scores['measured']:.2f} is {abs(difference):.2f} {where} ridge regression "
        f"({scores['ridge']:.2f})"
    )
