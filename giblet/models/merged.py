"""Layers 2 to 5 of several networks and of ridge regression, side by side in one model.

A component of ridge regression is a linear function z of a stimulus. It goes through the ReLUs of
Layers 2 to 4 as the pair relu(z), relu(-z), which BatchNorm leaves as it is, and Layer 5 adds the
components up. Networks do not read each other's units. Layers 6 to 13 are those of the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from giblet.basis import Basis
from giblet.models.autoencoder import MultimodalAutoencoder
from giblet.models.encoder import MultimodalEncoder
from giblet.models.span import SpanAutoencoder


@dataclass(frozen=True, eq=False)
class LowRank:
    """A linear function of few components, `(x - mean) @ encode @ rows`.

    Parameters
    ----------
    mean : (n_features,), encode : (n_features, n)
        Of a stimulus as the model's `core` reads it, or of a network's Layer 4.
    rows : (n, n_voxels)
    """

    mean: np.ndarray
    encode: np.ndarray
    rows: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n_trs, n_features) -> (n_trs, n_voxels), in the precision of `rows`."""
        return self.components(x).astype(self.rows.dtype) @ self.rows

    def components(self, x: np.ndarray) -> np.ndarray:
        """(n_trs, n_features) -> (n_trs, n) float64."""
        return (x - self.mean) @ self.encode

    def cut(self, n: int) -> "LowRank":
        """The first `n` components, or all where they are fewer; a copy."""
        return replace(self, encode=self.encode[:, :n].copy(), rows=self.rows[:n].copy())

    def __mul__(self, weight: np.ndarray | float) -> "LowRank":
        """Times a weight of each voxel, (n_voxels,), or of all."""
        weight = np.asarray(weight, self.rows.dtype)
        return replace(self, rows=self.rows * weight)


@torch.no_grad()
def side_by_side(
    networks: Sequence[MultimodalAutoencoder],
    readouts: Sequence[LowRank],
    components: Mapping[str, LowRank],
    bias: np.ndarray,
) -> MultimodalAutoencoder:
    """One model whose `fmri_pred` is the sum of all readouts and components and a bias.

    Parameters
    ----------
    networks : sequence of MultimodalAutoencoder
        Of one configuration and, for `SpanAutoencoder`s, one span.
    readouts : as many LowRank
        Layer 5 of each, from its Layer 4.
    components : {'video', 'audio' or 'text': LowRank}
        Ridge regression from each stimulus; none for networks alone.
    bias : (n_voxels,)
    """
    first = networks[0]
    n_ridge = max((len(one.rows) for one in components.values()), default=0)
    config = first.get_config() | {"n_networks": len(networks), "ridge_units": n_ridge}
    rows = [one.rows for one in (*readouts, *components.values())]
    basis, coordinates = _output_basis(first, np.concatenate([*rows, bias[None]]))
    model: MultimodalAutoencoder
    if first.span is None:
        model = MultimodalAutoencoder(**config)
    else:
        model = SpanAutoencoder(first.span, basis, **config)
    model.to(next(first.parameters()))
    encoders = [network.core.encoder for network in networks]
    encoder = model.core.encoder
    for parameter in encoder.parameters():
        parameter.zero_()
    for name in encoder.present:
        _fill_layer_2(encoder, encoders, name, components.get(name))
    _fill_layer_4(encoder, encoders)
    _fill_layer_5(encoder, readouts, components, coordinates)
    encoder.to_bottleneck.load_state_dict(encoders[0].to_bottleneck.state_dict())
    model.core.decoder.load_state_dict(first.core.decoder.state_dict())
    model.trained_on = first.trained_on
    model.started_as = first.started_as
    return model.eval()


def _output_basis(
    model: MultimodalAutoencoder, rows: np.ndarray
) -> tuple[Basis | None, np.ndarray]:
    """Orthonormal basis of rows of voxels, and the rows in it; voxels where they are no more."""
    if model.span is None or len(rows) >= rows.shape[1]:
        n_voxels = rows.shape[1]
        return None if model.fmri_basis.vectors is None else Basis(n_voxels), rows
    vectors, coordinates = np.linalg.qr(rows.T.astype(np.float64))
    dtype = next(model.parameters()).dtype
    return Basis(rows.shape[1], torch.from_numpy(vectors).to(dtype)), coordinates.T


def _blocks(encoder: MultimodalEncoder, name: str) -> Iterator[tuple[nn.Linear, nn.BatchNorm1d]]:
    """The Linear and the BatchNorm of each block of a sub-encoder."""
    for block in getattr(encoder, f"{name}_encoder"):
        yield cast(nn.Linear, block[0]), cast(nn.BatchNorm1d, block[1])


