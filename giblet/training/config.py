"""How to train: settings, learning-rate schedule, device and precision."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run.

    Parameters
    ----------
    epochs : int
        Passes over the training TRs, unless early stopping ends the run before.
    batch_size : int
        TRs a step; an epoch is cut into equal batches of at most this size.
    learning_rate : float
        Of AdamW, at the end of the warm-up; then it falls along a cosine to 0.
    weight_decay : float
        Of AdamW.
    warmup : float
        Share of all steps in which the learning rate rises.
    clip_norm : float
        Largest norm of the gradient.
    patience : int
        Epochs without a better validation loss before the run stops.
    checkpoint_every : int
        Epochs between checkpoints: what an interruption can cost.
    random_state : int
        Seeds the order of the TRs and the dropout of every step.
    device : str
        'auto' is the GPU if there is one, else the CPU.
    precision : 'auto', 'bf16' or 'float32'
        Of the arithmetic; weights are always float32. 'auto' is bfloat16 where the device computes in it.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float = 1.0
    patience: int = 15
    checkpoint_every: int = 5
    random_state: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "patience", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number.")
        if self.precision not in ("auto", "bf16", "float32"):
            raise ValueError(f"precision is {self.precision!r}, expected 'auto', 'bf16' or 'float32'.")


def learning_rate_at(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Learning rate of a step (0-based): linear warm-up, then a cosine that reaches 0 after `n_steps`."""
    n_warmup = config.warmup * n_steps
    if step < n_warmup:
        return config.learning_rate * (step + 1) / (n_warmup + 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))


def resolve_device(config: TrainingConfig) -> torch.device:
    """The device to train on."""
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The dtype of autocast: bfloat16 where asked for, or where 'auto' finds hardware for it."""
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else torch.float32
