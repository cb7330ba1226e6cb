"""Lesions with a known answer, and their scores the long way: imported by tests."""

import numpy as np
import torch

from giblet.analysis.lesions import Brain
from giblet.models import MultimodalAutoencoder
from giblet.regions import Regions


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


def planted_model(data) -> tuple[MultimodalAutoencoder, Regions]:
    """A direct model whose bottleneck reads the first tenth of the voxels only."""
    torch.manual_seed(1)
    model = MultimodalAutoencoder(**data["test"].model_dims, bottleneck_dim=8, width=1 / 64).eval()
    n_voxels = data["test"].fmri().shape[1]
    labels = np.minimum(np.arange(n_voxels) * 10 // n_voxels, 9)
    with torch.no_grad():
        model.encoder.to_bottleneck.weight[:, labels > 0] = 0
        model.encoder.to_bottleneck.weight *= 20
    return model, Regions(labels, tuple(f"r{i}" for i in range(10)))
