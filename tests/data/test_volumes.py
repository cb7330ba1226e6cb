"""What was measured is kept, whatever its noise and scale."""

import numpy as np
import pytest
from scipy.signal import lfilter

from giblet.data.volumes import Volumes


def autoregressive(rng, n_trs: int, n_voxels: int) -> np.ndarray:
    noise = rng.standard_normal((n_trs + 50, n_voxels))
    return lfilter([1], [1, -0.95], noise, axis=0)[50:]


NOISE = {
    "white": lambda rng, n: rng.standard_normal((300, n)),
    "autoregressive": lambda rng, n: autoregressive(rng, 300, n),
    "heavy tails": lambda rng, n: rng.standard_t(3, (300, n)),
    "one signal": lambda rng, n: np.repeat(autoregressive(rng, 300, 1), n, axis=1),
    "signal of all": lambda rng, n: 3 * autoregressive(rng, 300, 1) + rng.standard_normal((300, n)),
    "uneven volumes": lambda rng, n: (
        rng.standard_normal((300, n)) * np.exp(0.4 * rng.standard_normal((300, 1)))
    ),
}
SCALES = {
    "z-scored": lambda z: z,
    "with a baseline": lambda z: 1000 + 20 * z,
    "integers": lambda z: np.round(1000 + 20 * z).astype(np.int16),
    "drift": lambda z: (1000 + 20 * z) * np.linspace(0.85, 1.15, 300)[:, None],
    "drift of demeaned voxels": lambda z: z + np.linspace(-6, 6, 300)[:, None],
    "motion": lambda z: z * np.where(np.arange(300) % 37 == 5, 4, 1)[:, None],
    "two runs of another scale": lambda z: z * np.repeat([1, 50], 150)[:, None],
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("scale", SCALES)
def test_what_was_measured_is_kept(rng, noise, scale):
    runs = [slice(0, 150), slice(150, 300)]
    for n_voxels in (1, 2, 5, 9, 10, 40, 5000):
        series = NOISE[noise](rng, n_voxels)
        series = SCALES[scale]((series - series.mean(0)) / series.std(0))
        volumes = Volumes()
        for start in range(0, 300, 64):
            volumes.add(series[start : start + 64])
        left_out = volumes.left_out(runs)
        del left_out["repeat a neighbour"]  # a voxel of integers does
        assert {reason: trs.sum() for reason, trs in left_out.items() if trs.any()} == {}


def test_coarse_integers_are_alike_by_chance(rng):
    series = np.round(rng.standard_normal((300, 10)) / 2).astype(np.int16)
    volumes = Volumes()
    volumes.add(series)
    assert (series == series[:, :1]).all(1).any()
    assert not any(trs.any() for trs in volumes.left_out([slice(0, 300)]).values())
