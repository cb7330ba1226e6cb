"""How to train: settings and learning-rate schedule."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

POSITIVE_COUNTS = ("epochs", "batch_size", "patience", "checkpoint_every")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run.

    Parameters
    ----------
    epochs : int
        Passes over the training TRs, unless early stopping ends the run before.
    batch_size : int
        TRs a step, over all ranks; an epoch is cut into equal batches of at most this size.
    micro_batches : int
        Parts of a batch that are worked on one after the other or by different ranks, each with
        BatchNorm statistics and dropout of its own; their number, and not that of the ranks,
        decides the numbers. 0 is one a rank.
    learning_rate : float
        Of AdamW, at the end of the warm-up; then it falls along a cosine to 0.
    weight_decay : float
        Of AdamW.
    warmup : float
        Share of all steps in which the learning rate rises.
    clip_norm : float
        Largest norm of the gradient.
    patience : int
        Epochs without a better validation r, see `best_epoch`, before the run stops.
    checkpoint_every : int
        Epochs between checkpoints: what an interruption can cost.
    random_state : int
        Seeds the order of the TRs and the dropout of every micro-batch.
    device : str
        'auto' is the GPU if there is one (under `torchrun` each rank's own), else the CPU; or
        'cpu', 'cuda', 'cuda:1'.
    precision : 'auto', 'bf16' or 'float32'
        Of the arithmetic; weights are always float32. 'auto' is bfloat16 on a GPU that computes in
        it. On a CPU it is float32, whose results differ less between kinds of CPU; 'bf16' may be
        faster there.
    shard : bool
        Several ranks keep a share each of weights, gradients and optimiser state (FSDP2), for a
        model that does not fit one device.
    """

    epochs: int = 15
    batch_size: int = 32
    micro_batches: int = 0
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float = 1.0
    patience: int = 10
    checkpoint_every: int = 5
    random_state: int = 0
    device: str = "auto"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    shard: bool = False

    def __post_init__(self):
        for name in (*POSITIVE_COUNTS, "learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number.")
        for name in (*POSITIVE_COUNTS, "micro_batches", "random_state"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}, expected a number from 0 on.")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup}, expected a share from 0 to 1.")
        if not 0 <= self.random_state < 2**63:
            raise ValueError(
                f"random_state is {self.random_state}, expected a whole number from 0 to 2**63 - 1."
            )
        if self.micro_batches < 0:
            raise ValueError(
                f"micro_batches is {self.micro_batches}, expected a positive number, or 0 for one "
                "a rank."
            )
        if self.precision not in ("auto", "bf16", "float32"):
            raise ValueError(
                f"precision is {self.precision!r}, expected 'auto', 'bf16' or 'float32'."
            )


def learning_rate_at(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Learning rate of a step (0-based): linear warm-up, then a cosine to 0 after `n_steps`."""
    n_warmup = config.warmup * n_steps
    if step < n_warmup:
        return config.learning_rate * (step + 1) / (n_warmup + 1)
    return (
        config.learning_rate
        * 0.5
        * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))
    )
