"""Checkpoints: written whole or not at all, read without pickle."""

from pathlib import Path

import torch

from giblet.files import atomic_path
from giblet.models import MultimodalAutoencoder


def save_checkpoint(path: str | Path, contents: dict) -> None:
    """Write tensors and plain values to `path`, atomically."""
    with atomic_path(path) as temporary:
        torch.save(contents, temporary)


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict:
    """Read a checkpoint; nothing in it is executed."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: train first, or name the folder of a run.")
    return torch.load(path, map_location=map_location, weights_only=True)


def load_model(path: str | Path) -> MultimodalAutoencoder:
    """The model of a checkpoint, on the CPU and in evaluation mode."""
    checkpoint = load_checkpoint(path)
    model = MultimodalAutoencoder(**checkpoint["config"])
    model.load_state_dict(checkpoint["model_state_dict"])
    return model.eval()
