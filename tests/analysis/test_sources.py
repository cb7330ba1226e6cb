import numpy as np
import pytest
import torch

from giblet.analysis.prediction import predict_fmri
from giblet.analysis.sources import shifted_rows, source_fmri, typical


def test_shift_stays_in_its_run_and_moves_every_tr():
    run = np.repeat([0, 1], [9, 14])
    order = shifted_rows(run)
    assert np.array_equal(np.sort(order), np.arange(23))
    assert np.array_equal(run[order], run)
    assert (np.abs(order - np.arange(23)) >= 4).all()


def test_brains_are_what_they_are_called(data, model):
    test = data["test"]
    measured = test.fmri()
    assert np.array_equal(source_fmri(model, test, "predicted"), predict_fmri(model, test))
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
        ValueError, match="source is 'ceiling', expected one of predicted, measured, shifted"
    ):
        source_fmri(model, test, "ceiling")


def test_typical_is_the_training_mean(data):
    test = data["test"]
    for name in test.present:
        assert torch.equal(typical(test, name), test.train_mean(name))
