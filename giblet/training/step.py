"""Parts of one update: loss, BatchNorm's running statistics, clipping and seeds."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from giblet.models import MultimodalAutoencoder


class BatchLoss(nn.Module):
    """A model's `batch_loss` as a forward pass, which is what DDP and FSDP2 watch."""

    def __init__(self, model: MultimodalAutoencoder):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], Tensor]:
        """As `MultimodalAutoencoder.batch_loss`."""
        return self.model.batch_loss(batch)


class RunningStatistics:
    """BatchNorm's running statistics in a step of several micro-batches.

    Every micro-batch starts from those of the step before, and the step ends with their mean,
    wherever they ran.
    """

    def __init__(self, model: nn.Module):
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        self._buffers = [
            buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)
        ]

    def read(self) -> Tensor:
        """All of them in one new tensor."""
        return torch.cat(self._buffers)

    def write(self, values: Tensor) -> None:
        """Put back what `read` gave."""
        parts = values.split([len(buffer) for buffer in self._buffers])
        for buffer, part in zip(self._buffers, parts, strict=True):
            buffer.copy_(part)


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    """As `clip_grad_norm_`, which also writes to gradients that are short enough."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if not norm <= max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)


def seed_of(*numbers: int) -> int:
    """One 32-bit seed from several numbers.

    torch's CPU generator ignores the higher bits of a seed.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
