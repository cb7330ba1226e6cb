"""A merged model on disk, beside the checkpoint of the network that it is made of.

`merged.pt` is the model, `network.pt` its networks alone. The basis of Layer 5, where it has one of
its own, is a file beside them: it holds what is left of the brains, so never publish it.
"""

from pathlib import Path

import numpy as np
import torch

from giblet.basis import COPY_BASES, Basis
from giblet.data.provenance import fingerprint_array
from giblet.files import atomic_path, load_array
from giblet.models import MultimodalAutoencoder
from giblet.models.autoencoder import Merged

MERGED = "merged.pt"
NETWORK = "network.pt"
PATTERN = "layer5-*.npy"


def checkpoints_of(model: MultimodalAutoencoder, best: dict, folder: Path) -> dict[str, dict]:
    """Contents of the two checkpoints, by name; the bases of Layer 5 are written.

    Parameters
    ----------
    model : MultimodalAutoencoder
        Merged.
    best : dict
        Checkpoint of the network.
    folder : folder of the run
    """
    merged = model.merged
    assert merged is not None
    known = {name: best[name] for name in ("epoch", "training", "span", "data")}
    found = {}
    for name, one in ((NETWORK, merged.network), (MERGED, model)):
        entries = {"config": one.get_config(), "model_state_dict": one.state_dict()}
        found[name] = known | entries | {"output_basis": _write_basis(one, folder)}
    found[MERGED]["merged"] = {
        "ridge_weight": torch.from_numpy(merged.ridge_weight),
        "pooling": list(merged.pooling),
        "readout_alpha": torch.from_numpy(merged.readout_alpha),
        "explained": {name: torch.from_numpy(x) for name, x in merged.explained.items()},
    }
    return found


def _write_basis(model: MultimodalAutoencoder, folder: Path) -> dict | None:
    """What a checkpoint says of a basis of Layer 5 of its own."""
    basis = model.output_basis
    if basis is model.fmri_basis:
        return None
    if basis.vectors is None:
        return {"n_values": basis.n_values, "file": None}
    vectors = basis.vectors.cpu().numpy()
    name = PATTERN.replace("*", fingerprint_array(vectors)[-16:])
    with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    return {"n_values": basis.n_values, "file": name}


def read_basis(checkpoint: dict, folder: Path) -> Basis | None:
    """The basis of Layer 5 that a checkpoint names, if it has one of its own."""
    saved = checkpoint.get("output_basis")
    if saved is None:
        return None
    if saved["file"] is None:
        return Basis(saved["n_values"])
    vectors = load_array(folder / saved["file"], COPY_BASES, "c")
    if vectors.ndim != 2 or len(vectors) != saved["n_values"]:
        raise ValueError(
            f"{folder / saved['file']} has shape {vectors.shape}, expected ({saved['n_values']}, "
            f"n): {COPY_BASES}."
        )
    return Basis(saved["n_values"], torch.from_numpy(vectors))


def read_merged(checkpoint: dict, network: MultimodalAutoencoder) -> Merged:
    """What a merged model is made of."""
    saved = checkpoint["merged"]
    explained = {name: values.numpy() for name, values in saved["explained"].items()}
    first, second = saved["pooling"]
    alpha = saved["readout_alpha"].numpy()
    return Merged(saved["ridge_weight"].numpy(), (first, second), alpha, explained, network)
