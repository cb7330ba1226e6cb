"""Start a decoder as ridge decoding, exactly, so that training goes on from the field's baseline.

Ridge regression from the measured voxels to a modality is cut to its largest components. Each is
one unit of the bottleneck, for Layer 6 is linear; from there it goes through the ReLUs of Layers 8
to 12 as the pair relu(z), relu(-z), of standard deviation 1, which BatchNorm leaves as it is. The
units that are left over keep their random weights and reach the output with weight 0, from where
training moves them.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from giblet.analysis.ridge_decoding import RidgeDecoder, ridge_decoder
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder, MultimodalDecoder

SMALLEST = 1e-6  # of the largest component: smaller ones are left out


@dataclass(frozen=True)
class Components:
    """Ridge decoding of one modality as `(fmri - mean) @ encode @ decode + bias`.

    Parameters
    ----------
    encode : (n_fmri, n) float64
        Of coordinates of fMRI; over the training TRs each component has variance 1.
    decode : (n, n_features) float64
    bias : (n_features,)
    mean : (n_fmri,)
    """

    encode: np.ndarray
    decode: np.ndarray
    bias: np.ndarray
    mean: np.ndarray


def ridge_components(
    ridge: RidgeDecoder, fmri: np.ndarray, shown: np.ndarray, n: int
) -> Components:
    """The `n` largest components of what ridge decoding gives on its training TRs, or fewer.

    Parameters
    ----------
    fmri : (n_train, n_fmri), shown : (n_train, n_features)
        Coordinates of the responses and the stimulus of its training TRs.
    """
    mean = fmri.mean(0)
    bias = shown.mean(0)
    centred = fmri - mean
    beyond = shown - bias
    hat = centred @ (centred.T @ ridge.dual)
    fitted_gram = hat @ (beyond @ beyond.T) @ hat.T
    power, directions = np.linalg.eigh(fitted_gram)
    kept = np.flatnonzero(power > SMALLEST * power[-1])[::-1][:n]
    scores = directions[:, kept] * np.sqrt(power[kept])
    features = np.linalg.lstsq(scores, hat @ beyond, rcond=None)[0]  # orthonormal rows
    encode = centred.T @ (ridge.dual @ (beyond @ features.T))
    sd = (centred @ encode).std(0)
    return Components(encode / sd, features * sd[:, None], bias, mean)


@torch.no_grad()
def start_from_ridge(model: MultimodalAutoencoder, train: MultimodalDataset) -> None:
    """Set Layers 6 to 13 so that `decode_fmri` is ridge decoding; codes keep their random start.

    Parameters
    ----------
    train : MultimodalDataset with `average=True`
        The training TRs.

    Raises
    ------
    ValueError
        If they are too few to choose a shrinkage in, see `contiguous_folds`, or the model is too
        narrow.
    """
    core = model.core
    decoder = core.decoder
    names = [name for name in decoder.present if not (name == "audio" and core.use_encodec)]
    n_each = _n_components(core, len(names))
    if n_each < 1:
        width = core.get_config()["width"]
        raise ValueError(
            f"width is {width}, expected one whose layers let a pair of units through for each "
            "modality: raise it."
        )
    components = [_components(model, train, name, n_each) for name in names]
    sizes = [one.encode.shape[1] for one in components]
    _set_bottleneck(core.encoder.to_bottleneck, components)
    blocks = _blocks(decoder)
    places = np.array_split(np.arange(blocks[-1][0].out_features), len(decoder.present))
    own = [places[decoder.present.index(name)] for name in names]
    split = np.concatenate([rows[: 2 * n] for rows, n in zip(own, sizes, strict=True)])
    for number, (layer, norm) in enumerate(blocks):
        rows = split if number == len(blocks) - 1 else np.arange(2 * sum(sizes))
        _pass_on(layer, rows, sum(sizes), from_pairs=number > 0)
        norm.weight[rows] = float(np.sqrt(1 + norm.eps))
        norm.bias[rows] = 0
    for name, one in zip(names, components, strict=True):
        _set_head(getattr(decoder, f"{name}_decoder"), one)
    model.started_as = "ridge"


def _blocks(decoder: MultimodalDecoder) -> list[tuple[nn.Linear, nn.BatchNorm1d]]:
    """The Linear and the BatchNorm of each of Layers 8 to 11."""
    blocks = cast(list[nn.Sequential], list(decoder.trunk))
    return [(cast(nn.Linear, one[0]), cast(nn.BatchNorm1d, one[1])) for one in blocks]


def _n_components(core: MultimodalAutoencoder, n_modalities: int) -> int:
    """How many components of each modality go through the narrowest layer as pairs."""
    decoder = core.decoder
    widths = [layer.out_features for layer, _ in _blocks(decoder)]
    narrow = [decoder.bottleneck_dim // n_modalities]
    narrow += [width // (2 * n_modalities) for width in widths[:-1]]
    narrow += [widths[-1] // len(decoder.present) // 2]
    for head in (decoder.video_decoder, decoder.audio_decoder):
        if head is not None:
            narrow.append(cast(nn.Linear, head[0]).out_features // 2)
    return min(narrow)


def _set_bottleneck(layer: nn.Linear, components: list[Components]) -> None:
    """Layer 6: one unit a component."""
    first = 0
    for one in components:
        units = slice(first, first + one.encode.shape[1])
        _set(layer.weight[units], one.encode.T)
        _set(layer.bias[units], -one.mean @ one.encode)
        first = units.stop


def _components(
    model: MultimodalAutoencoder, train: MultimodalDataset, name: str, n: int
) -> Components:
    ridge = ridge_decoder(train, name)
    rows = np.flatnonzero(np.isin(train.tr_index, ridge.train.tr_index))
    fmri = model.fmri_basis.coordinates(torch.from_numpy(train.fmri()[rows]))
    shown = train.stimulus(name, train.tr_index[rows])
    if name == "video":
        shown = model.video_basis.coordinates(shown)
    return ridge_components(ridge, fmri.double().numpy(), shown.double().numpy(), n)


def _set(parameter: Tensor, values: np.ndarray) -> None:
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _pass_on(layer: nn.Linear, rows: np.ndarray, n: int, from_pairs: bool) -> None:
    """Let `rows` of a layer be the pairs z, -z of its first `n` inputs, or input pairs."""
    layer.weight[rows] = 0
    layer.bias[rows] = 0
    index = torch.arange(n)
    for row, sign in zip(torch.from_numpy(rows).unflatten(0, (n, 2)).T, (1.0, -1.0), strict=True):
        if from_pairs:
            layer.weight[row, 2 * index] = sign
            layer.weight[row, 2 * index + 1] = -sign
        else:
            layer.weight[row, index] = sign


def _set_head(head: nn.Linear | nn.Sequential, one: Components) -> None:
    """Layers 12 and 13 of a modality, from the pairs of its components."""
    n = len(one.decode)
    if isinstance(head, nn.Sequential):
        _pass_on(cast(nn.Linear, head[0]), np.arange(2 * n), n, from_pairs=True)
        head = cast(nn.Linear, head[2])
    head.weight.zero_()
    _set(head.weight[:, 0 : 2 * n : 2], one.decode.T)
    _set(head.weight[:, 1 : 2 * n : 2], -one.decode.T)
    _set(head.bias, one.bias)
