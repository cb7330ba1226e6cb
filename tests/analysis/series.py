"""Made-up series: imported by tests."""

import numpy as np
from scipy.signal import lfilter


def autocorrelated(rng, n_trs: int, n_series: int, coefficient: float) -> np.ndarray:
    return lfilter([1], [1, -coefficient], rng.standard_normal((n_trs + 200, n_series)), axis=0)[
        200:
    ]
