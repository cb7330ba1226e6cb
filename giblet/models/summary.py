"""Every layer with its widths, parameters and FLOPs, as computed."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from giblet.models.autoencoder import MultimodalAutoencoder

LAYERS = {
    "2A": ("video encoder", "encoder.video_encoder"),
    "2B": ("audio encoder", "encoder.audio_encoder"),
    "2C": ("text encoder", "encoder.text_encoder"),
    "4": ("feature space", "encoder.to_features"),
    "5": ("predicted voxels", "encoder.to_voxels"),
    "6": ("bottleneck", "encoder.to_bottleneck"),
    "8": ("expand", "decoder.trunk.0"),
    "9": ("features", "decoder.trunk.1"),
    "10": ("deconvolution", "decoder.trunk.2"),
    "11": ("unpooling", "decoder.trunk.3"),
    "12A": ("video decoder", "decoder.video_decoder"),
    "12B": ("audio decoder", "decoder.audio_decoder"),
    "12C": ("text decoder", "decoder.text_decoder"),
}


@dataclass(frozen=True)
class Layer:
    """One row of the architecture.

    `widths` run from input to output; FLOPs are those of one TR's forward pass.
    """

    number: str
    name: str
    kind: str
    widths: tuple[int, ...]
    parameters: int
    flops: int


def layer_table(model: MultimodalAutoencoder) -> list[Layer]:
    """Layers 2-12 of a model; use the meta device for sizes that do not fit in memory.

    Parameters are counted from the weights and FLOPs by torch's counter (2 per multiply and add) in
    a forward pass of one TR on the meta device. Layers 1, 3, 7 and 13 hold no weights.
    """
    config = model.get_config()
    with torch.device("meta"):
        twin = MultimodalAutoencoder(**config).eval()
        audio = torch.empty(1, *twin.encoder.audio_shape)
        inputs = (torch.empty(1, config["video_dim"]), audio, torch.empty(1, config["text_dim"]))
        with FlopCounterMode(display=False) as counter:
            twin(*inputs)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    rows = []
    modules = dict(twin.named_modules())
    for number, (name, path) in LAYERS.items():
        if path not in modules:  # of an absent modality
            continue
        module = modules[path]
        linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
        widths = (linear[0].in_features, *(m.out_features for m in linear))
        parameters = sum(p.numel() for p in module.parameters())
        flop_count = flops[f"{MultimodalAutoencoder.__name__}.{path}"]
        rows.append(Layer(number, name, _kind(module), widths, parameters, flop_count))
    return rows


def _kind(module: nn.Module) -> str:
    """What follows each Linear, as 'Linear + BatchNorm + ReLU + Dropout(.3, .3, .2)'."""
    parts = ["Linear"]
    for kind, label in ((nn.BatchNorm1d, "BatchNorm"), (nn.ReLU, "ReLU")):
        if any(isinstance(m, kind) for m in module.modules()):
            parts.append(label)
    dropout = [f"{m.p:g}".lstrip("0") for m in module.modules() if isinstance(m, nn.Dropout)]
    return " + ".join(parts) + (f" + Dropout({', '.join(dropout)})" if dropout else "")


def markdown_table(model: MultimodalAutoencoder) -> str:
    """`layer_table` as Markdown, with totals."""
    rows = layer_table(model)
    lines = [
        "| layer | what | blocks | widths | parameters | MFLOPs |",
        "|---|---|---|---|---:|---:|",
    ]
    for row in rows:
        widths = " → ".join(f"{width:,}" for width in row.widths)
        numbers = f"{row.parameters:,} | {row.flops / 1e6:,.2f}"
        lines.append(f"| {row.number} | {row.name} | {row.kind} | {widths} | {numbers} |")
    total = sum(row.parameters for row in rows)
    lines.append(
        f"| | **all** | | | **{total:,}** | **{sum(row.flops for row in rows) / 1e6:,.2f}** |"
    )
    return "\n".join(lines)
