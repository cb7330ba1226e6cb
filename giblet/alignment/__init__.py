"""Time: the hemodynamic response, and which TRs train, validate and test."""

from giblet.alignment.hrf import convolve_hrf, hrf_kernel
from giblet.alignment.lag import lag_curve
from giblet.alignment.splits import gap_trs, split_trs

__all__ = ["convolve_hrf", "gap_trs", "hrf_kernel", "lag_curve", "split_trs"]
