"""Layers 1-6: stimulus (video, audio, text) -> predicted fMRI -> bottleneck."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from giblet.models.layers import (
    check_shape,
    hidden_block,
    maybe_checkpoint,
    present_modalities,
    scaled,
)

CODEBOOK_SIZE = 1024  # entries in each EnCodec codebook


@dataclass(frozen=True)
class Units:
    """How many units a hidden width of the seed has.

    Parameters
    ----------
    width : float
        Scales it.
    n_networks : int
        Networks side by side, each as wide.
    ridge_units : int
        Components of ridge regression beside them, each a pair of units.
    """

    width: float = 1.0
    n_networks: int = 1
    ridge_units: int = 0

    def __call__(self, n_units: int, n_ridge: int = 1) -> int:
        """Units of a layer, with the components of `n_ridge` modalities."""
        return scaled(n_units, self.width) * self.n_networks + 2 * self.ridge_units * n_ridge


SEED = Units()


class VideoEncoder(nn.Sequential):
    """Layer 2A: the flattened frames of one TR, (batch, input_dim) -> (batch, output_features).

    `units` says how many units a width of the seed has, see `MultimodalEncoder`.
    """

    def __init__(self, input_dim: int = 259_200, output_features: int = 1024, units: Units = SEED):
        first = units(4096)
        second = units(2048)
        super().__init__(
            hidden_block(input_dim, first, 0.3),
            hidden_block(first, second, 0.3),
            hidden_block(second, units(output_features), 0.2),
        )


class AudioEncoder(nn.Sequential):
    """Layer 2B: audio features of one TR, (batch, input_features) -> (batch, output_features)."""

    def __init__(self, input_features: int = 128, output_features: int = 256, units: Units = SEED):
        first = units(1024)
        second = units(512)
        super().__init__(
            hidden_block(input_features, first, 0.3),
            hidden_block(first, second, 0.3),
            hidden_block(second, units(output_features), 0.2),
        )


class TextEncoder(nn.Sequential):
    """Layer 2C: the text embedding of one TR, (batch, text_dim) -> (batch, output_features)."""

    def __init__(self, text_dim: int = 1024, output_features: int = 256, units: Units = SEED):
        first = units(512)
        super().__init__(
            hidden_block(text_dim, first, 0.3),
            hidden_block(first, units(output_features), 0.2),
        )


class MultimodalEncoder(nn.Module):
    """Predict every voxel from a stimulus, then squeeze the voxels into the bottleneck.

    A modality of width 0 is absent: its input is (batch, 0), and it has no sub-encoder.

    Parameters
    ----------
    video_input_dim : int
        Values per TR: frames x height x width, flattened (18 x 90 x 160 = 259,200).
    audio_features : int
        Width of the audio input: 128 (mean log-mel) or 2,048 (log-mel spectrogram). With
        `use_encodec` the input is integer codes (batch, n_codebooks, audio_frames_per_tr) instead.
    text_dim, n_voxels, bottleneck_dim : int
        Widths of the text embedding, of Layer 5 and of Layer 6.
    video_output_features, audio_output_features, text_output_features : int
        Widths of the three sub-encoders' outputs before `width` scales them.
    gradient_checkpointing : bool
        Recompute the sub-encoders in the backward pass instead of keeping their activations.
    width : float
        Scales every hidden width; never inputs, voxels or bottleneck.
    n_networks, ridge_units : int
        Networks side by side in Layers 2 to 5, and components of ridge regression of each modality
        beside them, each a pair of units: see `giblet.merging`.
    """

    def __init__(
        self,
        video_input_dim: int = 259_200,
        audio_features: int = 128,
        text_dim: int = 1024,
        n_voxels: int = 85_810,
        bottleneck_dim: int = 2048,
        video_output_features: int = 1024,
        audio_output_features: int = 256,
        text_output_features: int = 256,
        use_encodec: bool = False,
        n_codebooks: int = 8,
        audio_frames_per_tr: int = 112,
        gradient_checkpointing: bool = False,
        width: float = 1.0,
        n_networks: int = 1,
        ridge_units: int = 0,
    ):
        super().__init__()
        self.video_input_dim = video_input_dim
        self.text_dim = text_dim
        self.n_voxels = n_voxels
        self.use_encodec = use_encodec
        self.gradient_checkpointing = gradient_checkpointing
        self.audio_shape = (n_codebooks, audio_frames_per_tr) if use_encodec else (audio_features,)
        n_audio = torch.Size(self.audio_shape).numel()
        self.present = present_modalities(video_input_dim, n_audio, text_dim)
        outputs = {
            "video": video_output_features,
            "audio": audio_output_features,
            "text": text_output_features,
        }
        units = Units(width, n_networks, ridge_units)
        self.video_encoder = self.audio_encoder = self.text_encoder = None
        if "video" in self.present:
            self.video_encoder = VideoEncoder(video_input_dim, outputs["video"], units)
        if "audio" in self.present:
            self.audio_encoder = AudioEncoder(n_audio, outputs["audio"], units)
        if "text" in self.present:
            self.text_encoder = TextEncoder(text_dim, outputs["text"], units)
        n_concatenated = sum(units(outputs[name]) for name in self.present)
        n_features = units(4096, len(self.present))
        self.to_features = nn.Sequential(
            nn.Linear(n_concatenated, n_features), nn.ReLU()
        )  # Layer 4
        self.to_voxels = nn.Linear(n_features, n_voxels)  # Layer 5
        self.to_bottleneck = nn.Linear(n_voxels, bottleneck_dim)  # Layer 6

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return `fmri_pred` (batch, n_voxels) and `bottleneck` (batch, bottleneck_dim).

        Raises ValueError, naming both shapes, where a modality does not have the width of the
        model.
        """
        fmri_pred = self.to_voxels(self.features(video, audio, text))
        return fmri_pred, self.to_bottleneck(fmri_pred)

    def features(self, video: Tensor, audio: Tensor, text: Tensor) -> Tensor:
        """Layers 2 to 4: (batch, n_features), what Layer 5 reads."""
        check_shape("video", video, (self.video_input_dim,))
        check_shape("audio", audio, self.audio_shape)
        check_shape("text", text, (self.text_dim,))
        if (
            self.use_encodec
        ):  # codes are categories 0..1023; centred so that Layer 2B starts near zero
            audio = audio.flatten(1).to(text.dtype) * (2 / (CODEBOOK_SIZE - 1)) - 1
        stimulus = {"video": video, "audio": audio, "text": text}
        features = [
            maybe_checkpoint(
                getattr(self, f"{name}_encoder"), stimulus[name], self.gradient_checkpointing
            )
            for name in self.present
        ]
        return self.to_features(torch.cat(features, dim=1))
