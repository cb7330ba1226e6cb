import numpy as np

from giblet.analysis.averaging import network_share, ridge_weight

N_TRS = 200
RUN = np.zeros(N_TRS, int)


def two_predictions(rng, ridge_noise, network_noise, n_voxels: int = 50):
    fmri = rng.standard_normal((N_TRS, n_voxels))
    ridge = fmri + ridge_noise * rng.standard_normal(fmri.shape)
    return ridge, fmri + network_noise * rng.standard_normal(fmri.shape), fmri


def test_weight_of_smallest_error(rng):
    """Against a search over weights, where there is plenty of evidence; between 0 and 1."""
    ridge, network, fmri = two_predictions(rng, 2, 1)
    got = ridge_weight(ridge, network, fmri, np.zeros(50, int), RUN)
    tried = np.linspace(0, 1, 101)
    errors = [np.square(w * ridge + (1 - w) * network - fmri).sum() for w in tried]
    assert np.allclose(got, tried[np.argmin(errors)], atol=0.02)
    groups = np.arange(50)
    assert np.array_equal(ridge_weight(fmri, network, fmri, groups, RUN), np.ones(50))
    assert np.allclose(ridge_weight(ridge, fmri, fmri, groups, RUN), 0, atol=1e-12)
    assert np.array_equal(ridge_weight(ridge, ridge, fmri, groups, RUN), np.ones(50))


def test_one_weight_where_all_voxels_are_alike(rng):
    given = two_predictions(rng, 1.5, 1.5)
    weight = ridge_weight(*given, np.arange(50), RUN)
    assert np.ptp(weight) == 0
    assert abs(weight[0] - 0.5) < 0.05


def test_a_weight_for_each_region_where_they_differ(rng):
    """The network is good in one region, noise in the other."""
    groups = (np.arange(50) < 10).astype(int)
    network_noise = np.where(groups, 0.3, 5)
    weight = ridge_weight(*two_predictions(rng, 1, network_noise), groups, RUN)
    assert weight[groups == 1].max() < 0.2
    assert weight[groups == 0].min() > 0.9
    assert len(np.unique(weight)) == 2


def test_without_evidence_it_is_ridge_regression(rng):
    """A network that is as likely to help as to harm gets nothing, at most by chance a little."""
    weights = []
    for _ in range(40):
        ridge, network, fmri = two_predictions(rng, 1, 1, 1)
        network = ridge + rng.standard_normal(fmri.shape)
        weights.append(ridge_weight(ridge, network, fmri, np.zeros(1, int), RUN)[0])
    assert np.mean(np.array(weights) == 1) > 0.8
    assert np.mean(weights) > 0.98


def test_share_of_a_network(rng):
    """What the price takes away, with the jackknife written out."""
    along, power = rng.standard_normal((9, 4)) + 2, rng.random((9, 4)) + 5
    plain = along.sum(0) / power.sum(0)
    others = [np.arange(9) != block for block in range(9)]
    left_out = np.array([along[rows].sum(0) / power[rows].sum(0) for rows in others])
    variance = 8 / 9 * np.square(left_out - left_out.mean(0)).sum(0)
    assert np.allclose(network_share(along, power), plain - 2 * variance / plain)
    assert np.array_equal(network_share(-along, power), np.zeros(4))
