import numpy as np
import pytest
from nilearn.glm.first_level.hemodynamic_models import glover_hrf
from scipy.integrate import quad

from giblet.alignment import convolve_hrf, hrf_kernel
from giblet.alignment.hrf import HRF_SECONDS


@pytest.mark.parametrize("model", ["glover", "spm"])
@pytest.mark.parametrize("tr", [0.8, 1.5, 2.0])
def test_impulse_is_answered_later_and_only_later(tr, model):
    signal = np.zeros((120, 2))
    signal[50, 0] = 1
    response = convolve_hrf(signal, tr, model)
    assert np.all(response[:50] == 0)
    assert np.all(response[:, 1] == 0)
    peak = (np.argmax(response[:, 0]) - 50) * tr
    assert 4 - tr <= peak <= 6 + tr  # a response peaks about five seconds after its stimulus
    assert np.argmax(hrf_kernel(tr, model)) * tr == pytest.approx(peak)


def test_kernel_against_the_integral_of_the_response():
    """Mean BOLD in TR k after one TR of stimulation, by quadrature over nilearn's fine response."""
    tr = 1.5
    fine = glover_hrf(1.5, oversampling=1500, time_length=32.0)
    seconds = np.arange(len(fine)) * 0.001

    def response(t):  # to stimulation from 0 to tr
        return np.sum(fine[(seconds > t - tr) & (seconds <= t)])

    direct = np.array(
        [quad(response, k * tr, (k + 1) * tr, limit=200, epsabs=1e-4)[0] for k in range(16)]
    )
    kernel = hrf_kernel(tr, oversampling=64)[:16]
    assert np.allclose(kernel / kernel.max(), direct / direct.max(), atol=0.02)


@pytest.mark.parametrize("model", ["glover", "spm"])
def test_kernel_has_sum_one_and_ends(model):
    kernel = hrf_kernel(1.5, model)
    assert kernel.sum() == pytest.approx(1)
    assert np.abs(kernel[round(HRF_SECONDS / 1.5) + 1 :]).max() < 0.01 * kernel.max()


def test_steady_stimulus_gives_steady_response():
    assert convolve_hrf(np.ones((60, 1)), 1.5)[-1, 0] == pytest.approx(1)


def test_unknown_model():
    with pytest.raises(ValueError, match=r"model is 'gamma', expected one of \['glover', 'spm'\]"):
        hrf_kernel(1.5, "gamma")
