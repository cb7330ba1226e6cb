import pytest
import torch
from torch import nn

from giblet.training.step import clip_gradients


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clipping_is_that_of_torch(max_norm):
    models = [nn.Linear(5, 4), nn.Linear(5, 4)]
    for model, clip in zip(
        models,
        (clip_gradients, lambda m, n: nn.utils.clip_grad_norm_(m.parameters(), n)),
        strict=True,
    ):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, number + 1.0)
        clip(model, max_norm)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a.grad, b.grad)
