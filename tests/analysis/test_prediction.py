import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from giblet.analysis.ceiling import (
    inter_subject_correlation,
    prediction_ceiling,
    split_half_reliability,
)
from giblet.analysis.chance import fdr, voxelwise_null
from giblet.analysis.correlation import r2_score, subject_correlations, voxelwise_correlation
from giblet.analysis.prediction import Prediction, network_table, predict_fmri
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.regions import Regions, seitzman_networks

REGION_COLUMNS = ["n_voxels", "r", "ceiling", "r/ceiling", "subject r", "ISC", "subject r/ISC"]
REGION_COLUMNS += ["significant", "ridge r", "r - ridge", "low", "high", "p"]


def test_predictions_in_order_and_without_dropout(data, model):
    model.train()
    fmri_pred = predict_fmri(model, data["test"], batch_size=4)
    model.eval()
    for index in (0, 5, len(data["test"]) - 1):
        item = data["test"][index]
        with torch.no_grad():
            direct, _ = model.encoder(item["video"][None], item["audio"][None], item["text"][None])
        assert np.allclose(fmri_pred[index], direct[0], atol=1e-5)
    assert fmri_pred.dtype == np.float32


def test_a_dropped_modality_is_its_training_mean(data, model):
    item = data["test"][3]
    model = model.eval()
    mean = data["test"].train_mean("audio")
    with torch.no_grad():
        direct, _ = model.encoder(item["video"][None], mean[None], item["text"][None])
    assert np.allclose(predict_fmri(model, data["test"], drop=["audio"])[3], direct[0], atol=1e-5)
    everything = predict_fmri(model, data["test"], drop=["video", "audio", "text"])
    assert np.allclose(everything, everything[0], atol=1e-6)


def test_ablation_of_what_the_model_does_not_use(data, model):
    """A model whose audio weights are 0 loses nothing with the sound."""
    deaf = MultimodalAutoencoder(**model.get_config()).eval()
    with torch.no_grad():
        next(deaf.encoder.audio_encoder.parameters()).zero_()
    table = Prediction(deaf, data["test"]).ablation_table().dropna()
    assert table.columns.tolist() == ["nothing", "video", "audio", "text"]
    assert np.allclose(table["audio"], table["nothing"], atol=1e-6)
    assert not np.allclose(table["text"], table["nothing"], atol=1e-3)


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
    r = regions.mean(
        voxelwise_correlation(fmri_pred[held_out], data["test"].fmri(), data["test"].run)
    )
    assert np.allclose(table["r"], r, equal_nan=True, atol=1e-6)
    assert np.allclose(
        table["z"], (table["r"] - table["null_mean"]) / table["null_sd"], equal_nan=True
    )
    others = table.drop(index="Visual").dropna()
    assert len(others) >= 10
    assert (others["r"].abs() < 0.3).all()


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


def test_region_table_against_planted_scores(rng):
    """One region that the model predicts better than ridge, and one of noise."""
    signal = np.repeat(rng.standard_normal((400, 1)), 6, axis=1)
    fmri = np.concatenate(
        [signal + 0.5 * rng.standard_normal((400, 6)), rng.standard_normal((400, 6))], axis=1
    )
    text = np.arange(400.0)[:, None]
    data = MultimodalDataset.from_arrays(text=text, fmri=fmri, split="test", average=True)
    regions = Regions(np.array([0] * 6 + [1] * 5 + [-1]), ("driven", "silent"))
    whole = data.select("all")
    series = np.concatenate([signal, rng.standard_normal((400, 6))], axis=1)[whole.tr_index]
    prediction = Prediction(None, data, fmri_pred=series)
    fmri_pred = prediction.held_out_pred
    ridge_pred = fmri_pred + np.sqrt(3) * rng.standard_normal(fmri_pred.shape)
    reliability = np.array([0.8] * 3 + [1.2] * 3 + [0.3, -0.3, 0.2, -0.2, 0, 1])  # means of 1 and 0
    found = {
        "ridge": ridge_pred[None],
        "reliability": reliability,
        "subject_r": 0.5 * reliability[None],
        "isc": 0.08 * reliability[None],
    }
    vars(prediction).update(found)
    p = np.array([0.001] * 3 + [0.9] * 9)
    prediction._nulls["voxels", 2000, 0] = p
    table = prediction.region_table(regions, n_boot=500)
    assert table.columns.tolist() == REGION_COLUMNS
    driven = table.loc["driven"]
    silent = table.loc["silent"]
    assert table["n_voxels"].tolist() == [6, 5]
    r = voxelwise_correlation(fmri_pred, data.fmri(), data.run)
    assert driven["r"] == pytest.approx(r[:6].mean())
    assert driven["r"] == pytest.approx(1 / np.sqrt(1.25), abs=0.05)
    assert driven["r/ceiling"] == pytest.approx(driven["r"])
    assert driven["subject r/ISC"] == pytest.approx(np.nan, nan_ok=True)
    assert driven["significant"] == 0.5
    # Noise of three times the variance halves r.
    assert driven["low"] < driven["r"] / 2 < driven["high"]
    assert driven["r - ridge"] == pytest.approx(driven["r"] - driven["ridge r"])
    assert driven["p"] < 0.01
    assert np.isnan([silent["r/ceiling"], silent["subject r/ISC"]]).all()
    assert silent["significant"] == 0
    assert silent["low"] < 0 < silent["high"]


