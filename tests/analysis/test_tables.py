import numpy as np
import pytest
import torch

from giblet.analysis.prediction import voxelwise_correlation
from giblet.analysis.regions import Regions, seitzman_networks
from giblet.analysis.tables import knock_out_table, network_table, region_table
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder


def test_table_of_a_planted_response(data, rng):
    """A prediction that knows the answer in one network only."""
    whole = data["all"]
    regions = seitzman_networks(whole.mask_img)
    fmri_pred = rng.standard_normal((whole.n_trs, len(regions.labels))).astype(np.float32)
    known = regions.voxels("Visual")
    fmri_pred[:, known] = whole.fmri()[:, known]
    table = network_table(fmri_pred, whole, regions, n_permute=200)
    assert table.columns.name == "SIMULATED data"
    assert table["n_voxels"].sum() == (regions.labels >= 0).sum()
    assert table["r"]["Visual"] == pytest.approx(1)
    assert table["p"]["Visual"] == 1 / 201
    held_out = np.isin(whole.tr_index, data["test"].tr_index)
    r = regions.mean(voxelwise_correlation(fmri_pred[held_out], data["test"].fmri(), data["test"].run))
    assert np.allclose(table["r"], r, equal_nan=True, atol=1e-6)
    assert np.allclose(table["z"], (table["r"] - table["null_mean"]) / table["null_sd"], equal_nan=True)
    others = table.drop(index="Visual").dropna()
    assert len(others) >= 10
    assert (others["r"].abs() < 0.3).all()


def test_knock_out_of_what_the_model_does_not_use(data, model):
    """A model whose audio weights are 0 loses nothing with the sound, and everything with the rest."""
    deaf = MultimodalAutoencoder(**model.get_config()).eval()
    with torch.no_grad():
        next(deaf.encoder.audio_encoder.parameters()).zero_()
    table = knock_out_table(deaf, data["test"], seitzman_networks(data["test"].mask_img)).dropna()
    assert table.columns.tolist() == ["nothing", "video", "audio", "text"]
    assert np.allclose(table["audio"], table["nothing"], atol=1e-6)
    assert not np.allclose(table["text"], table["nothing"], atol=1e-2)


def test_region_table_against_planted_scores(rng):
    """One region that the model predicts better than the ridge, and one of noise that neither predicts."""
    signal = np.repeat(rng.standard_normal((400, 1)), 6, axis=1)
    fmri = np.concatenate([signal + 0.5 * rng.standard_normal((400, 6)), rng.standard_normal((400, 6))], axis=1)
    text = np.arange(400.0)[:, None]
    data = MultimodalDataset.from_arrays(text=text, fmri=fmri, split="test", average=True)
    regions = Regions(np.array([0] * 6 + [1] * 5 + [-1]), ("driven", "silent"))
    fmri_pred = np.concatenate([signal, rng.standard_normal((400, 6))], axis=1)[data.tr_index]
    ridge_pred = fmri_pred + np.sqrt(3) * rng.standard_normal(fmri_pred.shape)
    reliability = np.array([0.8] * 3 + [1.2] * 3 + [0.3, -0.3, 0.2, -0.2, 0, 1])  # means of 1 and 0
    maps = {
        "reliability": reliability,
        "subject_r": 0.5 * reliability,
        "isc": 0.08 * reliability,
        "q": np.array([0.01] * 3 + [0.3] * 9),
    }
    table = region_table(fmri_pred, ridge_pred, data, regions, maps, n_boot=500)
    driven, silent = table.loc["driven"], table.loc["silent"]
    assert table["n_voxels"].tolist() == [6, 5]
    r = voxelwise_correlation(fmri_pred, data.fmri(), data.run)
    assert driven["r"] == pytest.approx(r[:6].mean())
    assert driven["r"] == pytest.approx(1 / np.sqrt(1.25), abs=0.05)
    assert driven["r/ceiling"] == pytest.approx(driven["r"])
    assert driven["subject r/ISC"] == pytest.approx(np.nan, nan_ok=True)
    assert driven["significant"] == 0.5
    assert driven["low"] < driven["r"] / 2 < driven["high"]  # noise of three times the variance halves r
    assert driven["r - ridge"] == pytest.approx(driven["r"] - driven["ridge r"])
    assert driven["p"] < 0.01
    assert np.isnan([silent["r/ceiling"], silent["subject r/ISC"]]).all()
    assert silent["significant"] == 0
    assert silent["low"] < 0 < silent["high"]


def arrays_data(rng, split: str) -> MultimodalDataset:
    """Two runs of 100 TRs, two subjects, six voxels of noise."""
    arrays = {"text": rng.standard_normal((200, 4)), "fmri": rng.standard_normal((2, 200, 6))}
    return MultimodalDataset.from_arrays(**arrays, runs=[100, 100], split=split, average=True)


def test_network_without_voxels_or_without_variation(rng):
    """Neither has a score; what has one is not touched by them."""
    data = arrays_data(rng, "all")
    regions = Regions(np.array([0, 0, 0, 1, 1, -1]), ("full", "flat", "empty"))
    fmri_pred = rng.standard_normal((len(data), 6))
    fmri_pred[:, 3:5] = 0.1
    table = network_table(fmri_pred, data, regions, n_permute=100)
    assert table["n_voxels"].tolist() == [3, 2, 0]
    scores = table.drop(columns="n_voxels")
    assert scores.loc[["flat", "empty"]].isna().all(axis=None)
    assert scores.loc["full"].notna().all()
    alone = network_table(fmri_pred, data, Regions(regions.labels, ("full",) * 2), n_permute=100)
    assert np.array_equal(alone.iloc[0], table.loc["full"])


def test_network_of_a_prediction_that_only_drifts(rng):
    """A straight line is the same in every window: all draws tie, p is 1, and z is none."""
    data = arrays_data(rng, "all")
    fmri_pred = np.arange(len(data))[:, None] * rng.standard_normal(6)
    regions = Regions(np.array([0, 0, 0, 1, 1, 1]), ("one", "two"))
    table = network_table(fmri_pred.astype(np.float32), data, regions, n_permute=100)
    assert table["p"].tolist() == [1, 1]
    assert table["z"].isna().all()
    assert np.allclose(table["null_mean"], table["r"], atol=1e-6)


def test_identical_models_have_no_difference(rng):
    data = arrays_data(rng, "test")
    regions = Regions(np.array([0, 0, 0, 1, 1, 1]), ("one", "two", "empty"))
    fmri_pred = rng.standard_normal((len(data), 6)).astype(np.float32)
    q = np.array([0.01, 0.3, np.nan, np.nan, np.nan, np.nan])
    maps = {name: np.full(6, 0.5) for name in ("reliability", "subject_r", "isc")} | {"q": q}
    for other in (fmri_pred, 3 * fmri_pred + np.float32(7)):
        table = region_table(fmri_pred, other, data, regions, maps, n_boot=50, block_trs=3)
        assert table["p"][["one", "two"]].tolist() == [1, 1]
        assert table.loc["empty"].drop("n_voxels").isna().all()
        assert table["n_voxels"]["empty"] == 0
        assert table["significant"]["one"] == 0.5
        assert np.isnan(table["significant"]["two"])
