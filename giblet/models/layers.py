"""Building blocks shared by the encoder and the decoder."""

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def scaled(n_units: int, width: float) -> int:
    """A hidden width of the full-size model, scaled by the `width` dial."""
    return max(1, round(n_units * width))


def present_modalities(video_dim: int, audio_dim: int, text_dim: int) -> tuple[str, ...]:
    """The modalities of width above 0, in the order video, audio, text."""
    widths = {"video": video_dim, "audio": audio_dim, "text": text_dim}
    present = tuple(name for name, n_values in widths.items() if n_values > 0)
    if not present:
        raise ValueError(
            f"the widths are {widths}, expected one above 0: a model needs a stimulus."
        )
    return present


def hidden_block(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    """Linear + BatchNorm + ReLU + Dropout: (batch, n_in) -> (batch, n_out)."""
    return nn.Sequential(
        nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(dropout)
    )


def check_shape(name: str, value: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ValueError unless `value` is (batch, *expected)."""
    if tuple(value.shape[1:]) != expected:
        want = ", ".join(["batch", *map(str, expected)])
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, expected ({want}): build the model with the "
            "widths of the data, or prepare the data with those of the model."
        )


@contextmanager
def _frozen_running_stats(module: nn.Module):
    """Keep running statistics as they are, by a momentum of 0.

    Autograd saves the same tensors as in the forward pass.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


def maybe_checkpoint(module: nn.Module, x: Tensor, enabled: bool) -> Tensor:
    """Run `module(x)`, recomputing its activations in the backward pass if `enabled`.

    The recomputation uses the batch's statistics, as the forward pass did, but leaves BatchNorm's
    running statistics alone: they are updated once per step, as without checkpointing.
    """
    if not (enabled and torch.is_grad_enabled() and module.training):
        return module(x)
    return checkpoint(
        module,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _frozen_running_stats(module)),
    )
