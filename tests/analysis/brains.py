"""Scores of lesions the long way: imported by tests."""

import numpy as np
import torch

from giblet.analysis.lesions import Brain


def first_voxels(brain: Brain, size: int) -> np.ndarray:
    """A mask of so many voxels, wherever they lie."""
    return np.arange(brain.fmri.shape[1]) < size


def long_way(brain: Brain, bottleneck: torch.Tensor) -> dict[str, np.ndarray]:
    """Scores in pixels and float64, from the public decoder."""
    test = brain.dataset
    with torch.no_grad():
        recon = dict(zip(("video", "audio", "text"), brain.model.decoder(bottleneck), strict=True))
    found = {}
    for name, values in recon.items():
        x = values.double()
        y = test.stimulus(name, test.tr_index).double()
        if name == "text":
            found[name] = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
        else:
            mean = test.train_mean(name).double()
            found[name] = 1 - (x - y).square().mean(1) / (mean - y).square().mean()
    return {name: values.numpy() for name, values in found.items()}
