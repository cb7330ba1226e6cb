import shutil

import numpy as np
import pytest
import torch

from giblet.analysis.prediction import Prediction, predict_fmri
from giblet.analysis.ridge import RidgeEncoder
from giblet.analysis.sources import explained
from giblet.data import MultimodalDataset
from giblet.merging import components_of, merge, readout, smallest_rank
from giblet.runs import Run, load_or_train, load_run
from giblet.training import Trainer, TrainingConfig, load_model
from giblet.training.checkpoint import merged_file

QUICK = TrainingConfig(epochs=4)
N_VOXELS = 500
SETTINGS = {"width": 1 / 16, "bottleneck_dim": 16}


def world(kind: str, n_voxels: int = 60, **settings) -> MultimodalDataset:
    """A stimulus of few latents, and voxels that follow it; 'bent' ones follow their squares."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((600, 4))
    text = latents @ rng.standard_normal((4, 30))
    signal = latents @ rng.standard_normal((4, n_voxels))
    if kind == "bent":
        signal += 2 * (np.square(latents) - 1) @ rng.standard_normal((4, n_voxels))
    fmri = signal / signal.std(0) + rng.standard_normal((3, 600, n_voxels))
    return MultimodalDataset.from_arrays(
        text=text, fmri=fmri, runs=[400, 200], test_runs=[1], average=True, **settings
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """More voxels than TRs: the network is trained in the span, and Layer 5 has its own basis."""
    folder = tmp_path_factory.mktemp("bent") / "run"
    data = world("bent", N_VOXELS)
    return load_or_train(data, TrainingConfig(), folder, progress=False, width=1 / 8)


def test_better_than_ridge_where_responses_are_bent(run):
    prediction = Prediction(run.model, run.data["all"])
    table = prediction.comparison_table(n_boot=200).loc["mean of regions"]
    assert table["model", "r"] > 1.1 * table["ridge", "r"]
    assert table["model", "r"] > table["network", "r"] - 0.01
    assert table["model - ridge", "low"] > 0
    assert table["over subjects", "low"] > 0


def test_no_worse_than_ridge_where_they_are_not(tmp_path):
    """The network is hardly trained; nearly all of the weight goes to ridge regression."""
    run = load_or_train(world("linear"), QUICK, tmp_path / "run", progress=False, **SETTINGS)
    prediction = Prediction(run.model, run.data["all"])
    assert prediction.r.mean() > 0.99 * prediction.ridge_r.mean()
    assert run.model.merged.ridge_weight.mean() > 0.8


def test_the_average_is_of_ridge_and_network_as_they_are_alone(run):
    """In float32, against the two of them on their own; the network's parts stay as trained."""
    merged = run.model.merged
    whole = run.data["all"]
    train = merged_trs(whole)
    ridge = RidgeEncoder.fit(train)
    weight = merged.ridge_weight
    alone = predict_fmri(merged.network, whole)
    want = weight * ridge.predict(whole) + (1 - weight) * alone
    assert np.abs(predict_fmri(run.model, whole) - want).max() < 1e-4 * np.abs(want).max()
    network = load_model(run.folder / "best.pt")
    fmri = torch.from_numpy(whole.fmri()[:10])
    with torch.no_grad():
        for name, value in network.decode_fmri(fmri).items():
            assert torch.equal(run.model.decode_fmri(fmri)[name], value), name


def merged_trs(whole: MultimodalDataset) -> MultimodalDataset:
    """Training and validation TRs."""
    part = whole.select("all")
    rows = np.isin(whole.split_labels[whole.tr_index], ("train", "val"))
    part.tr_index = whole.tr_index[rows]
    part.run = whole.run[rows]
    return part


def test_several_networks(run):
    """Their mean; each has a Layer 5 of its own."""
    networks = [load_model(run.folder / "best.pt") for _ in range(2)]
    with torch.no_grad():
        for parameter in networks[1].core.encoder.parameters():
            parameter.mul_(1.1)
    both = merge(networks, run.data["all"])
    apart = [merge([one], run.data["all"]).merged.network for one in networks]
    batch = run.data["test"][list(range(20))]
    inputs = {name: batch[name] for name in ("video", "audio", "text")}
    with torch.no_grad():
        got = both.merged.network.encoder(**inputs)[0]
        want = sum(one.encoder(**inputs)[0] for one in apart) / 2
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    assert both.get_config()["n_networks"] == 2


def test_what_is_chosen_does_not_see_the_test_trs(run):
    """Other test responses change nothing of the model."""
    data = world("bent", N_VOXELS)
    data.fmri_mean[data.split_labels == "test"] = 0
    network = load_model(run.folder / "best.pt")
    network.trained_on = None
    again = merge([network], data)
    for name, value in run.model.state_dict().items():
        assert torch.allclose(again.state_dict()[name], value, atol=1e-5), name


def test_validated_before_it_saw_the_validation_trs(run):
    """What the predicted brain is shrunk by is no score of fitted TRs."""
    found = explained(run.model, run.data["test"])
    seen = Prediction(None, run.data["all"], "val", predict_fmri(run.model, run.data["all"])).r
    assert found.r.mean() < seen.mean()
    assert np.array_equal(found.r, run.model.merged.explained["r"])
    with pytest.raises(ValueError, match="split is 'val', but Layer 5 of a merged model"):
        Prediction(run.model, run.data["all"], "val")


