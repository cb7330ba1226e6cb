"""The device to train on, and the precision of its arithmetic."""

import torch

from giblet.training.config import TrainingConfig
from giblet.training.distributed import local_rank


def resolve_device(config: TrainingConfig) -> torch.device:
    """The device to train on; of several GPUs that of this rank.

    Raises
    ------
    ValueError
        If this torch has no such device, or it is none that giblet trains on.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda"):
        reason = "; 'mps' has no float64, in which scores are summed" if kind == "mps" else ""
        raise ValueError(f"device is {name!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'{reason}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {name!r}, but torch {torch.__version__} finds no GPU: take 'cpu', or "
            "install a CUDA build."
        )
    try:
        device = torch.device(f"cuda:{local_rank()}" if name == "cuda" else name)
    except RuntimeError:
        raise ValueError(
            f"device is {name!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'."
        ) from None
    if kind == "cuda" and device.index >= torch.cuda.device_count():
        raise ValueError(
            f"device is {str(device)!r}, but torch finds {torch.cuda.device_count()} GPUs, counted "
            "from 0: take one of them, or start fewer ranks."
        )
    return device


def resolve_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The dtype of autocast.

    bfloat16 where asked for, or where 'auto' finds a GPU that computes in it.
    """
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bf16" else torch.float32
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32
