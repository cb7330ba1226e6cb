"""Causal hemodynamic response, for simulation and baselines.

The model's stimulus is never convolved: the lag between stimulus and BOLD is a property of the data
set (`lag_trs`) and is applied once, by shifting BOLD.
"""

import numpy as np
from nilearn.glm.first_level.hemodynamic_models import glover_hrf, spm_hrf

HRF_SECONDS = 24.0  # beyond this both kernels are below 1 % of their peak
_KERNELS = {"glover": glover_hrf, "spm": spm_hrf}


def hrf_kernel(tr: float, model: str = "glover", oversampling: int = 16) -> np.ndarray:
    """Mean BOLD in each TR after one TR of unit stimulation: (n_kernel_trs,), sums to 1.

    nilearn's `glover_hrf` or `spm_hrf` is sampled at tr / oversampling seconds, convolved with one
    TR of stimulation and averaged within TRs; element 0 is the TR of the stimulus itself.
    """
    if model not in _KERNELS:
        raise ValueError(f"model is {model!r}, expected one of {sorted(_KERNELS)}.")
    fine = _KERNELS[model](tr, oversampling=oversampling, time_length=32.0)
    response = np.convolve(fine, np.ones(oversampling))
    n_trs = -(-len(response) // oversampling)
    kernel = (
        np.pad(response, (0, n_trs * oversampling - len(response)))
        .reshape(n_trs, oversampling)
        .mean(1)
    )
    return kernel / kernel.sum()


def convolve_hrf(signal: np.ndarray, tr: float, model: str = "glover") -> np.ndarray:
    """Convolve each column of one run with the HRF, causally.

    Parameters
    ----------
    signal : (n_trs, n_features)
        One run: nothing may be convolved across a run boundary.
    tr : float
        Repetition time in seconds.

    Returns
    -------
    (n_trs, n_features) float64
        Row i depends on rows 0..i only.
    """
    kernel = hrf_kernel(tr, model)
    signal = np.asarray(signal, dtype=np.float64)
    return np.apply_along_axis(lambda column: np.convolve(column, kernel)[: len(column)], 0, signal)