def test_saved_and_opened_again(run, monkeypatch):
    """By its folder, without solving it again; of `best.pt` the network, which goes on."""
    monkeypatch.setattr("giblet.runs.merge", None)
    again = load_or_train(run.data, run_dir=run.folder, progress=False)
    opened = load_run(run.folder, run.data["all"])
    for other in (again.model, opened.model, load_model(run.folder)):
        assert torch.equal(
            other.core.encoder.to_voxels.weight, run.model.core.encoder.to_voxels.weight
        )
        assert np.array_equal(other.merged.ridge_weight, run.model.merged.ridge_weight)
        assert other.merged.pooling == run.model.merged.pooling
        assert other.merged.network.get_config()["ridge_units"] == 0
    assert load_run(run.folder / "best.pt", run.data["all"]).model.merged is None
    assert again.settings == run.settings
    assert "ridge_units" not in run.settings


def test_a_longer_run_is_merged_anew(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    contents = torch.load(folder / "merged.pt", weights_only=True)
    torch.save(contents | {"epoch": contents["epoch"] + 1}, folder / "merged.pt")
    again = load_run(folder, run.data["all"])
    assert torch.load(folder / "merged.pt", weights_only=True)["epoch"] == contents["epoch"]
    assert torch.allclose(
        again.model.core.encoder.to_voxels.weight,
        run.model.core.encoder.to_voxels.weight,
        atol=1e-5,
    )


def test_another_run_in_the_folder_is_merged_anew(run, tmp_path):
    """As many epochs of another training, after `last.pt` was deleted: not the model of before."""
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    assert merged_file(folder) is not None
    best = torch.load(folder / "best.pt", weights_only=True)
    best["training"]["random_state"] += 1
    torch.save(best, folder / "best.pt")
    assert merged_file(folder) is None


def test_a_merged_model_is_not_trained(run):
    for model in (run.model, run.model.merged.network):
        with pytest.raises(ValueError, match=r"the model is merged .* for evaluation"):
            Trainer(model, run.data["train"], run.data["val"], QUICK)
    with pytest.raises(ValueError, match="unknown setting 'n_networks'"):
        load_or_train(run.data, run_dir="x", n_networks=2)


def test_without_validation_trs(tmp_path, capsys):
    """Nothing says how to weigh the two: the model is the network, and that is said."""
    data = world("bent", fractions=(0.7, 0, 0.3))
    run = load_or_train(data, QUICK, tmp_path / "run", progress=False, **SETTINGS)
    assert run.model.merged is None
    assert "The model is the network alone: the data set has no validation TRs" in (
        capsys.readouterr().out
    )


def test_readout_against_scikit_learn(rng):
    from sklearn.linear_model import Ridge

    features = rng.standard_normal((80, 30)) + 5
    fmri = rng.standard_normal((80, 3))
    rows = np.arange(80) < 60
    beyond = fmri[rows] - fmri[rows].mean(0)
    solved = readout(features[rows], beyond, np.array([0.1, 1.0, 10.0]))
    centred = features[rows] - features[rows].mean(0)
    power = np.square(centred).sum(1).mean()
    for voxel, alpha in enumerate((0.1, 1.0, 10.0)):
        oracle = Ridge(alpha=alpha * power).fit(features[rows], fmri[rows, voxel])
        got = solved(features)[:, voxel] + fmri[rows, voxel].mean()
        assert np.allclose(got, oracle.predict(features), atol=1e-6)


def test_rank_of_ridge_regression(rng):
    """Four latents need four components, however many features and voxels there are."""
    data = world("linear")
    ridge = RidgeEncoder.fit(data)
    part = components_of(ridge, "text", ridge.shrinkage.band_weights[0] / ridge.scales[0])
    val = data.select("val")
    components = part.components(val.stimulus("text", val.tr_index).numpy())
    assert smallest_rank([components], [part.rows], val) == 4
    fmri_pred = components @ part.rows + ridge.mean
    assert np.abs(fmri_pred - ridge.predict(val)).max() < 1e-4 * np.abs(fmri_pred).max()
    assert len(components_of(ridge, "text", np.ones(60), 3).rows) == 3


def test_a_viewer_who_was_left_out_and_one_alone(tmp_path):
    """A model of the others predicts a third viewer; the same call makes one of a single one."""
    data = world("bent")
    *others, last = data.subjects
    rest, viewer = data.of_subjects(others), data.of_subjects([last])
    run = load_or_train(rest, TrainingConfig(), tmp_path / "rest", progress=False, width=1 / 8)
    table = Prediction(run.model, viewer, others=rest).comparison_table(n_boot=100)
    mean = table.loc["mean of regions"]
    assert mean["model", "r"] > 1.05 * mean["ridge", "r"] > 0.2
    assert np.isnan(mean["over subjects", "p"])
    own = load_or_train(viewer, TrainingConfig(), tmp_path / "own", progress=False, width=1 / 8)
    alone = Prediction(own.model, viewer)
    assert alone.r.mean() > 0.3
    assert not np.allclose(alone.ridge, Prediction(run.model, viewer, others=rest).ridge)