def test_identical_models_have_no_difference(rng):
    data = arrays_data(rng, "test")
    regions = Regions(np.array([0, 0, 0, 1, 1, 1]), ("one", "two", "empty"))
    series = rng.standard_normal((data.select("all").n_trs, 6)).astype(np.float32)
    prediction = Prediction(None, data, fmri_pred=series)
    fmri_pred = prediction.held_out_pred
    found = {"reliability": np.full(6, 0.5)}
    found |= {name: np.full((2, 6), 0.5) for name in ("subject_r", "isc")}
    vars(prediction).update(found)
    p = np.array([0.001, 0.9, np.nan, np.nan, np.nan, np.nan])
    prediction._nulls["voxels", 2000, 0] = p
    for other in (fmri_pred, 3 * fmri_pred + np.float32(7)):
        vars(prediction).pop("ridge_r", None)
        vars(prediction)["ridge"] = other[None]
        table = prediction.region_table(regions, n_boot=50, block_trs=3)
        assert table["p"][["one", "two"]].tolist() == [1, 1]
        assert table.loc["empty"].drop("n_voxels").isna().all()
        assert table["n_voxels"]["empty"] == 0
        assert table["significant"]["one"] == 0.5
        assert np.isnan(table["significant"]["two"])


@pytest.fixture(scope="module")
def prediction(data, model) -> Prediction:
    return Prediction(model.eval(), data["test"])


def test_prediction_scores_its_held_out_trs(prediction, data, model):
    test = data["test"]
    fmri_pred = predict_fmri(model, data["all"])
    held_out = np.isin(data["all"].tr_index, test.tr_index)
    assert np.array_equal(prediction.fmri_pred, fmri_pred)
    assert np.array_equal(prediction.held_out_trs, held_out)
    r = voxelwise_correlation(fmri_pred[held_out], test.fmri(), test.run)
    assert np.array_equal(prediction.r, r, equal_nan=True)
    subject_r = subject_correlations(fmri_pred[held_out], test.per_subject())
    assert np.array_equal(prediction.subject_r, subject_r, equal_nan=True)
    isc = inter_subject_correlation(test.per_subject())
    assert np.array_equal(prediction.isc, isc, equal_nan=True)
    r2 = r2_score(fmri_pred[held_out], test.fmri(), test.run)
    assert np.array_equal(prediction.r2, r2, equal_nan=True)
    reliability = split_half_reliability(test.per_subject())
    assert np.array_equal(prediction.reliability, reliability, equal_nan=True)
    ceiling = prediction_ceiling(reliability)
    assert np.array_equal(prediction.ceiling, ceiling, equal_nan=True)
    val = Prediction(model, test, "val")
    assert set(val.held_out.split_labels[val.held_out.tr_index]) == {"val"}


