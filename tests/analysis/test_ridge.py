import numpy as np
import pytest
from himalaya.kernel_ridge import KernelRidgeCV, MultipleKernelRidgeCV
from himalaya.scoring import l2_neg_loss

from giblet.analysis.ridge import (
    ALPHAS,
    RidgeEncoder,
    Shrinkage,
    _band_weights,
    choose_shrinkage,
    fold_errors,
    pooled,
    principal_components,
    solve_dual,
)
from giblet.data import MultimodalDataset

N_TRS, N_VOXELS = 300, 12


@pytest.fixture
def kernels(rng) -> np.ndarray:
    """Of two bands of 20 and 30 features, each of mean power 1, centred."""
    found = []
    for n_features in (20, 30):
        x = rng.standard_normal((N_TRS, n_features))
        x -= x.mean(0)
        kernel = x @ x.T
        found.append(kernel / np.trace(kernel) * N_TRS)
    return np.stack(found)


@pytest.fixture
def fmri(kernels, rng) -> np.ndarray:
    """Voxels of two regions: the first follows one band, the second the other."""
    first, second = (
        np.linalg.cholesky(kernel + 1e-6 * np.eye(N_TRS)) @ rng.standard_normal((N_TRS, 6))
        for kernel in kernels
    )
    signal = np.concatenate([first, second], axis=1)
    noise = rng.standard_normal(signal.shape)
    return (signal - signal.mean(0) + noise - noise.mean(0)).astype(np.float32)


FOLDS = [
    (np.setdiff1d(np.arange(N_TRS), block), block) for block in np.array_split(np.arange(N_TRS), 5)
]
REGIONS = np.repeat([0, 1], 6)


def test_errors_and_dual_against_himalaya(kernels, fmri):
    """One band: what is missed, the best alphas and the weights that they give."""
    equal = np.ones((1, 1))
    errors = fold_errors(kernels[:1], fmri, FOLDS, equal, ALPHAS)
    search = KernelRidgeCV(
        ALPHAS,
        kernel="precomputed",
        cv=FOLDS,
        fit_intercept=True,
        solver_params={"score_func": l2_neg_loss},
    )
    search.fit(kernels[0], fmri.astype(np.float64))
    best = ALPHAS[errors[0].sum(0).argmin(0)]
    assert np.allclose(best, search.best_alphas_)
    wanted = -search.cv_scores_ * N_TRS  # they are means over TRs
    assert np.allclose(errors[0].sum(0).min(0), wanted, rtol=1e-3)
    centred = fmri - fmri.mean(0)
    dual = solve_dual(kernels[:1], centred, Shrinkage(np.ones((1, 12)), best, ("all", "voxel")))
    oracle = np.stack(
        [
            np.linalg.solve(kernels[0] + alpha * np.eye(N_TRS), one)
            for alpha, one in zip(best, centred.T.astype(np.float64), strict=True)
        ],
        axis=1,
    )
    assert np.allclose(dual, oracle, rtol=1e-6, atol=1e-8)


def test_bands_against_himalaya(kernels, fmri):
    """Two bands and weights of each voxel's own: himalaya's weights predict the same."""
    weights = np.array([[0.5, 0.5], [1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9]])
    errors = fold_errors(kernels, fmri, FOLDS, weights, ALPHAS).sum(1)
    search = MultipleKernelRidgeCV(
        "precomputed",
        cv=FOLDS,
        solver_params={
            "n_iter": weights[3:],
            "alphas": ALPHAS,
            "score_func": l2_neg_loss,
            "progress_bar": False,
        },
    )
    search.fit(kernels, fmri.astype(np.float64))
    voxels = np.arange(12)
    weight, alpha = np.unravel_index(errors[3:].reshape(-1, 12).argmin(0), errors[3:].shape[:2])
    found = Shrinkage(weights[3 + weight].T, ALPHAS[alpha], ("voxel", "voxel"))
    own = solve_dual(kernels, fmri - fmri.mean(0), found)
    shares = np.einsum("bij,bv,jv->iv", kernels, found.band_weights, own)
    want = search.predict(kernels)
    assert np.allclose(shares[:, voxels], want - want.mean(0), atol=0.02)


