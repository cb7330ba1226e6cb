import numpy as np
import torch

from giblet.analysis.kernels import contiguous_folds, stimulus_kernel
from giblet.data import MultimodalDataset


def test_folds_are_contiguous_and_apart(rng):
    given = {"video": rng.random((500, 30)), "fmri": rng.standard_normal((500, 4))}
    train = MultimodalDataset.from_arrays(**given, runs=[250, 250], average=True)
    folds = contiguous_folds(train, 5)
    assert np.array_equal(
        np.concatenate([held_out for _, held_out in folds]), np.arange(train.n_trs)
    )
    for fitted, held_out in folds:
        for index in held_out:
            near = (train.run[fitted] == train.run[index]) & (
                abs(train.tr_index[fitted] - train.tr_index[index]) <= train.gap
            )
            assert not near.any()
        assert len(fitted) > 0.5 * train.n_trs


def test_kernel_of_what_a_model_reads(rng):
    """`read` takes the place of the features."""
    given = {"fmri": rng.standard_normal((300, 4)), "text": rng.random((300, 6))}
    data = MultimodalDataset.from_arrays(**given, average=True)
    other = torch.randn(300, 3)
    kernel = stimulus_kernel("text", data, data, lambda name, rows: other[rows])
    x = other[data.tr_index].double().numpy()
    x -= x.mean(0)
    assert np.allclose(kernel, x @ x.T, atol=1e-4)