def test_null_of_a_prediction_is_that_of_its_voxels(prediction, data):
    whole = data["all"]
    clock = (whole.run, prediction.held_out_trs, whole.gap)
    _, p = voxelwise_null(prediction.fmri_pred, whole.fmri(), *clock, 50, 3)
    assert np.array_equal(prediction.null(50, random_state=3), p, equal_nan=True)
    assert np.array_equal(prediction.q(50, random_state=3), fdr(p), equal_nan=True)


def test_table_of_a_prediction_is_that_of_its_series(prediction, data):
    whole = data["all"]
    table = prediction.network_table(n_permute=30, random_state=2)
    regions = seitzman_networks(whole.mask_img)
    assert table.equals(network_table(prediction.fmri_pred, whole, regions, 30, 2))
    table["r"] = 0.0
    assert not prediction.network_table(n_permute=30, random_state=2).equals(table)
    val = Prediction(None, whole, "val", prediction.fmri_pred)
    expected = network_table(prediction.fmri_pred, whole, regions, 30, split="val")
    assert val.network_table(n_permute=30).equals(expected)


def test_ridge_of_a_prediction_adds_up(rng):
    """The shares of two modalities against r of their joint prediction."""
    stimuli = {name: rng.standard_normal((400, 3)) for name in ("audio", "text")}
    fmri = rng.standard_normal((2, 400, 5)) + stimuli["text"] @ rng.standard_normal((3, 5))
    data = MultimodalDataset.from_arrays(**stimuli, fmri=fmri, split="all", average=True)
    prediction = Prediction(None, data, fmri_pred=np.zeros((data.n_trs, 5)))
    assert prediction.ridge.shape == (2, *prediction.held_out.fmri().shape)
    assert prediction.ridge_r.mean() > 0.3
    table = prediction.ridge_table()
    assert table.columns.tolist() == ["audio", "text"]
    assert np.allclose(table.sum(axis=1), prediction.ridge_r, atol=1e-6)


def test_one_subject_has_no_ceiling(rng):
    arrays = {"text": rng.standard_normal((200, 4)), "fmri": rng.standard_normal((200, 6))}
    data = MultimodalDataset.from_arrays(**arrays, runs=[100, 100], split="all", average=True)
    alone = Prediction(None, data, fmri_pred=rng.standard_normal((data.n_trs, 6)))
    table = alone.region_table(n_permute=20, n_boot=20, block_trs=3)
    assert table[["ceiling", "ISC", "r/ceiling", "subject r/ISC"]].isna().all(axis=None)
    assert table[["r", "ridge r", "subject r"]].notna().all(axis=None)
    assert np.isnan(alone.ceiling).all()
    assert np.isnan(alone.isc).all()


def test_split_of_training_is_refused(data, model):
    with pytest.raises(ValueError, match="split is 'train', expected 'test' or 'val'"):
        Prediction(model, data["all"], "train")
    series = np.zeros((data["all"].n_trs, data["all"].model_dims["n_voxels"]))
    regions = seitzman_networks(data["all"].mask_img)
    with pytest.raises(ValueError, match="split is 'train', expected 'test' or 'val'"):
        network_table(series, data["all"], regions, split="train")


def test_prediction_made_elsewhere_has_no_model(data, rng):
    series = rng.standard_normal((data["all"].n_trs, data["all"].model_dims["n_voxels"]))
    elsewhere = Prediction(None, data["all"], fmri_pred=series)
    with pytest.raises(ValueError, match="made elsewhere"):
        elsewhere.ablation_table()


def test_files_of_a_prediction(prediction, tmp_path):
    prediction.save(tmp_path, n_permute=30)
    mask = np.asarray(prediction.whole.mask_img.dataobj) > 0
    r, q = (nib.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in "rq")
    assert np.allclose(r[mask], np.nan_to_num(prediction.r), atol=1e-6)
    assert np.allclose(q[mask], np.nan_to_num(prediction.q(30), nan=1), atol=1e-6)
    assert (r[~mask] == 0).all()
    assert (q[~mask] == 1).all()
    table = pd.read_csv(tmp_path / "prediction.csv", index_col=0)
    assert table["simulated from"]["Visual"] == "pictures"
    assert table.index.tolist() == list(prediction.regions.names)