def _fill_layer_2(
    encoder: MultimodalEncoder,
    encoders: Sequence[MultimodalEncoder],
    name: str,
    components: LowRank | None,
) -> None:
    merged = enumerate(_blocks(encoder, name))
    alone = zip(*(_blocks(one, name) for one in encoders), strict=True)
    for (number, (layer, norm)), parts in zip(merged, alone, strict=True):
        rows = columns = 0
        for own, own_norm in parts:
            read = slice(columns, columns + own.in_features) if number else slice(None)
            given = slice(rows, rows + own.out_features)
            layer.weight[given, read] = own.weight
            layer.bias[given] = own.bias
            for kind in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, kind)[given] = getattr(own_norm, kind)
            rows += own.out_features
            columns += own.in_features
        norm.weight[rows:] = float(np.sqrt(1 + norm.eps))
        if number:
            _pass_pairs(layer, rows, columns, (layer.out_features - rows) // 2)
        elif components is not None:
            _start_pairs(layer, rows, components)


def _start_pairs(layer: nn.Linear, row: int, components: LowRank) -> None:
    """Give each component as a pair z, -z, from unit `row` on."""
    weight = torch.from_numpy(components.encode.T).to(layer.weight)
    bias = torch.from_numpy(-components.mean @ components.encode).to(layer.bias)
    stop = row + 2 * len(weight)
    layer.weight[row:stop:2] = weight
    layer.weight[row + 1 : stop : 2] = -weight
    layer.bias[row:stop:2] = bias
    layer.bias[row + 1 : stop : 2] = -bias


def _pass_pairs(layer: nn.Linear, row: int, column: int, n_pairs: int) -> None:
    """Pass pairs on as pairs z, -z: to the units from `row` on, from those from `column` on."""
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).to(layer.weight)
    pairs = torch.block_diag(*[sign] * n_pairs) if n_pairs else sign[:0, :0]
    layer.weight[row : row + 2 * n_pairs, column : column + 2 * n_pairs] = pairs


def _fill_layer_4(encoder: MultimodalEncoder, encoders: Sequence[MultimodalEncoder]) -> None:
    layer = cast(nn.Linear, encoder.to_features[0])
    alone = [cast(nn.Linear, one.to_features[0]) for one in encoders]
    n_features = alone[0].out_features
    column = 0
    for modality, name in enumerate(encoder.present):
        n_read = [list(_blocks(one, name))[-1][0].out_features for one in encoders]
        first = sum(
            list(_blocks(encoders[0], other))[-1][0].out_features
            for other in encoder.present[:modality]
        )
        for number, own in enumerate(alone):
            given = slice(number * n_features, (number + 1) * n_features)
            read = slice(column, column + n_read[number])
            layer.weight[given, read] = own.weight[:, first : first + n_read[number]]
            column = read.stop
        n_pairs = (list(_blocks(encoder, name))[-1][0].out_features - sum(n_read)) // 2
        row = len(alone) * n_features + modality * 2 * n_pairs
        _pass_pairs(layer, row, column, n_pairs)
        column += 2 * n_pairs
    layer.bias[: len(alone) * n_features] = torch.cat([own.bias for own in alone])


def _fill_layer_5(
    encoder: MultimodalEncoder,
    readouts: Sequence[LowRank],
    components: Mapping[str, LowRank],
    coordinates: np.ndarray,
) -> None:
    layer = encoder.to_voxels
    bias = coordinates[-1].copy()
    row = column = 0
    for one in readouts:
        given = coordinates[row : row + len(one.rows)]
        weight = given.T @ one.encode.T
        bias -= weight @ one.mean
        layer.weight[:, column : column + len(one.mean)] = _tensor(weight, layer)
        row += len(one.rows)
        column += len(one.mean)
    n_pairs = (layer.in_features - column) // 2 // len(encoder.present)
    for name, part in components.items():
        given = coordinates[row : row + len(part.rows)]
        start = column + 2 * n_pairs * encoder.present.index(name)
        stop = start + 2 * len(given)
        layer.weight[:, start:stop:2] = _tensor(given.T, layer)
        layer.weight[:, start + 1 : stop : 2] = _tensor(-given.T, layer)
        row += len(part.rows)
    layer.bias.copy_(_tensor(bias, layer))


def _tensor(values: np.ndarray, layer: nn.Linear) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(layer.weight)
