"""Layers 7-13: bottleneck -> reconstructed stimulus (video, audio, text)."""

import itertools

import torch
from torch import Tensor, nn

from giblet.models.encoder import CODEBOOK_SIZE
from giblet.models.layers import (
    check_shape,
    hidden_block,
    maybe_checkpoint,
    present_modalities,
    scaled,
)


class CodeHead(nn.Module):
    """EnCodec logits from a factored head: (batch, n_in) -> (batch, n_codebooks, n_frames, 1024).

    One Linear gives every code position a short vector, and one classifier shared by all positions
    turns it into logits; a dense head would need 940 million parameters.
    """

    def __init__(self, n_in: int, n_codebooks: int, n_frames: int, code_dim: int):
        super().__init__()
        self.shape = (n_codebooks, n_frames, code_dim)
        self.positions = nn.Linear(n_in, n_codebooks * n_frames * code_dim)
        self.classifier = nn.Linear(code_dim, CODEBOOK_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.positions(x).unflatten(1, self.shape))


class MultimodalDecoder(nn.Module):
    """Reconstruct the stimulus from the bottleneck.

    A modality of width 0 is absent: it has no decoder and no share of Layer 11, and its
    reconstruction is (batch, 0).

    Parameters
    ----------
    bottleneck_dim, video_dim, audio_dim, text_dim : int
        Widths of the bottleneck and of the three reconstructions.
    hidden_dim : int
        Width of Layer 10 before `width` scales it.
    audio_frames_per_tr, n_codebooks : int
        Shape of the EnCodec codes of a TR; used with `use_encodec` only.
    use_encodec : bool
        Reconstruct integer EnCodec codes instead of `audio_dim` values.
    dropout : float
        Dropout of Layers 8-11.
    gradient_checkpointing, width
        As in `MultimodalEncoder`.
    """

    def __init__(
        self,
        bottleneck_dim: int = 2048,
        video_dim: int = 259_200,
        audio_dim: int = 128,
        text_dim: int = 1024,
        hidden_dim: int = 2048,
        audio_frames_per_tr: int = 112,
        n_codebooks: int = 8,
        use_encodec: bool = False,
        dropout: float = 0.3,
        gradient_checkpointing: bool = False,
        width: float = 1.0,
    ):
        super().__init__()
        self.bottleneck_dim = bottleneck_dim
        self.use_encodec = use_encodec
        self.gradient_checkpointing = gradient_checkpointing
        n_codes = n_codebooks * audio_frames_per_tr if use_encodec else audio_dim
        self.present = present_modalities(video_dim, n_codes, text_dim)
        n_modality = scaled(512, width)
        n_hidden = scaled(1024, width)
        n_shared = len(self.present) * n_modality
        widths = [
            bottleneck_dim,
            scaled(8000, width),
            scaled(4096, width),
            scaled(hidden_dim, width),
            n_shared,
        ]
        self.trunk = nn.Sequential(
            *(hidden_block(i, o, dropout) for i, o in itertools.pairwise(widths))
        )
        self.video_decoder = self.audio_decoder = self.text_decoder = None
        if "video" in self.present:
            self.video_decoder = nn.Sequential(
                nn.Linear(n_modality, n_hidden), nn.ReLU(), nn.Linear(n_hidden, video_dim)
            )
        if "audio" in self.present:
            head = (
                CodeHead(n_hidden, n_codebooks, audio_frames_per_tr, scaled(32, width))
                if use_encodec
                else nn.Linear(n_hidden, audio_dim)
            )
            self.audio_decoder = nn.Sequential(nn.Linear(n_modality, n_hidden), nn.ReLU(), head)
        if "text" in self.present:
            self.text_decoder = nn.Linear(n_modality, text_dim)

    def video(self, bottleneck: Tensor) -> Tensor:
        """Decode (batch, bottleneck_dim) into `video_recon` alone, as the model is."""
        if self.video_decoder is None:
            return bottleneck.new_zeros(len(bottleneck), 0)
        shared = self.trunk(bottleneck)
        part = torch.tensor_split(shared, len(self.present), dim=1)[self.present.index("video")]
        return self.video_decoder(part)

    def forward(
        self, bottleneck: Tensor, audio_logits: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode (batch, bottleneck_dim) into `video_recon`, `audio_recon` and `text_recon`.

        With `use_encodec`, `audio_recon` holds integer codes (batch, n_codebooks,
        audio_frames_per_tr), or, if `audio_logits`, the logits over the 1,024 entries of each
        codebook as a last axis.
        """
        check_shape("bottleneck", bottleneck, (self.bottleneck_dim,))
        shared = maybe_checkpoint(self.trunk, bottleneck, self.gradient_checkpointing)
        parts = dict(
            zip(self.present, torch.tensor_split(shared, len(self.present), dim=1), strict=True)
        )
        recon = {name: getattr(self, f"{name}_decoder")(part) for name, part in parts.items()}
        if self.use_encodec and not audio_logits:
            recon["audio"] = recon["audio"].argmax(dim=-1)
        absent = shared.new_zeros(len(shared), 0)
        return tuple(recon.get(name, absent) for name in ("video", "audio", "text"))
