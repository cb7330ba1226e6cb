"""The device, settings and tolerances of the tests on a GPU, which are compared with the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from giblet.recipe import build_model
from giblet.training import Trainer, TrainingConfig

DEVICE = "cuda"
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
CONFIG = TrainingConfig(
    epochs=8,
    batch_size=16,
    patience=8,
    checkpoint_every=8,
    device=DEVICE,
    precision="float32",
)
BF16 = replace(CONFIG, precision="bf16")  # a GPU's default
LOSSES = ("total", "reconstruction", "fmri")
# Largest relative difference of a loss of CONFIG, which AdamW makes of rounding. On a CPU, noise of
# 1e-7 or 1e-6 of the initial weights moved a loss by up to 6.3e-3, in the first epoch by 6e-4, and
# bf16 moved one by 2.9e-3. Half the learning rate moved one by 2.9e-2, and dropout by 5.9e-2.
TOLERANCE = 1.2e-2
# Largest difference of what equal weights give on two devices in float32, where torch leaves TF32
# off: in SDs, and in scores. On a CPU, noise of 2e-7 of the weights moved a reconstruction by 5e-6
# SDs and a score by 5e-7; the lesions below cost .01 to .1.
ROUNDING = 1e-4
SCORES = 1e-4


def small_trainer(data: dict, config: TrainingConfig, dropout: bool = True) -> Trainer:
    """The small recipe in the span; without dropout, whose draws differ between devices."""
    model = build_model(data["train"], progress=False)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    return Trainer(model, data["train"], data["val"], config)


def largest_difference(found: list[dict], expected: list[dict]) -> float:
    """Of the losses of every epoch, relative."""
    assert len(found) == len(expected)
    differences = []
    for a, b in zip(found, expected, strict=True):
        for split in ("train", "val"):
            differences += [abs(a[split][name] / b[split][name] - 1) for name in LOSSES]
    return max(differences)


def assert_close(found, expected) -> None:
    """Arrays or tensors on the CPU within rounding, in SDs of what is expected."""
    found = np.asarray(found)
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.std(expected))


def assert_same_scores(found: np.ndarray, expected: np.ndarray) -> None:
    """R2 or cosines within rounding; NaN is NaN."""
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=SCORES)
