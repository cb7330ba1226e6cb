"""Checkpoints: written whole or not at all, read without pickle."""

import json
import platform
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open

from giblet.files import atomic_path
from giblet.models import MultimodalAutoencoder, Span, SpanAutoencoder

VERSIONS = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def save_checkpoint(path: str | Path, contents: dict) -> None:
    """Write tensors and plain values to `path`, atomically: what was there before stays until all is on the disk."""
    with atomic_path(path) as temporary:
        torch.save(contents | {"versions": VERSIONS}, temporary)


def save_weights(path: str | Path, checkpoint: dict) -> None:
    """Write the weights of a checkpoint as safetensors, with `config` and `span` as JSON in the metadata."""
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        metadata = {name: json.dumps(checkpoint[name]) for name in ("config", "span")}
        safetensors.torch.save_file(checkpoint["model_state_dict"], temporary, metadata)
        temporary.chmod(mode)  # safetensors makes files that only their owner may read


def load_checkpoint(path: str | Path, mmap: bool = False) -> dict:
    """Read a checkpoint, or weights in safetensors, onto the CPU; nothing in it is executed.

    With `mmap` tensors stay in the file until they are used.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: train first, or name the folder of a run.")
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(value) for name, value in file.metadata().items()}
        return metadata | {"model_state_dict": safetensors.torch.load_file(path)}
    return torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)


def load_model(path: str | Path, span: str | Path | None = None) -> MultimodalAutoencoder:
    """The model of `best.pt`, `last.pt` or `best.safetensors`, on the CPU and in evaluation mode.

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
