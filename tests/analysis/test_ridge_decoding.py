from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from giblet.analysis.kernels import contiguous_folds
from giblet.analysis.reconstruction import collect, reconstruct
from giblet.analysis.ridge import ALPHAS
from giblet.analysis.ridge_decoding import RidgeDecoder, ridge_batches, ridge_decoder
from giblet.analysis.sources import source_fmri, typical
from giblet.data import MultimodalDataset


@pytest.fixture(scope="module")
def arrays() -> MultimodalDataset:
    """Test TRs of a film, sound and text that drive the first voxels, with context."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((420, 5))
    film = rng.integers(0, 256, (420, 2, 6, 8, 3))
    film[..., :3, :, :] = 128 + (60 * causes[:, 0].clip(-2, 2))[:, None, None, None, None]
    signal = causes @ rng.standard_normal((5, 30))
    return MultimodalDataset.from_arrays(
        video=film.astype(np.uint8),
        audio=causes @ rng.standard_normal((5, 12)) + rng.standard_normal((420, 12)),
        text=causes[:, :3],
        fmri=np.hstack([signal, np.zeros((420, 40))]) + rng.standard_normal((2, 420, 70)),
        runs=[210, 210],
        context=(1, 0),
        split="test",
        average=True,
    )


def direct(dataset: MultimodalDataset, name: str) -> tuple[float, np.ndarray]:
    """The shrinkage by a loop over folds and shrinkages, and what it decodes, in float64."""
    train = dataset.select("train")
    shown = train.stimulus(name, train.tr_index)
    own = train.without_context(name, shown).double().numpy()
    kept = np.ones(len(own), bool) if name != "text" else np.any(own != 0, axis=1)
    train.tr_index, train.run = train.tr_index[kept], train.run[kept]
    x = train.fmri().astype(np.float64)
    y = own[kept]
    x0, y0 = x - x.mean(0), y - y.mean(0)
    scale = np.square(x0).sum() / len(x0)

    def solve(rows: np.ndarray, alpha: float, target: np.ndarray) -> np.ndarray:
        kernel = x0[rows] @ x0[rows].T + alpha * scale * np.eye(len(rows))
        return target @ x0[rows].T @ np.linalg.solve(kernel, y0[rows])

    r2 = []
    for alpha in ALPHAS:
        error = total = 0.0
        for rows, left_out in contiguous_folds(train, 5):
            error += np.square(solve(rows, alpha, x0[left_out]) - y0[left_out]).sum()
            total += np.square(y0[left_out]).sum()
        r2.append(1 - error / total)
    best = ALPHAS[int(np.argmax(r2))]
    target = dataset.fmri() - x.mean(0)
    return best, solve(np.arange(len(x)), best, target) + y.mean(0)


def assert_as_direct(dataset: MultimodalDataset, name: str) -> None:
    decoder = RidgeDecoder.fit(dataset, name)
    alpha, expected = direct(dataset, name)
    assert decoder.alpha == pytest.approx(alpha)
    found = torch.cat(list(decoder.decode(dataset.fmri()))).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["video", "audio", "text"])
def test_decoding_against_a_direct_solution(arrays, data, name):
    assert_as_direct(arrays, name)
    assert_as_direct(data["test"], name)


def test_text_is_learned_from_annotated_trs_alone(data):
    silenced = copy(data["test"])
    text = np.array(silenced.features.text)
    text[np.flatnonzero(silenced.split_labels == "train")[::4]] = 0
    silenced.features = replace(silenced.features, text=text)
    decoder = RidgeDecoder.fit(silenced, "text")
    assert np.any(text[decoder.train.tr_index] != 0, axis=1).all()
    assert len(decoder.dual) < data["all"].select("train").n_trs
    assert_as_direct(silenced, "text")


def test_source_ridge_decodes_the_measured_brain(data, model):
    test = data["test"]
    subject = test.subjects[1]
    mask = np.arange(test.fmri().shape[1]) < 60
    found = collect(reconstruct(model, test, "ridge", subject, mask))
    fmri = source_fmri(model, test, "measured", subject) * mask
    for name in test.present:
        expected = torch.cat(list(RidgeDecoder.fit(test, name).decode(fmri)))
        assert torch.equal(found[name], expected)


def test_fitted_once_for_all_splits(arrays, data):
    decoder = ridge_decoder(arrays, "text")
    assert ridge_decoder(arrays.select("val"), "text") is decoder
    assert ridge_decoder(data["test"], "text") is not decoder


def test_weights_of_a_voxel_are_what_it_adds(arrays):
    decoder = RidgeDecoder.fit(arrays, "text")
    fmri = arrays.fmri()[:1]
    units = np.eye(70, dtype=np.float32)
    nothing = next(decoder.decode(np.zeros_like(fmri)))
    weights = next(decoder.decode(units)) - nothing
    shown = decoder.train.stimulus("text", decoder.train.tr_index).double().numpy()
    assert np.allclose(decoder.weights(np.arange(70)) @ (shown - shown.mean(0)), weights, atol=1e-4)
    whole = next(decoder.decode(fmri))
    assert torch.allclose(whole, nothing + torch.from_numpy(fmri) @ weights, atol=1e-4)


def test_codes_and_absent_modalities(rng):
    given = {"audio": rng.integers(0, 9, (300, 8, 4)), "text": rng.standard_normal((300, 3))}
    test = MultimodalDataset.from_arrays(
        **given, fmri=rng.standard_normal((300, 6)), split="test", average=True
    )
    found = collect(ridge_batches(test, test.fmri()))
    assert torch.equal(found["audio"], typical(test, "audio").expand(test.n_trs, 8, 4))
    assert found["video"].shape == (test.n_trs, 0)
    assert found["text"].shape == (test.n_trs, 3)
