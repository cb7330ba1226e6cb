"""Checkpoints: written whole or not at all, read without pickle."""

from pathlib import Path

import torch

from giblet.files import atomic_path
from giblet.models import MultimodalAutoencoder, Span, SpanAutoencoder


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


def load_model(path: str | Path, span: str | Path | None = None) -> MultimodalAutoencoder:
    """The model of a checkpoint, on the CPU and in evaluation mode.

    Parameters
    ----------
    span : folder, optional
        Of the bases of a `SpanAutoencoder`, where they are no longer where they were in training.
    """
    checkpoint = load_checkpoint(path)
    trained_in = checkpoint["span"]
    if trained_in is None:
        model = MultimodalAutoencoder(**checkpoint["config"])
    else:
        bases = Span.open(span or trained_in["path"])
        if bases.id != trained_in["id"]:
            raise ValueError(f"{bases.path} holds bases {bases.id}, expected {trained_in['id']}, those of {path}.")
        model = SpanAutoencoder(bases, **checkpoint["config"])
    model.load_state_dict(checkpoint["model_state_dict"])
    return model.eval()
