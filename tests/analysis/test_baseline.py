import numpy as np
import pytest
from sklearn.linear_model import Ridge

from giblet.analysis.baseline import (
    correlation_score_split,
    random_split,
    ridge_predictions,
)
from giblet.analysis.correlation import voxelwise_correlation
from giblet.analysis.kernels import contiguous_folds
from giblet.data import MultimodalDataset


@pytest.fixture
def arrays(rng) -> dict:
    """Two runs; four voxels follow video, audio, both, and nothing."""
    video = rng.random((500, 30))
    audio = rng.standard_normal((500, 20))
    signals = [video @ rng.standard_normal(30), audio @ rng.standard_normal(20)]
    signals = [(s - s.mean()) / s.std() for s in signals]
    clean = np.stack([signals[0], signals[1], sum(signals), 0 * signals[0]], axis=1)
    fmri = clean + 0.5 * rng.standard_normal((500, 4))
    return {"video": video, "audio": audio, "fmri": fmri, "runs": [250, 250]}


def splits(arrays: dict, **settings) -> tuple[MultimodalDataset, MultimodalDataset]:
    return tuple(
        MultimodalDataset.from_arrays(**arrays, split=s, average=True, **settings)
        for s in ("train", "test")
    )


def test_one_band_and_one_alpha_against_scikit_learn(arrays):
    arrays.pop("audio")
    train, test = splits(arrays, context=(1, 0))
    parts = ridge_predictions(train, test, alphas=np.array([10.0]))
    x, y = (
        train.stimulus("video", rows).numpy().astype(np.float64)
        for rows in (train.tr_index, test.tr_index)
    )
    centre = x.mean(0)
    scale = ((x - centre) ** 2).sum() / len(x)
    fmri = train.fmri().astype(np.float64)
    oracle = Ridge(alpha=10.0 * scale, fit_intercept=False).fit(x - centre, fmri - fmri.mean(0))
    assert parts.shape == (1, test.n_trs, 4)
    assert np.allclose(parts[0], oracle.predict(y - centre), atol=1e-4)


def test_bands_find_what_each_voxel_follows(arrays):
    train, test = splits(arrays)
    parts = ridge_predictions(train, test)
    fmri = test.fmri()
    split = correlation_score_split(parts, fmri, test.run)
    r = voxelwise_correlation(parts.sum(0), fmri, test.run)
    assert np.allclose(split.sum(0), r, atol=1e-6)
    assert (r[:3] > 0.75).all()
    assert abs(r[3]) < 0.3
    assert split[0, 0] > 0.75 > 0.1 > abs(split[1, 0])
    assert split[1, 1] > 0.75 > 0.1 > abs(split[0, 1])
    assert (split[:, 2] > 0.3).all()


def test_a_shuffled_split_claims_what_is_not_there(rng):
    """Noise as slow as BOLD, and a film that only tells the time: only neighbours leak."""
    clock = np.cos(np.pi * np.outer(np.arange(500) / 500, np.arange(80)))
    noise = np.cumsum(rng.standard_normal((508, 20)), axis=0)
    arrays = {"video": clock, "fmri": noise[8:] - noise[:-8]}
    train, test = splits(arrays)
    whole = MultimodalDataset.from_arrays(**arrays, split="all", average=True)
    leaky_train, leaky_test = random_split(whole)
    assert not set(leaky_train.tr_index) & set(leaky_test.tr_index)
    assert (leaky_train.n_trs, leaky_test.n_trs) == (train.n_trs, test.n_trs)
    honest, leaky = (
        voxelwise_correlation(ridge_predictions(a, b).sum(0), b.fmri(), b.run).mean()
        for a, b in ((train, test), (leaky_train, leaky_test))
    )
    assert abs(honest) < 0.2
    assert leaky > 0.5


def test_short_runs(rng):
    """A fold whose gaps leave no training TR is left out; where all do, that is said."""
    given = {"video": rng.random((126, 3)), "fmri": rng.standard_normal((126, 4))}
    train, test = splits(given | {"runs": [64, 62]})
    assert len(contiguous_folds(train, 5)) == 4
    assert np.isfinite(ridge_predictions(train, test)).all()
    train, test = splits({name: values[:60] for name, values in given.items()})
    with pytest.raises(ValueError, match=r"has \d+ training TRs to choose its shrinkage in, .*gap"):
        ridge_predictions(train, test)
