"""A model beside ridge regression and its network alone, over other film and over other people."""

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from giblet.analysis.bootstrap import (
    bootstrap_correlations,
    confidence_interval,
    default_block_trs,
    paired_p_values,
)
from giblet.analysis.chance import ROUNDING
from giblet.analysis.correlation import subject_correlations
from giblet.regions import Regions

if TYPE_CHECKING:
    from giblet.analysis.prediction import Prediction

N_EXACT = 12  # subjects up to which all sign flips are counted
N_FLIPS = 10_000
EVERY = "mean of regions"


def comparison_table(
    prediction: "Prediction",
    regions: Regions,
    n_boot: int = 1000,
    block_trs: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Held-out r by region of the model, of ridge regression and of the network alone.

    Returns
    -------
    DataFrame
        One row per region and one for their mean. Columns are pairs: for 'model', 'network' (where
        the model is merged) and 'ridge' the `r` of the mean response with its 95 % interval `low`
        to `high` over resampled film; for 'model - ridge' the difference with interval and
        two-sided `p`, paired; for 'over subjects' the same difference of the single subjects' r,
        its interval over subjects and `p` of `sign_flip_p`; and ('ridge', 'weight'), its share in
        the model.
    """
    predictions = prediction.compared
    held_out = prediction.held_out
    block_trs = block_trs or default_block_trs(held_out.run)
    n_blocks = held_out.n_trs / block_trs

    def reduce(values: np.ndarray) -> np.ndarray:
        by_region = regions.mean(values)
        return np.concatenate([by_region, np.nanmean(by_region, -1, keepdims=True)], axis=-1)

    drawn = bootstrap_correlations(
        list(predictions.values()), held_out.fmri(), held_out.run, block_trs, n_boot, random_state,
        reduce,
    )  # fmt: skip
    draws = dict(zip(predictions, drawn, strict=True))
    r = {name: reduce(prediction.score(values)) for name, values in predictions.items()}
    table: dict[tuple[str, str], np.ndarray] = {}
    for name, scores in r.items():
        low, high = confidence_interval(scores, draws[name], n_blocks)
        table |= {(name, "r"): scores, (name, "low"): low, (name, "high"): high}
    if prediction.ridge_weight is not None:
        table["ridge", "weight"] = reduce(prediction.ridge_weight)
    apart = (r["model"] - r["ridge"], draws["model"] - draws["ridge"], n_blocks)
    names = ("r", "low", "high", "p")
    over_film = (apart[0], *confidence_interval(*apart), paired_p_values(*apart))
    table |= {("model - ridge", name): x for name, x in zip(names, over_film, strict=True)}
    own = [
        reduce(subject_correlations(predictions[name], held_out.per_subject()))
        for name in ("model", "ridge")
    ]
    over_subjects = subject_interval(own[0] - own[1], random_state)
    table |= {("over subjects", name): x for name, x in zip(names, over_subjects, strict=True)}
    index = pd.Index([*regions.names, EVERY], name="region")
    return held_out.marked(pd.DataFrame(table, index=index))


def subject_interval(differences: np.ndarray, random_state: int = 0) -> np.ndarray:
    """Mean over subjects, its 95 % interval and its p: (4, n_scores).

    (n_subjects, n_scores). The interval is that of Student's t; NaN, as p, of a single subject.
    """
    n_subjects = len(differences)
    mean = differences.mean(0)
    if n_subjects < 2:
        return np.stack([mean, *np.full((3, *mean.shape), np.nan)])
    error = differences.std(0, ddof=1) / np.sqrt(n_subjects)
    half = student_t.ppf(0.975, n_subjects - 1) * error
    return np.stack([mean, mean - half, mean + half, sign_flip_p(differences, random_state)])


def sign_flip_p(differences: np.ndarray, random_state: int = 0) -> np.ndarray:
    """Two-sided p that subjects' differences are as often below 0 as above: (n_scores,).

    Parameters
    ----------
    differences : (n_subjects, n_scores)
        Up to 12 subjects all sign flips are counted; beyond, 10,000 are drawn and
        p = (b + 1) / (n + 1). NaN in, NaN out; ties count against a difference.
    """
    n_subjects = len(differences)
    if n_subjects <= N_EXACT:
        flips = np.array(list(product((1, -1), repeat=n_subjects)))
    else:
        rng = np.random.default_rng(random_state)
        flips = rng.choice((1, -1), (N_FLIPS, n_subjects))
        flips = np.concatenate([np.ones((1, n_subjects), int), flips])
    observed = np.abs(differences.mean(0))
    drawn = np.abs(flips @ differences) / n_subjects
    p = (drawn >= observed - ROUNDING).mean(0)
    return np.where(np.isfinite(observed), p, np.nan)
