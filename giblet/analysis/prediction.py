"""Where, and how well, the model predicts held-out brain responses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from giblet.analysis.baseline import (
    correlation_score_split,
    fitting_trs,
    ridge_predictions,
)
from giblet.analysis.bootstrap import (
    bootstrap_correlations,
    confidence_interval,
    default_block_trs,
    paired_p_values,
)
from giblet.analysis.ceiling import (
    inter_subject_correlation,
    over_ceiling,
    prediction_ceiling,
    split_half_reliability,
)
from giblet.analysis.chance import (
    N_PERMUTE,
    ROUNDING,
    fdr,
    p_values,
    voxelwise_null,
    window_null,
    z_scores,
)
from giblet.analysis.comparison import comparison_table
from giblet.analysis.correlation import r2_score, subject_correlations, voxelwise_correlation
from giblet.analysis.ridge import bands_of
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_held_out, check_same_data
from giblet.files import atomic_path
from giblet.maps import save_map
from giblet.models import MultimodalAutoencoder
from giblet.plotting.prediction import plot_ablation, plot_prediction
from giblet.plotting.surface import plot_maps
from giblet.regions import Regions, regions_of


@torch.no_grad()
def predict_fmri(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    drop: Sequence[str] = (),
    batch_size: int = 64,
) -> np.ndarray:
    """Predicted response to every TR of a data set: (n_trs, n_voxels) float32.

    Parameters
    ----------
    drop : sequence of 'video', 'audio', 'text'
        Modalities taken away: every TR shows the model their mean over the training TRs.

    Raises
    ------
    ValueError
        If the model was trained on other data, or on other TRs of them, see `check_same_data`.
    """
    check_same_data(model.trained_on, dataset)
    model.eval()
    device = next(model.parameters()).device
    means = {name: dataset.train_mean(name).to(device) for name in drop}
    predicted = []
    for rows in torch.arange(dataset.n_trs).split(batch_size):
        batch: dict[str, Any] = dataset[rows.tolist()]
        inputs = {name: batch[name].to(device) for name in ("video", "audio", "text")}
        inputs |= {name: mean.expand_as(inputs[name]) for name, mean in means.items()}
        predicted.append(model.encoder(**inputs)[0].float().cpu())
    return torch.cat(predicted).numpy()


def ablation_maps(
    model: MultimodalAutoencoder, dataset: MultimodalDataset
) -> dict[str, np.ndarray]:
    """r of every voxel with 'nothing', and with each modality, taken from the input.

    Modalities are those that are present. Where a prediction no longer varies, r is 0.

    Parameters
    ----------
    dataset : MultimodalDataset with `average=True`
        Held-out TRs.

    Returns
    -------
    {name: (n_voxels,)}
    """
    check_held_out(dataset)
    taken = {"nothing": ()} | {name: (name,) for name in dataset.present}
    predictions = ((name, predict_fmri(model, dataset, drop)) for name, drop in taken.items())
    r = {name: voxelwise_correlation(x, dataset.fmri(), dataset.run) for name, x in predictions}
    scored = np.isfinite(r["nothing"])
    return {name: np.where(scored, np.nan_to_num(x), np.nan) for name, x in r.items()}


def check_split(split: str) -> None:
    """Refuse to score the TRs of training."""
    if split not in ("val", "test"):
        raise ValueError(
            f"split is {split!r}, expected 'test' or 'val': a score on training TRs says nothing."
        )


def held_out_trs(dataset: MultimodalDataset, split: str = "test") -> np.ndarray:
    """Which TRs of a data set with `split='all'` belong to a split: (n_trs,) bool."""
    return dataset.split_labels[dataset.tr_index] == split


def network_table(
    fmri_pred: np.ndarray,
    dataset: MultimodalDataset,
    regions: Regions,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    split: str = "test",
) -> pd.DataFrame:
    """Held-out r of each region beside its null.

    Parameters
    ----------
    fmri_pred : (n_trs, n_voxels)
        Prediction for all TRs of `dataset`, which has `split='all'` and `average=True`: null
        windows are taken from all of each run, at least the gap between splits away from the
        held-out block.
    split : 'test' or 'val'

    Returns
    -------
    DataFrame
        One row per region: `n_voxels`, `r` (mean over voxels), `null_mean`, `null_sd` (of that mean
        over the draws), `z` = (r - null_mean) / null_sd, see `z_scores`, and `p`, see `p_values`.
        A region without voxels, or whose voxels do not vary, has no score: NaN.

    Raises
    ------
    ValueError
        If `dataset` has no TR of the split, a run is too short, see `window_null`, or the split is
        that of training.
    """
    check_split(split)
    held_out = held_out_trs(dataset, split)
    scores = (n_permute, random_state, regions.mean)
    r, null = window_null(fmri_pred, dataset.fmri(), dataset.run, held_out, dataset.gap, *scores)
    table = pd.DataFrame(
        {
            "n_voxels": regions.sizes,
            "r": r,
            "null_mean": null.mean(0),
            "null_sd": null.std(0),
            "z": z_scores(r, null, rounding=ROUNDING),
            "p": p_values(r, null, rounding=ROUNDING),
        },
        index=pd.Index(regions.names, name="network"),
    )
    return dataset.marked(table)


def with_planted(table: pd.DataFrame, dataset: MultimodalDataset) -> pd.DataFrame:
    """A table by region that says, of simulated data, what each region was simulated from."""
    if dataset.simulated:
        causes = [" + ".join(dataset.planted.get(name, ["nothing"])) for name in table.index]
        table.insert(0, "simulated from", causes)
    return table


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's prediction of held-out responses, with all that it has to be compared with.

    What is costly (ridge regression, ceilings, nulls) is computed when it is first asked for, and
    kept.

    Parameters
    ----------
    model : MultimodalAutoencoder or None
        None for a prediction that was made elsewhere.
    dataset : MultimodalDataset
        Of any split: its whole runs are predicted, and scored at the TRs of `split`.
    split : 'test' or 'val'
    fmri_pred : (n_trs, n_voxels), optional
        Prediction of every TR of `dataset.select("all")`, where `model` did not make it.
    others : MultimodalDataset, optional
        Of the people that the model was trained on, where `dataset` is of a viewer who was left
        out: ridge regression is then fitted to their responses, too.

    Raises
    ------
    ValueError
        If the split is that of training, or the model was trained on other data.
    """

    model: MultimodalAutoencoder | None
    dataset: MultimodalDataset
    split: str = "test"
    fmri_pred: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]
    others: MultimodalDataset | None = field(default=None, repr=False)
    _nulls: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        check_split(self.split)
        if self.split == "val" and self.model is not None and self.model.merged is not None:
            raise ValueError(
                f"split is {self.split!r}, but Layer 5 of a merged model has seen these TRs, "
                "expected 'test': take it, or the network of `best.pt`."
            )
        if self.fmri_pred is None:
            predicted = predict_fmri(self._known_model, self.whole)
            object.__setattr__(self, "fmri_pred", predicted)

    @property
    def _known_model(self) -> MultimodalAutoencoder:
        if self.model is None:
            raise ValueError(
                "the prediction was made elsewhere, expected a model for this: give it."
            )
        return self.model

    @cached_property
    def whole(self) -> MultimodalDataset:
        """Every TR with stimulus and BOLD, with the mean response of the subjects."""
        return self.dataset.select("all", average=True)

    @cached_property
    def held_out(self) -> MultimodalDataset:
        """The TRs that are scored, with the mean response of the subjects."""
        return self.dataset.select(self.split, average=True)

    @cached_property
    def held_out_trs(self) -> np.ndarray:
        """Which TRs of `whole` are scored: (n_trs,) bool."""
        return held_out_trs(self.whole, self.split)

    @cached_property
    def regions(self) -> Regions:
        """The regions of the data set, see `regions_of`."""
        return regions_of(self.whole)

    @property
    def held_out_pred(self) -> np.ndarray:
        """Prediction of the held-out TRs: (n_held_out, n_voxels)."""
        return self.fmri_pred[self.held_out_trs]

    def score(self, fmri_pred: np.ndarray) -> np.ndarray:
        """r of a prediction of the held-out TRs: (n_voxels,)."""
        return voxelwise_correlation(fmri_pred, self.held_out.fmri(), self.held_out.run)

    @cached_property
    def r(self) -> np.ndarray:
        """Held-out correlation of each voxel with the mean response: (n_voxels,)."""
        return self.score(self.held_out_pred)

    @cached_property
    def r2(self) -> np.ndarray:
        """Held-out R2 of each voxel, see `r2_score`: (n_voxels,)."""
        return r2_score(self.held_out_pred, self.held_out.fmri(), self.held_out.run)

    @cached_property
    def subject_r(self) -> np.ndarray:
        """Held-out correlation with each subject: (n_subjects, n_voxels)."""
        return subject_correlations(self.held_out_pred, self.held_out.per_subject())

    @cached_property
    def isc(self) -> np.ndarray:
        """Leave-one-out inter-subject correlation: the ceiling of `subject_r`.

        (n_subjects, n_voxels), NaN of one subject.
        """
        if len(self.held_out.subjects) < 2:
            return np.full((1, len(self.r)), np.nan)
        return inter_subject_correlation(self.held_out.per_subject())

    @cached_property
    def reliability(self) -> np.ndarray:
        """Split-half reliability of the mean response: (n_voxels,), NaN of one subject."""
        if len(self.held_out.subjects) < 2:
            return np.full(len(self.r), np.nan)
        return split_half_reliability(self.held_out.per_subject())

    @property
    def ceiling(self) -> np.ndarray:
        """Highest r that a prediction of the mean response can have: (n_voxels,)."""
        return prediction_ceiling(self.reliability)

    @cached_property
    def ridge(self) -> np.ndarray:
        """Ridge regression on the same features: (n_modalities, n_held_out, n_voxels).

        The share of each modality, see `ridge_predictions`; their sum is the prediction. It is
        fitted on training and validation TRs; for scores of the latter, on the former.
        """
        train = fitting_trs(self.others or self.whole, self.split)
        return ridge_predictions(train, self.held_out)

    @cached_property
    def ridge_r(self) -> np.ndarray:
        """Held-out correlation of ridge regression with the mean response: (n_voxels,)."""
        return self.score(self.ridge.sum(0))

    @cached_property
    def compared(self) -> dict[str, np.ndarray]:
        """Predictions of the held-out TRs: of the 'model', its 'network' alone, and 'ridge'.

        Each (n_held_out, n_voxels); 'network' where the model is merged, see `giblet.merging`.
        """
        merged = None if self.model is None else self.model.merged
        found = {"model": self.held_out_pred}
        if merged is not None:
            found["network"] = predict_fmri(merged.network, self.held_out)
        return found | {"ridge": self.ridge.sum(0)}

    @property
    def ridge_weight(self) -> np.ndarray | None:
        """Share of ridge regression in a merged model's prediction: (n_voxels,)."""
        merged = None if self.model is None else self.model.merged
        return None if merged is None else merged.ridge_weight

    def null(self, n_permute: int = N_PERMUTE, random_state: int = 0) -> np.ndarray:
        """p of every voxel's r in `voxelwise_null`: (n_voxels,).

        Parameters
        ----------
        n_permute : int
            Null draws.
        """
        key = ("voxels", n_permute, random_state)
        if key not in self._nulls:
            whole = self.whole
            null = (whole.run, self.held_out_trs, whole.gap, n_permute, random_state)
            self._nulls[key] = voxelwise_null(self.fmri_pred, whole.fmri(), *null)[1]
        return self._nulls[key]

    def q(self, n_permute: int = N_PERMUTE, random_state: int = 0) -> np.ndarray:
        """False discovery rate at which each voxel is predicted, of `null`: (n_voxels,)."""
        return fdr(self.null(n_permute, random_state))

    def network_table(
        self, regions: Regions | None = None, n_permute: int = N_PERMUTE, random_state: int = 0
    ) -> pd.DataFrame:
        """Held-out r of each region beside its null, see the function of this name."""
        regions = regions or self.regions
        key = (regions.names, regions.labels.tobytes(), n_permute, random_state)
        if key not in self._nulls:
            self._nulls[key] = network_table(
                self.fmri_pred, self.whole, regions, n_permute, random_state, self.split
            )
        return self._nulls[key].copy()

    def region_table(
        self,
        regions: Regions | None = None,
        n_permute: int = N_PERMUTE,
        n_boot: int = 1000,
        block_trs: int | None = None,
        random_state: int = 0,
    ) -> pd.DataFrame:
        """What is predicted of each region, of what is predictable, against ridge regression.

        Parameters
        ----------
        n_permute, n_boot : int
            Null draws, and bootstrap draws.
        block_trs : int, optional
            TRs that are resampled together, see `default_block_trs`.

        Returns
        -------
        DataFrame
            One row per region, means over its voxels: `n_voxels`; `r`, `ceiling` (the root of the
            mean reliability) and `r/ceiling` for the mean response; `subject r`, `ISC` and
            `subject r/ISC` for single subjects; `significant`, the share with q < .05 of the voxels
            that have a q; `ridge r`; `r - ridge`, its 95 % interval `low` to `high` and two-sided
            `p` over film that is resampled in blocks, see `paired_p_values`. A ratio to a ceiling
            below .1 is NaN: nothing there can be predicted. A region without voxels is all NaN.

        Raises
        ------
        ValueError
            If the TRs hold fewer than 3 blocks, or a run is shorter than one.
        """
        regions = regions or self.regions
        q = self.q(n_permute, random_state)
        r = regions.mean(self.r)
        subject_r = regions.mean(self.subject_r.mean(0))
        isc = regions.mean(self.isc.mean(0))
        ceiling = prediction_ceiling(regions.mean(self.reliability))  # roots of noise are above 0
        columns = {
            "n_voxels": regions.sizes,
            "r": r,
            "ceiling": ceiling,
            "r/ceiling": over_ceiling(r, ceiling),
            "subject r": subject_r,
            "ISC": isc,
            "subject r/ISC": over_ceiling(subject_r, isc),
            "significant": regions.mean(np.where(np.isfinite(q), q < 0.05, np.nan)),
            **self._against_ridge(regions, n_boot, block_trs, random_state),
        }
        table = pd.DataFrame(columns, index=pd.Index(regions.names, name="region"))
        return self.dataset.marked(table)

    def _against_ridge(
        self, regions: Regions, n_boot: int, block_trs: int | None, random_state: int
    ) -> dict[str, np.ndarray]:
        """Columns of `region_table` that compare with ridge regression over resampled film."""
        run = self.held_out.run
        block_trs = block_trs or default_block_trs(run)
        both = (self.held_out_pred, self.ridge.sum(0))
        draws = bootstrap_correlations(
            both, self.held_out.fmri(), run, block_trs, n_boot, random_state, regions.mean
        )
        ridge_r = regions.mean(self.ridge_r)
        difference = regions.mean(self.r) - ridge_r
        drawn = draws[0] - draws[1]
        n_blocks = len(run) / block_trs
        low, high = confidence_interval(difference, drawn, n_blocks)
        p = paired_p_values(difference, drawn, n_blocks)
        return {"ridge r": ridge_r, "r - ridge": difference, "low": low, "high": high, "p": p}

    def comparison_table(
        self,
        regions: Regions | None = None,
        n_boot: int = 1000,
        block_trs: int | None = None,
        random_state: int = 0,
    ) -> pd.DataFrame:
        """The model beside ridge regression and its network alone, see the function of this name.

        Parameters
        ----------
        n_boot, block_trs, random_state
            As of `region_table`.
        """
        regions = regions or self.regions
        return comparison_table(self, regions, n_boot, block_trs, random_state)

    def ridge_table(self, regions: Regions | None = None) -> pd.DataFrame:
        """What each modality adds to r of ridge regression, by region: they add up to it.

        Returns
        -------
        DataFrame (n_regions, n_modalities)
        """
        regions = regions or self.regions
        added = correlation_score_split(self.ridge, self.held_out.fmri(), self.held_out.run)
        index = pd.Index(regions.names, name="region")
        table = pd.DataFrame(regions.mean(added).T, index=index, columns=bands_of(self.whole))
        return self.dataset.marked(table)

    @cached_property
    def ablation(self) -> dict[str, np.ndarray]:
        """r of every voxel with 'nothing', and with each modality taken away.

        See `ablation_maps`.
        """
        return ablation_maps(self._known_model, self.held_out)

    def ablation_table(self, regions: Regions | None = None) -> pd.DataFrame:
        """The same by region: what each region listens to.

        Returns
        -------
        DataFrame
            One row per region; columns `nothing` and the modalities name what was taken away.
        """
        regions = regions or self.regions
        columns = {name: regions.mean(r) for name, r in self.ablation.items()}
        table = pd.DataFrame(columns, index=pd.Index(regions.names, name="network"))
        return self.dataset.marked(table)

    def plot(self) -> Figure:
        """Stills of the held-out film, the map of held-out r, and r by region on its null."""
        return plot_prediction(self.r, self.network_table(), self.held_out)

    def plot_ablation(self, regions: Regions | None = None) -> Figure:
        """`ablation_table` as a picture."""
        title = f"{self.dataset.label}held-out r by network"
        return plot_ablation(self.ablation_table(regions), title)

    def plot_map(self, threshold: float = 0.2, vmax: float = 0.6) -> Figure:
        """Held-out r on the cortical surface, from four sides."""
        title = f"{self.dataset.label}held-out r above {threshold}, mean of the subjects"
        return plot_maps({title: self.r}, self.whole.mask_img, threshold, vmax)

    def save(self, out: str | Path, n_permute: int = N_PERMUTE) -> None:
        """Write the maps `r.nii.gz` and `q.nii.gz`, and `prediction.csv`, the `network_table`.

        q is 1 outside the brain; without a `mask_img` there are no maps.

        Parameters
        ----------
        out : folder
        """
        out = Path(out)
        table = with_planted(self.network_table(n_permute=n_permute), self.whole)
        with atomic_path(out / "prediction.csv") as temporary:
            table.to_csv(temporary)
        if self.whole.mask_img is not None:
            save_map(self.r, self.whole.mask_img, out / "r.nii.gz")
            save_map(self.q(n_permute), self.whole.mask_img, out / "q.nii.gz", background=1.0)
