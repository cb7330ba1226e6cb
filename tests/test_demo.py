"""The whole kit on the data of the notebooks: what was planted is found, and nothing else."""

import numpy as np
import pytest

from giblet.analysis.prediction import Prediction
from giblet.data.simulation.tuning import PLANTED
from giblet.regions import seitzman_networks
from giblet.runs import Run, load_or_train


@pytest.fixture(scope="module")
def run(full_simulated) -> Run:
    return load_or_train(full_simulated, progress=False)


@pytest.fixture(scope="module")
def prediction(run) -> Prediction:
    return Prediction(run.model, run.data["test"])


@pytest.fixture(scope="module")
def table(prediction):
    return prediction.network_table(seitzman_networks(prediction.whole.mask_img))


@pytest.mark.parametrize("network", PLANTED)
def test_planted_networks_are_predicted(table, network):
    assert table["z"][network] > 3
    assert table["r"][network] > 0.15


def test_silent_networks_are_not(table):
    silent = table.drop(index=list(PLANTED))
    assert len(silent) == 9
    assert silent["z"].abs().max() < 3


def test_prediction_falls_with_the_modality_a_network_follows(prediction):
    table = prediction.ablation_table(seitzman_networks(prediction.whole.mask_img))
    lost = {name: table["nothing"] - table[name] for name in ("video", "audio", "text")}
    for network, modality in (("Visual", "video"), ("Auditory", "audio"), ("DefaultMode", "text")):
        assert lost[modality][network] > 0.5 * table["nothing"][network]
        for other in {"video", "audio", "text"} - {modality}:
            assert abs(lost[other][network]) < 0.1
    assert all(lost[name]["DorsalAttention"] > 0.02 for name in lost)


def test_reconstruction_is_better_than_the_mean(run):
    """Held-out video and audio from predicted fMRI, against the training mean."""
    test = run.data["test"]
    batch = test[list(range(test.n_trs))]
    outputs = run.model(batch["video"], batch["audio"], batch["text"])
    for name in ("video", "audio"):
        mean = test.train_mean(name)
        error = (outputs[f"{name}_recon"] - batch[name]).square().mean().item()
        assert error < 0.95 * (mean - batch[name]).square().mean().item(), name


def test_training_goes_on_from_where_the_decoder_starts(run):
    """The decoder starts as ridge decoding, so that the total has less to fall."""
    totals = [entry["val"]["total"] for entry in run.history]
    assert np.argmin(totals) > 5
    assert min(totals) < 0.95 * totals[0]