def test_pooling_is_chosen_where_it_predicts(kernels, fmri):
    """Two regions that follow a band each are not pooled; noisy copies of a voxel are."""
    weights = np.array([[0.5, 0.5], [1, 0], [0, 1]])
    apart = choose_shrinkage(kernels, fmri, FOLDS, weights, ALPHAS, REGIONS)
    assert apart.pooling[0] == "region"
    assert np.array_equal(apart.band_weights, np.eye(2)[REGIONS].T)
    rng = np.random.default_rng(1)
    same = fmri[:, :1] + 2 * rng.standard_normal((N_TRS, 12)).astype(np.float32)
    together = choose_shrinkage(kernels, same, FOLDS, weights, ALPHAS, REGIONS)
    assert together.pooling in (("all", "all"), ("region", "region"))


def test_choices_are_judged_on_folds_they_did_not_see(kernels):
    """In noise, choices of each voxel's own fit their folds best, and are not taken."""
    noise = np.random.default_rng(2).standard_normal((N_TRS, 12)).astype(np.float32)
    weights = np.random.default_rng(3).dirichlet(np.ones(2), 30)
    total = fold_errors(kernels, noise, FOLDS, weights, ALPHAS).sum(1)
    own = total.reshape(-1, 12).min(0).sum()
    shared = total.sum(-1).min()
    assert own < shared
    found = choose_shrinkage(kernels, noise, FOLDS, weights, ALPHAS, REGIONS)
    assert found.pooling != ("voxel", "voxel")


def test_lattice_of_band_weights():
    """Equal weights, each band alone, and every mixture in quarters."""
    assert _band_weights(1).tolist() == [[1]]
    assert _band_weights(2)[:, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    three = _band_weights(3)
    assert len(three) == 16
    assert np.allclose(three.sum(1), 1)
    assert {(1, 0, 0), (0.5, 0, 0.5), (0.25, 0.5, 0.25), (1 / 3, 1 / 3, 1 / 3)} <= set(
        map(tuple, three)
    )


def test_principal_components(kernels, fmri):
    """Against an SVD of what a band adds; a kernel with other TRs predicts as the dual does."""
    dual = solve_dual(kernels[:1], fmri, Shrinkage(np.ones((1, 12)), np.ones(12), ("all", "all")))
    weight = np.linspace(0.5, 2, 12)
    want = kernels[0] @ (dual * weight)
    components, rows = principal_components(kernels[0], dual, weight)
    assert np.allclose(kernels[0] @ components @ rows, want, atol=1e-5 * np.abs(want).max())
    power = np.linalg.svd(want, compute_uv=False)
    assert np.allclose(np.linalg.norm(rows, axis=1), power / np.sqrt(N_TRS), rtol=1e-5)
    few, few_rows = principal_components(kernels[0], dual, weight, 3)
    left = np.linalg.norm(want - kernels[0] @ few @ few_rows)
    assert np.isclose(left, np.linalg.norm(power[3:]), rtol=1e-5)
    none, no_rows = principal_components(kernels[0], dual, np.zeros(12))
    assert (none.shape, no_rows.shape) == ((N_TRS, 0), (0, 12))


def test_pooled_sums():
    values = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(pooled(values, np.array([0, 1, 0])), [[2, 1, 2], [8, 4, 8]])
    assert pooled(values, None) is values


def test_codes_are_no_band(rng):
    given = {"fmri": rng.standard_normal((300, 4)), "audio": rng.integers(0, 9, (300, 8, 5))}
    both = MultimodalDataset.from_arrays(**given, text=rng.random((300, 6)), average=True)
    assert RidgeEncoder.fit(both).bands == ("text",)
    codes = MultimodalDataset.from_arrays(**given, average=True)
    with pytest.raises(ValueError, match="audio as codes, expected one that is an amount"):
        RidgeEncoder.fit(codes)
