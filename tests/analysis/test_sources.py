from dataclasses import replace

import numpy as np
import pytest
import torch
from series import autocorrelated

from giblet.analysis.correlation import voxelwise_correlation
from giblet.analysis.identification import pairwise_accuracy
from giblet.analysis.prediction import predict_fmri
from giblet.analysis.reconstruction import decode_batches, similarity
from giblet.analysis.sources import explained, shifted_rows, source_fmri, typical
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.runs import Run, load_or_train
from giblet.training import TrainingConfig, load_model


def test_shift_stays_in_its_run_and_moves_every_tr():
    run = np.repeat([0, 1], [9, 14])
    order = shifted_rows(run)
    assert np.array_equal(np.sort(order), np.arange(23))
    assert np.array_equal(run[order], run)
    assert (np.abs(order - np.arange(23)) >= 4).all()


def test_brains_are_what_they_are_called(data, model):
    test = data["test"]
    measured = test.fmri()
    assert np.array_equal(source_fmri(model, test, "raw"), predict_fmri(model, test))
    assert np.array_equal(source_fmri(model, test, "measured"), measured)
    shifted = source_fmri(model, test, "shifted")
    assert np.array_equal(shifted, measured[shifted_rows(test.run)])


def test_one_subject_and_unknown_ones(data, model):
    test = data["test"]
    name = test.subjects[1]
    own = source_fmri(model, test, "measured", subject=name)
    assert np.array_equal(own, test.features.fmri[1, test.tr_index])
    with pytest.raises(ValueError, match="subject is 'nobody', expected one of sub-01, sub-02"):
        source_fmri(model, test, "measured", subject="nobody")
    with pytest.raises(
        ValueError, match="source is 'ceiling', expected one of raw, noisy, predicted, measured"
    ):
        source_fmri(model, test, "ceiling")


def test_typical_is_the_training_mean(data):
    test = data["test"]
    for name in test.present:
        assert torch.equal(typical(test, name), test.train_mean(name))


N_DRIVEN = 120


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Run:
    """A model of words that drive the first 120 of 420 voxels, by 1.5 SDs of their noise."""
    rng = np.random.default_rng(0)
    causes = autocorrelated(rng, 600, 8, 0.7)
    signal = causes @ rng.standard_normal((8, N_DRIVEN))
    fmri = autocorrelated(rng, 600, 420, 0.4) / np.sqrt(1 / (1 - 0.4**2))
    fmri[:, :N_DRIVEN] += 1.5 * signal / signal.std(0)
    text = causes @ rng.standard_normal((8, 24)) + 0.5 * rng.standard_normal((600, 24))
    data = MultimodalDataset.from_arrays(text=text, fmri=fmri, runs=[300, 300], average=True)
    config = TrainingConfig(epochs=15, learning_rate=4e-3)
    folder = tmp_path_factory.mktemp("planted") / "run"
    settings = {"width": 1 / 16, "bottleneck_dim": 64}
    run = load_or_train(data, config, folder, progress=False, **settings)
    network = load_model(run.folder / "best.pt")  # ridge regression hides less in silent voxels
    return replace(run, model=network)


def identified(run: Run, fmri: np.ndarray, driven: bool) -> float:
    """Two-way identification of test TRs from the driven voxels, or from the silent ones."""
    test = run.data["test"]
    kept = (np.arange(fmri.shape[1]) < N_DRIVEN) == driven
    alike = similarity(decode_batches(run.model, fmri * kept), test, ("text",))["text"]
    accuracy, _ = pairwise_accuracy(alike, test.tr_index, test.run, test.gap)
    return float(np.diag(accuracy).mean())


def test_silent_voxels_of_the_predicted_brain_hide_no_movie(planted):
    """Those of the raw one do: the decoder reads them without noise."""
    test = planted.data["test"]
    brains = {
        source: [source_fmri(planted.model, test, source, random_state=n) for n in range(n_draws)]
        for source, n_draws in (("raw", 1), ("noisy", 1), ("predicted", 4), ("measured", 1))
    }
    silent, driven = (
        {
            source: np.mean([identified(planted, fmri, kept) for fmri in found])
            for source, found in brains.items()
        }
        for kept in (False, True)
    )
    assert silent["raw"] > 0.7
    assert silent["raw"] > silent["noisy"] > silent["predicted"] + 0.06
    assert abs(silent["predicted"] - silent["measured"]) < 0.06
    assert driven["predicted"] > 0.72
    assert driven["measured"] > 0.9


def test_predicted_brain_is_as_loud_as_the_measured_one(planted):
    model, whole = planted.model, planted.data["all"]
    known = explained(model, whole)
    val = planted.data["val"]
    r = voxelwise_correlation(predict_fmri(model, val), val.fmri(), val.run)
    assert np.allclose(known.r, r, atol=1e-5)
    assert np.array_equal(known.gain > 0, known.p < 0.05)
    assert (known.gain[:N_DRIVEN] > 0).mean() > 0.95
    assert (known.gain[N_DRIVEN:] > 0).mean() < 0.12
    raw = source_fmri(model, whole, "raw")
    for source, gain, sd in (
        ("noisy", 1, known.raw_sd),
        ("predicted", known.gain, known.residual_sd),
    ):
        noise = (source_fmri(model, whole, source) - gain * raw) / sd
        assert noise.std(0) == pytest.approx(1, abs=0.15)
        assert np.abs(noise.mean(0)).max() < 0.2
    power = source_fmri(model, whole, "predicted").var(0) / whole.fmri().var(0)
    assert power[:N_DRIVEN].mean() == pytest.approx(1, abs=0.2)
    assert power[N_DRIVEN:].mean() == pytest.approx(1, abs=0.2)


def test_noise_belongs_to_the_tr(planted):
    """Identification asks for whole runs, decoding for one split."""
    model, test, whole = planted.model, planted.data["test"], planted.data["all"]
    rows = np.isin(whole.tr_index, test.tr_index)
    one = source_fmri(model, test, "predicted")
    assert np.allclose(one, source_fmri(model, whole, "predicted")[rows], atol=1e-5)
    assert not np.allclose(one, source_fmri(model, test, "predicted", random_state=1), atol=0.1)


def test_explained_is_kept_until_weights_change(planted):
    model = MultimodalAutoencoder(**planted.data["all"].model_dims, bottleneck_dim=4, width=1 / 64)
    first = explained(model, planted.data["test"])
    assert explained(model, planted.data["val"]) is first
    with torch.no_grad():
        model.encoder.to_voxels.bias += 1
    assert explained(model, planted.data["val"]) is not first


def test_no_validation_trs(rng):
    data = MultimodalDataset.from_arrays(
        text=rng.standard_normal((150, 4)),
        fmri=rng.standard_normal((150, 6)),
        fractions=(0.7, 0, 0.3),
        split="test",
        average=True,
    )
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=4, width=1 / 64)
    with pytest.raises(ValueError, match=r"source is 'predicted', which .* no validation TRs"):
        source_fmri(model, data, "predicted")
    assert source_fmri(model, data, "raw").shape == (data.n_trs, 6)
