from copy import deepcopy

import numpy as np
import pytest
import torch

from giblet.analysis.fields import N_TRS, field_centres, receptive_fields
from giblet.analysis.ridge_decoding import RidgeDecoder
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder

VOXELS = [3, 0, 40]
LIGHT = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module", params=[(0, 0), (1, 1)])
def colour(request) -> MultimodalDataset:
    """Colour film whose lights drive voxels, without and with context; any split will do."""
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (420, 2, 6, 8, 3)).astype(np.uint8)
    signal = film.reshape(420, -1) @ rng.standard_normal((288, 50)) / 1000
    return MultimodalDataset.from_arrays(
        video=film,
        fmri=signal + rng.standard_normal((2, 420, 50)),
        runs=[210, 210],
        context=request.param,
        split="test",
        average=True,
    )


def training_lights(dataset: MultimodalDataset) -> tuple[np.ndarray, np.ndarray]:
    """Training responses less their mean, and mean light of each TR less its mean, in float64."""
    trained = dataset.split_labels == "train"
    film = dataset.features.video[trained].reshape(trained.sum(), 2, 6, 8, 3) / 255
    lights = (film @ LIGHT).mean(1)
    responses = dataset.fmri_mean[trained].astype(np.float64)
    return responses - responses.mean(0), lights - lights.mean(0)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_covariance(colour):
    responses, lights = training_lights(colour)
    expected = np.einsum("tv,tyx->vyx", responses[:, VOXELS], lights) / len(responses)
    assert_close(receptive_fields(None, colour, VOXELS, "covariance"), expected)


def test_weights_of_ridge_decoding(colour):
    """In the primal: (X'X + alpha I)^-1 X'Y of all voxels together."""
    responses, lights = training_lights(colour)
    scale = np.square(responses).sum() / len(responses)
    alpha = RidgeDecoder.fit(colour, "video").alpha * scale
    gram = responses.T @ responses + alpha * np.eye(50)
    expected = np.linalg.solve(gram, responses.T @ lights.reshape(len(lights), -1))
    found = receptive_fields(None, colour, np.array(VOXELS), "ridge")
    assert_close(found, expected.reshape(50, 6, 8)[VOXELS])


def finite_differences(model: MultimodalAutoencoder, train: MultimodalDataset) -> np.ndarray:
    """Mean slope of the decoded light with each voxel: (n, height, width), in float64."""
    exact = deepcopy(model).double().eval()
    rows = np.linspace(0, train.n_trs - 1, min(N_TRS, train.n_trs)).astype(int)
    fmri = torch.from_numpy(train.fmri()[rows]).double()
    video = train.video_processor
    fields = []
    for voxel in VOXELS:
        decoded = []
        for step in (1e-5, -1e-5):
            moved = fmri.clone()
            moved[:, voxel] += step
            with torch.no_grad():
                recon = exact.decode_fmri(moved)["video_recon"]
            own = train.without_context("video", recon).numpy()
            frames = own.reshape(len(own), -1, *video.frame_shape).mean((0, 1))
            decoded.append(frames @ LIGHT if video.colour else frames)
        fields.append((decoded[0] - decoded[1]) / 2e-5)
    return np.stack(fields)


def assert_slopes(model: MultimodalAutoencoder, dataset: MultimodalDataset) -> None:
    expected = finite_differences(model, dataset.select("train", average=True))
    assert_close(receptive_fields(model, dataset, VOXELS), expected)


def test_decoder_against_finite_differences(colour, data, model, span_model):
    torch.manual_seed(0)
    widths = {"bottleneck_dim": 8, "width": 1 / 64}
    assert_slopes(MultimodalAutoencoder(**colour.model_dims, **widths), colour)
    assert_slopes(model, data["test"])
    assert_slopes(span_model, data["test"])


def test_centres_of_planted_fields(rng):
    """Fields that are blobs, whatever is subtracted around them."""
    down, across = np.mgrid[:36, :64]
    centres = rng.uniform((0.2, 0.2), (0.8, 0.8), (20, 2))
    x = (across + 0.5) / 64 - centres[:, 0, None, None]
    y = (down + 0.5) / 36 - centres[:, 1, None, None]
    fields = np.exp(-(np.square(x) + np.square(y)) / (2 * 0.05**2))
    assert np.abs(field_centres(fields) - centres).max() < 0.002
    surround = np.exp(-(np.square(x) + np.square(y)) / (2 * 0.1**2))
    assert np.abs(field_centres(7 * (fields - 0.5 * surround)) - centres).max() < 0.02
    assert np.isfinite(field_centres(-fields)).all()


def test_refusals(colour, rng):
    with pytest.raises(ValueError, match="of is 'weights', expected one of decoder, ridge, covar"):
        receptive_fields(None, colour, VOXELS, "weights")
    words = MultimodalDataset.from_arrays(
        text=rng.standard_normal((300, 3)), fmri=rng.standard_normal((300, 6)), average=True
    )
    with pytest.raises(ValueError, match="no pictures for receptive fields: take data with a film"):
        receptive_fields(None, words, VOXELS)
