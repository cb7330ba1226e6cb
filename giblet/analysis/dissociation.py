"""Which region, or which units, matter for which modality: sweeps of lesions, dose and response."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from giblet.analysis.lesion_cost import LesionEffect, mean_over_trs, size_bin
from giblet.analysis.lesions import N_PERMUTE, Brain, Lesion, lesion_effects
from giblet.regions import Regions


def intact_table(brains: Mapping[str, Brain]) -> pd.DataFrame:
    """What each brain gives without a lesion, compared with the training mean.

    Look at it before any lesion.

    Parameters
    ----------
    brains : {name: Brain}

    Returns
    -------
    DataFrame (n_modalities, n_brains + 1)
        R2 against the training mean of video and audio, cosine of text, share of equal codes; means
        over the TRs that have a score. The last column is `training mean`.
    """
    columns: dict[str, dict] = {}
    for source, brain in brains.items():
        columns[source] = {name: mean_over_trs(brain.intact[name][0]) for name in brain.names}
    first = next(iter(brains.values()))
    columns["training mean"] = first.of_training_mean()
    return first.dataset.marked(pd.DataFrame(columns).loc[list(first.names)])


def decoding_failures(table: pd.DataFrame) -> list[str]:
    """A sentence per brain and modality that is decoded no better than by the training mean."""
    mean = table["training mean"]
    failures = []
    for brain in table.columns.drop("training mean"):
        for name in table.index:
            score = table.loc[name, brain]
            if not score > mean[name]:
                failures.append(
                    f"{name} from the {brain} brain is decoded no better than by the training mean "
                    f"({score:.2f}, the mean has {mean[name]:.2f}): read nothing into its lesions"
                )
    return failures


def region_sweep(
    lesion: Lesion,
    regions: Regions,
    n_permute: int = N_PERMUTE,
    random_state: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """The cost of lesioning each region, by modality, beside random regions of about the same size.

    The random regions are contiguous where the data set knows the coordinates of its voxels, see
    `random_lesions`.

    Parameters
    ----------
    lesion : Lesion
        What is done to each region in turn: in which brain, with which fill, strength and mode.

    Returns
    -------
    DataFrame
        One row per region; columns (modality, 'effect' | 'z' | 'p'), see `LesionEffect`, and
        ('', 'n_voxels'). A region without voxels has no effect, z or p: NaN.
    """
    lesions = [replace(lesion, mask=regions.voxels(name), units=()) for name in regions.names]
    lesioned = lesion.brain.of_lesions(lesions)
    nulls = {}
    rows = []
    for index, one in enumerate(tqdm(lesions, "null lesions", unit="region", disable=not progress)):
        size = size_bin(one.n_voxels, len(one.mask))
        if size not in nulls:
            as_large = replace(one, mask=np.arange(len(one.mask)) < size)
            nulls[size] = as_large.null(n_permute, random_state)
        own = {name: _known(values[index], one) for name, values in lesioned.items()}
        rows.append({("", "n_voxels"): one.n_voxels} | _row(lesion_effects(one, own, nulls[size])))
    return _table(rows, pd.Index(regions.names, name="region"), lesion.brain)


def unit_sweep(
    lesion: Lesion, group_size: int = 16, n_permute: int = N_PERMUTE, random_state: int = 0
) -> pd.DataFrame:
    """The cost of silencing each group of neighbouring units, beside as many units at random.

    Parameters
    ----------
    lesion : Lesion
        What is done to each group in turn, as in `region_sweep`.
    """
    n_units = lesion.brain.bottleneck.shape[1]
    starts = range(0, n_units - group_size + 1, group_size)
    silenced = replace(lesion, mask=None)
    lesions = [replace(silenced, units=range(start, start + group_size)) for start in starts]
    lesioned = lesion.brain.of_lesions(lesions)
    null = lesions[0].null(n_permute, random_state)
    rows = []
    for index, one in enumerate(lesions):
        own = {name: values[index] for name, values in lesioned.items()}
        rows.append(_row(lesion_effects(one, own, null)))
    names = [f"{start}-{start + group_size - 1}" for start in starts]
    return _table(rows, pd.Index(names, name="units"), lesion.brain)


def dose_response(
    lesion: Lesion, strengths: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
) -> pd.DataFrame:
    """Mean score of each modality by strength of a lesion of voxels.

    Returns
    -------
    DataFrame (n_strengths, n_modalities)
        Means over the TRs that have a score; NaN where none has, and of a lesion without voxels.
    """
    doses = [replace(lesion, strength=strength) for strength in strengths]
    lesioned = lesion.brain.of_lesions(doses)
    columns = {name: mean_over_trs(_known(values, lesion)) for name, values in lesioned.items()}
    table = pd.DataFrame(columns, index=pd.Index(strengths, name="strength"))
    return lesion.brain.dataset.marked(table)


def _known(scores: np.ndarray, lesion: Lesion) -> np.ndarray:
    """The scores after a lesion; NaN after one of no voxel, which leaves the brain intact."""
    return scores if lesion.n_voxels else np.full_like(scores, np.nan)


def _row(effects: Mapping[str, LesionEffect]) -> dict:
    row: dict[tuple[str, str], float] = {}
    for name, effect in effects.items():
        row |= {(name, "effect"): effect.effect, (name, "z"): effect.z, (name, "p"): effect.p}
    return row


def _table(rows: list[dict], index: pd.Index, brain: Brain) -> pd.DataFrame:
    table = pd.DataFrame(rows, index=index)
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return brain.dataset.marked(table)
