"""Span training: the full-size model in the coordinates of what training saw.

Gradient descent moves the matrices that touch pixels or voxels only within the span of the training
movie and of the training responses. With orthonormal bases of the two, these matrices are small and
their training is the same.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from giblet.basis import Basis, Span
from giblet.models.autoencoder import MultimodalAutoencoder
from giblet.models.decoder import MultimodalDecoder
from giblet.models.encoder import MultimodalEncoder
from giblet.models.layers import check_shape


class SpanEncoder(nn.Module):
    """A `MultimodalEncoder` in coordinates, seen from outside as the full-size one."""

    def __init__(
        self, core: MultimodalEncoder, video_basis: Basis, fmri_basis: Basis, output_basis: Basis
    ):
        super().__init__()
        self.core = core
        self.video_basis = video_basis
        self.fmri_basis = fmri_basis
        self.output_basis = output_basis

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return `fmri_pred` (batch, n_voxels) and `bottleneck` (batch, bottleneck_dim)."""
        fmri_pred = self.core.to_voxels(self.features(video, audio, text))
        voxels = self.output_basis.expand(fmri_pred)
        if self.output_basis is self.fmri_basis:
            return voxels, self.core.to_bottleneck(fmri_pred)
        return voxels, self.to_bottleneck(voxels)

    def features(self, video: Tensor, audio: Tensor, text: Tensor) -> Tensor:
        """As `MultimodalEncoder.features`."""
        check_shape("video", video, (self.video_basis.n_values,))
        return self.core.features(self.video_basis.coordinates(video), audio, text)

    def to_bottleneck(self, fmri: Tensor) -> Tensor:
        """Layer 6: (batch, n_voxels) -> (batch, bottleneck_dim)."""
        check_shape("fmri", fmri, (self.fmri_basis.n_values,))
        return self.core.to_bottleneck(self.fmri_basis.coordinates(fmri))


class SpanDecoder(nn.Module):
    """A `MultimodalDecoder` in coordinates, seen from outside as the full-size one."""

    def __init__(self, core: MultimodalDecoder, video_basis: Basis):
        super().__init__()
        self.core = core
        self.video_basis = video_basis

    def forward(
        self, bottleneck: Tensor, audio_logits: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `MultimodalDecoder`."""
        video, audio, text = self.core(bottleneck, audio_logits)
        return self.video_basis.expand(video), audio, text


class SpanAutoencoder(MultimodalAutoencoder):
    """The full-size model whose widest layers live in the span of the training data.

    Everything of `MultimodalAutoencoder` works as it does there, in pixels and voxels. Training
    runs on `core`, the same layers between coordinates: its losses are those of the full-size
    model.

    Parameters
    ----------
    span : Span
        Bases of the training set, from `giblet.data.fit_span`.
    output_basis : Basis, optional
        What Layer 5 gives its coordinates in, where it was solved for each voxel after training,
        see `giblet.merging`; default the basis of the responses. Such a model is for evaluation.
    **settings
        Arguments of `MultimodalAutoencoder`; the sizes of video and fMRI are those of the span.

    Attributes
    ----------
    core : MultimodalAutoencoder
        Takes coordinates as `video` and gives them as `fmri_pred` and `video_recon`. Its initial
        weights have the scale that those of the full-size model have within the span.
    """

    def __init__(self, span: Span, output_basis: Basis | None = None, **settings):
        video_basis = span.basis("video")
        fmri_basis = span.basis("fmri")
        with torch.device("meta"):
            super().__init__(
                **({"video_dim": video_basis.n_values, "n_voxels": fmri_basis.n_values} | settings)
            )
        wanted = {"video": video_basis.n_values, "fmri": fmri_basis.n_values}
        if self.n_values != wanted:
            raise ValueError(
                f"the model has sizes {self.n_values}, expected {wanted} as the bases in "
                f"{span.path}."
            )
        del self.encoder, self.decoder
        self.span = span
        self.video_basis = video_basis
        self.fmri_basis = fmri_basis
        self.output_basis = output_basis or fmri_basis
        sizes = {"video_dim": video_basis.n_coordinates, "n_voxels": fmri_basis.n_coordinates}
        self.core = MultimodalAutoencoder(**(self._config | sizes))
        self.core.n_values = self.n_values
        if output_basis is not None:
            to_voxels = self.core.encoder.to_voxels
            self.core.encoder.to_voxels = nn.Linear(
                to_voxels.in_features, output_basis.n_coordinates
            )
        for name, basis in self._input_layers.items():
            for parameter in self.core.get_submodule(name).parameters():
                nn.init.uniform_(parameter, -(basis.n_values**-0.5), basis.n_values**-0.5)
        bases = (video_basis, fmri_basis, self.output_basis)
        views = {"encoder": SpanEncoder(self.core.encoder, *bases)}
        views["decoder"] = SpanDecoder(self.core.decoder, video_basis)
        self.__dict__.update(views)  # their parameters are those of core, and counted there

    @property
    def core(self) -> MultimodalAutoencoder:
        """The model between coordinates."""
        return self._modules["core"]

    def bottleneck_change(self, change: Tensor, voxels: Tensor) -> Tensor:
        """As `MultimodalAutoencoder.bottleneck_change`, through the basis of the voxels."""
        vectors = self.fmri_basis.vectors
        if vectors is None:
            return self.core.bottleneck_change(change, voxels)
        return linear(change @ vectors[voxels], self.core.encoder.to_bottleneck.weight)

    def decode_pixels(self, bottleneck: Tensor, pixels: slice) -> Tensor:
        """As `MultimodalAutoencoder.decode_pixels`; only these pixels are expanded."""
        vectors = self.video_basis.vectors
        if vectors is None:
            return self.core.decode_pixels(bottleneck, pixels)
        return (vectors[pixels] @ self.core.decoder.video(bottleneck).T).T

    @property
    def _input_layers(self) -> dict[str, Basis]:
        """Layers of `core` that read coordinates, with their bases."""
        layers = {
            "encoder.video_encoder.0.0": self.video_basis,
            "encoder.to_bottleneck": self.fmri_basis,
        }
        return {name: basis for name, basis in layers.items() if basis.n_values > 0}

    @property
    def _output_layers(self) -> dict[str, Basis]:
        """Layers of `core` that give coordinates, with their bases."""
        layers = {
            "encoder.to_voxels": self.output_basis,
            "decoder.video_decoder.2": self.video_basis,
        }
        return {name: basis for name, basis in layers.items() if basis.n_values > 0}

    def memory_estimate(self, batch_size: int = 32) -> dict[str, int]:
        """Bytes to train `core` in float32 with Adam.

        As `MultimodalAutoencoder.memory_estimate`.
        """
        return self.core.memory_estimate(batch_size)

    @torch.no_grad()
    def materialize(self) -> MultimodalAutoencoder:
        """The same model with its full-size weights: 7.74 GB at the seed's sizes."""
        with torch.device("meta"):
            direct = MultimodalAutoencoder(**self._config)
        state = {name: value.clone() for name, value in self.core.state_dict().items()}
        for name, basis in self._output_layers.items():
            state[f"{name}.weight"] = basis.expand(state[f"{name}.weight"].T).T.contiguous()
            state[f"{name}.bias"] = basis.expand(state[f"{name}.bias"])
        for name, basis in self._input_layers.items():
            state[f"{name}.weight"] = basis.expand(state[f"{name}.weight"])
        direct.load_state_dict(state, assign=True)
        direct.trained_on = self.trained_on
        direct.merged = self.merged
        return direct.train(self.training)
