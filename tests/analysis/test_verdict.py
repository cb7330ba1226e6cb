import math

import numpy as np
import pytest
import torch

from giblet.analysis.ceiling import inter_subject_correlation, shared_voxels
from giblet.analysis.verdict import judge
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder


def smooth(x: np.ndarray) -> np.ndarray:
    for row in range(1, len(x)):
        x[row] = 0.7 * x[row - 1] + 0.7 * x[row]
    return x


@pytest.fixture
def planted(rng):
    """Ten of twenty voxels follow the text: data sets by split, and the weights of the truth."""
    text = smooth(rng.standard_normal((400, 5)))
    weights = np.concatenate([rng.standard_normal((5, 10)), np.zeros((5, 10))], axis=1)
    noise = np.stack([smooth(rng.standard_normal((400, 20))) for _ in range(4)])
    given = {"text": text, "fmri": text @ weights + noise, "runs": [200, 200], "average": True}
    return {
        split: MultimodalDataset.from_arrays(**given, split=split) for split in ("train", "all")
    }, weights


class Predicts(torch.nn.Module):
    """A model whose encoder is one matrix."""

    trained_on = None

    def __init__(self, weights: np.ndarray):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights, dtype=torch.float32))
        self.encoder = lambda video, audio, text: (text @ self.weights,)


def test_the_truth_is_above_chance(planted):
    data, weights = planted
    verdict = judge(Predicts(weights), data["train"], data["all"])
    assert verdict.above_chance
    assert verdict.p == pytest.approx(1 / 2001)
    assert verdict.n_trs == (data["all"].split_labels == "test").sum()
    assert "better than chance: r 0." in str(verdict)


def test_noise_is_not(planted, rng):
    """Whatever follows the text says nothing about voxels that follow something else."""
    data, weights = planted
    p = []
    for _ in range(40):
        fmri = np.stack([smooth(rng.standard_normal((400, 20))) for _ in range(4)])
        text = smooth(rng.standard_normal((400, 5)))
        given = {"text": text, "fmri": fmri, "runs": [200, 200], "average": True}
        train, whole = (
            MultimodalDataset.from_arrays(**given, split=split) for split in ("train", "all")
        )
        p.append(judge(Predicts(weights), train, whole, n_permute=200).p)
    assert (
        np.mean(np.array(p) < 0.05) < 0.16
    )  # of 40 draws at 5 %: more than six have a chance of .01
    verdict = judge(Predicts(np.zeros((5, 20))), data["train"], data["all"])
    assert math.isnan(verdict.p)
    assert not verdict.above_chance
    assert "cannot be compared with chance" in str(verdict)


def test_sentence_of_a_model_that_learned_nothing(planted):
    data, weights = planted
    verdict = judge(Predicts(-weights), data["train"], data["all"])
    assert "NO BETTER THAN CHANCE: r -0." in str(verdict)


def test_runs_too_short_for_a_null(rng):
    given = {
        "text": rng.standard_normal((90, 5)),
        "fmri": rng.standard_normal((3, 90, 4)),
        "average": True,
    }
    given |= {"runs": [70, 20], "test_runs": [1]}
    train, whole = (
        MultimodalDataset.from_arrays(**given, split=split) for split in ("train", "all")
    )
    verdict = judge(MultimodalAutoencoder(**train.model_dims, width=1 / 64), train, whole)
    assert math.isnan(verdict.p)
    assert -1 < verdict.r < 1


def test_shared_voxels_are_those_that_subjects_have_in_common(planted):
    data, _ = planted
    assert shared_voxels(data["train"]).tolist() == [True] * 10 + [False] * 10
    isc = inter_subject_correlation(data["train"].per_subject()).mean(0)
    assert np.array_equal(shared_voxels(data["train"]), isc > np.median(isc))


def test_all_voxels_of_one_subject(rng):
    data = MultimodalDataset.from_arrays(
        text=rng.standard_normal((100, 3)), fmri=rng.standard_normal((100, 6))
    )
    assert shared_voxels(data).all()
