"""Does a model predict held-out responses at all? Ask before any map or lesion."""

import math
from dataclasses import dataclass

import numpy as np

from giblet.analysis.ceiling import shared_voxels
from giblet.analysis.chance import ROUNDING, p_values, window_null
from giblet.analysis.correlation import voxelwise_correlation
from giblet.analysis.prediction import held_out_trs, predict_fmri
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.regions import Regions

LEVEL = 0.05  # a larger p is no evidence that anything is predicted


@dataclass(frozen=True)
class Verdict:
    """Held-out prediction beside its null; `str` of it is a sentence.

    Parameters
    ----------
    r : float
        Correlation over the test TRs, mean over the voxels that the subjects share.
    null_mean, null_sd, p : float
        Of `r` in `window_null`; NaN where the test TRs allow no null.
    n_trs : int
        Test TRs.
    simulated : bool
        The data are simulated.
    """

    r: float
    null_mean: float
    null_sd: float
    p: float
    n_trs: int
    simulated: bool = False

    @property
    def above_chance(self) -> bool:
        """Whether p is below .05."""
        return self.p < LEVEL

    def __str__(self) -> str:
        label = "SIMULATED data: the" if self.simulated else "the"
        score = f"r {self.r:.3f} over {self.n_trs} test TRs"
        if math.isnan(self.p):
            return (
                f"{label} model's {score} cannot be compared with chance: "
                f"the runs are too short for a null, or the prediction is constant"
            )
        null = f"null {self.null_mean:.3f} ± {self.null_sd:.3f}, p = {self.p:.4f}"
        if self.above_chance:
            return f"{label} model predicts held-out responses better than chance: {score} ({null})"
        return (
            f"{label} model predicts held-out responses NO BETTER THAN CHANCE: {score} ({null}); "
            f"read nothing into its maps, reconstructions or lesions"
        )


def judge(
    model: MultimodalAutoencoder,
    train: MultimodalDataset,
    whole: MultimodalDataset,
    n_permute: int = 2000,
    random_state: int | np.random.Generator = 0,
) -> Verdict:
    """Compare a model's prediction of the test TRs with its null.

    Parameters
    ----------
    model : MultimodalAutoencoder
    train : MultimodalDataset
        The training TRs, over which `shared_voxels` chooses the voxels.
    whole : MultimodalDataset with `split='all'` and `average=True`
        The test TRs, and the other times of their runs for the null.
    n_permute : int
        Null draws.
    """
    held_out = held_out_trs(whole)
    shared = Regions(np.where(shared_voxels(train), 0, -1), ("shared",))
    series = (predict_fmri(model, whole), whole.fmri(), whole.run)
    try:
        r, null = window_null(*series, held_out, whole.gap, n_permute, random_state, shared.mean)
    except ValueError:  # the runs hold no other window
        r = shared.mean(voxelwise_correlation(*(values[held_out] for values in series)))
        null = np.full((1, 1), np.nan)
    p = np.atleast_1d(p_values(r, null, ROUNDING))[0]
    return Verdict(
        float(r[0]),
        float(null.mean()),
        float(null.std()),
        float(p),
        int(held_out.sum()),
        whole.simulated,
    )
