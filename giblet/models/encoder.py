"""Layers 1-6: stimulus (video, audio, text) -> predicted fMRI -> bottleneck."""

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


class VideoEncoder(nn.Sequential):
    """Layer 2A: the flattened frames of one TR, (batch, input_dim) -> (batch, output_features)."""

    def __init__(self, input_dim: int = 259_200, output_features: int = 1024, width: float = 1.0):
        first = scaled(4096, width)
        second = scaled(2048, width)
        super().__init__(
            hidden_block(input_dim, first, 0.3),
            hidden_block(first, second, 0.3),
            hidden_block(second, scaled(output_features, width), 0.2),
        )


class AudioEncoder(nn.Sequential):
    """Layer 2B: audio features of one TR, (batch, input_features) -> (batch, output_features)."""

    def __init__(self, input_features: int = 128, output_features: int = 256, width: float = 1.0):
        first = scaled(1024, width)
        second = scaled(512, width)
        super().__init__(
            hidden_block(input_features, first, 0.3),
            hidden_block(first, second, 0.3),
            hidden_block(second, scaled(output_features, width), 0.2),
        )


class TextEncoder(nn.Sequential):
    """Layer 2C: the text embedding of one TR, (batch, text_dim) -> (batch, output_features)."""

    def __init__(self, text_dim: int = 1024, output_features: int = 256, width: float = 1.0):
        first = scaled(512, width)
        super().__init__(
            hidden_block(text_dim, first, 0.3),
            hidden_block(first, scaled(output_features, width), 0.2),
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
        self.video_encoder = self.audio_encoder = self.text_encoder = None
        if "video" in self.present:
            self.video_encoder = VideoEncoder(video_input_dim, outputs["video"], width)
        if "audio" in self.present:
            self.audio_encoder = AudioEncoder(n_audio, outputs["audio"], width)
        if "text" in self.present:
            self.text_encoder = TextEncoder(text_dim, outputs["text"], width)
        n_concatenated = sum(scaled(outputs[name], width) for name in self.present)
        n_features = scaled(4096, width)
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
        fmri_pred = self.to_voxels(self.to_features(torch.cat(features, dim=1)))
        return fmri_pred, self.to_bottleneck(fmri_pred)
