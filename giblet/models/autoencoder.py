"""The multimodal autoencoder: stimulus -> voxels -> bottleneck -> stimulus, with a dual loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from giblet.basis import Basis, Span
from giblet.models.decoder import MultimodalDecoder
from giblet.models.encoder import MultimodalEncoder


@dataclass(frozen=True, eq=False)
class Merged:
    """What a merged model is made of, and what it explained before it saw the validation TRs.

    Parameters
    ----------
    ridge_weight : (n_voxels,)
        Share of ridge regression in the weighted mean; the networks have the rest.
    pooling : (str, str)
        Over which voxels ridge regression pooled band weights and shrinkage, see
        `giblet.analysis.ridge.Shrinkage`.
    readout_alpha : (n_networks, n_voxels)
        Shrinkage of each network's Layer 5 on its Layer 4, relative to the power of the latter.
    explained : {name: (n_voxels,)}
        Fields of `giblet.analysis.sources.Explained`, of the same steps on training TRs alone.
    network : MultimodalAutoencoder
        The networks alone, with the same Layer 5 on them.
    """

    ridge_weight: np.ndarray
    pooling: tuple[str, str]
    readout_alpha: np.ndarray
    explained: dict[str, np.ndarray]
    network: "MultimodalAutoencoder"


MODALITIES = ("video", "audio", "text", "fmri")
WEIGHTING = ("weight", "video_floor", "fmri_floor")  # of a batch, see `compute_loss`


class MultimodalAutoencoder(nn.Module):
    """Encoder and decoder with the reconstruction and the fMRI-matching loss.

    Parameters
    ----------
    video_height, video_width, video_frames : int
        Size of the frames of one TR; `video_dim` may be given instead of the three.
    audio_features : int
        Width of the audio input and reconstruction: 128 or 2,048. Not used with `use_encodec`.
    text_dim, n_voxels, bottleneck_dim : int
        Widths of the text embedding, of the predicted fMRI and of the bottleneck. A modality whose
        `video_dim`, `audio_features` or `text_dim` is 0 is absent: no module is built for it, its
        input and reconstruction are (batch, 0), and its loss is 0.
    video_output_features, audio_output_features, text_output_features : int
        Widths of the sub-encoders; `video_features` and `text_features` are aliases.
    decoder_hidden_dim, decoder_dropout
        Width of Layer 10 and dropout of Layers 8-11.
    reconstruction_weight, fmri_weight, measured_weight : float
        Weights of the reconstruction from the predicted brain, of the fMRI matching, and of the
        reconstruction from the measured brain.
    video_weight, audio_weight, text_weight : float
        Weights of the three modalities within a reconstruction loss.
    use_encodec, n_codebooks, audio_frames_per_tr
        Audio as integer EnCodec codes (batch, n_codebooks, audio_frames_per_tr).
    gradient_checkpointing : bool
        Recompute hidden activations in the backward pass to save memory.
    width : float
        Scales every hidden width; never inputs, voxels or bottleneck.
    dropout_scale : float
        Scales every dropout of the seed, `decoder_dropout` too; 0 is none.
    decoder_rate : float
        Share of the learning rate at which Layers 6 to 13 train.
    n_networks, ridge_units : int
        Networks side by side in Layers 2 to 5, and components of ridge regression of each modality
        beside them, see `giblet.merging`. Such a model is for evaluation.

    Attributes
    ----------
    trained_on : dict or None
        What the trainer or the checkpoint says of the training data, see `giblet.data.provenance`.
    started_as : str
        'ridge' where Layers 6 to 13 started as ridge decoding, see `giblet.ridge_start`.
    span : Span or None
        Bases in which a `SpanAutoencoder` is trained.
    video_basis, fmri_basis, output_basis : Basis
        From pixels and voxels to what `core` reads, and to what its Layer 5 gives; here values are
        their own coordinates.
    merged : Merged or None
        What the layers of a merged model are made of, see `giblet.merging`.
    """

    trained_on: dict | None = None
    started_as: str = "random"
    span: Span | None = None
    merged: Merged | None = None

    def __init__(
        self,
        video_height: int = 90,
        video_width: int = 160,
        video_frames: int = 18,
        audio_features: int = 128,
        text_dim: int = 1024,
        n_voxels: int = 85_810,
        bottleneck_dim: int = 2048,
        video_output_features: int = 1024,
        audio_output_features: int = 256,
        text_output_features: int = 256,
        decoder_hidden_dim: int = 2048,
        decoder_dropout: float = 0.3,
        reconstruction_weight: float = 1.0,
        fmri_weight: float = 1.0,
        measured_weight: float = 0.0,
        video_weight: float = 1.0,
        audio_weight: float = 1.0,
        text_weight: float = 1.0,
        use_encodec: bool = False,
        n_codebooks: int = 8,
        audio_frames_per_tr: int = 112,
        gradient_checkpointing: bool = False,
        width: float = 1.0,
        dropout_scale: float = 1.0,
        decoder_rate: float = 1.0,
        n_networks: int = 1,
        ridge_units: int = 0,
        video_dim: int | None = None,
        video_features: int | None = None,
        text_features: int | None = None,
    ):
        config = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        super().__init__()
        if video_dim is None:
            config["video_dim"] = video_frames * video_height * video_width
        config["video_output_features"] = config.pop("video_features") or video_output_features
        config["text_output_features"] = config.pop("text_features") or text_output_features
        self._config = config
        self.reconstruction_weight = reconstruction_weight
        self.fmri_weight = fmri_weight
        self.measured_weight = measured_weight
        self.modality_weights = (video_weight, audio_weight, text_weight)
        self.n_values = {
            "video": config["video_dim"],
            "fmri": n_voxels,
        }  # what their squared errors are divided by
        self.use_encodec = use_encodec
        names = (
            "text_dim",
            "bottleneck_dim",
            "use_encodec",
            "n_codebooks",
            "audio_frames_per_tr",
            "width",
        )
        shared = {name: config[name] for name in (*names, "gradient_checkpointing")}
        self.video_basis = Basis(config["video_dim"])
        self.fmri_basis = Basis(n_voxels)
        self.output_basis = self.fmri_basis
        self.encoder = MultimodalEncoder(
            video_input_dim=config["video_dim"],
            audio_features=audio_features,
            n_voxels=n_voxels,
            video_output_features=config["video_output_features"],
            audio_output_features=audio_output_features,
            text_output_features=config["text_output_features"],
            n_networks=n_networks,
            ridge_units=ridge_units,
            **shared,
        )
        self.decoder = MultimodalDecoder(
            video_dim=config["video_dim"],
            audio_dim=audio_features,
            hidden_dim=decoder_hidden_dim,
            dropout=decoder_dropout,
            **shared,
        )
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p *= dropout_scale

    @property
    def core(self) -> "MultimodalAutoencoder":
        """The layers that are trained, between coordinates of `video_basis` and `fmri_basis`."""
        return self

    @property
    def bases(self) -> dict[str, str] | None:
        """Name and place of the bases that the weights refer to, for a checkpoint."""
        if self.span is None:
            return None
        return {"id": self.span.id, "path": str(self.span.path.resolve())}

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Predict the brain and reconstruct the stimulus from the prediction.

        Parameters
        ----------
        video : (batch, video_dim), audio : (batch, audio_features), text : (batch, text_dim)
            With `use_encodec`, audio is integer codes (batch, n_codebooks, audio_frames_per_tr).

        Returns
        -------
        dict
            `fmri_pred` (batch, n_voxels), `bottleneck` (batch, bottleneck_dim), `video_recon`,
            `audio_recon` and `text_recon` shaped as the inputs; with `use_encodec` also
            `audio_logits`.
        """
        fmri_pred, bottleneck = self.encoder(video, audio, text)
        return {"fmri_pred": fmri_pred, "bottleneck": bottleneck, **self.decode(bottleneck)}

    def decode(self, bottleneck: Tensor) -> dict[str, Tensor]:
        """Reconstruct from (batch, bottleneck_dim): the `*_recon` entries of `forward`."""
        video_recon, audio_recon, text_recon = self.decoder(
            bottleneck, audio_logits=self.use_encodec
        )
        outputs = {"video_recon": video_recon, "audio_recon": audio_recon, "text_recon": text_recon}
        if self.use_encodec:
            outputs |= {"audio_logits": audio_recon, "audio_recon": audio_recon.argmax(dim=-1)}
        return outputs

    def fmri_to_bottleneck(self, fmri: Tensor) -> Tensor:
        """Layer 6 on a measured brain: (batch, n_voxels) -> (batch, bottleneck_dim)."""
        return self.encoder.to_bottleneck(fmri)

    def decode_fmri(self, fmri: Tensor) -> dict[str, Tensor]:
        """Reconstruct the stimulus from a measured brain (batch, n_voxels), as `decode` does."""
        return self.decode(self.fmri_to_bottleneck(fmri))

    def bottleneck_change(self, change: Tensor, voxels: Tensor) -> Tensor:
        """What a change (batch, n_changed) in some voxels adds to the bottleneck.

        Parameters
        ----------
        voxels : (n_changed,) int
            Indices of the voxels that change.
        """
        return F.linear(change, self.encoder.to_bottleneck.weight[:, voxels])

    def decode_pixels(self, bottleneck: Tensor, pixels: slice) -> Tensor:
        """Some values of the reconstructed video: (batch, n_pixels)."""
        return self.decoder.video(bottleneck)[:, pixels]

    def project_video(self, video: Tensor) -> Tensor:
        """The reconstruction of (batch, video_dim) that comes nearest among all it can give."""
        return self.video_basis.expand(self.video_basis.coordinates(video))

    def batch_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], Tensor]:
        """The loss of a batch as a data set gives it, its terms, and the predicted fMRI."""
        video, audio, text, fmri = (batch[name] for name in MODALITIES)
        outputs = self(video, audio, text)
        weighting = {name: batch[name] for name in WEIGHTING if name in batch}
        loss, losses = self.compute_loss(outputs, fmri, video, audio, text, **weighting)
        return loss, losses, outputs["fmri_pred"]

    def compute_loss(
        self,
        outputs: dict[str, Tensor],
        fmri_target: Tensor,
        video_target: Tensor,
        audio_target: Tensor,
        text_target: Tensor,
        weight: Tensor | None = None,
        video_floor: Tensor | None = None,
        fmri_floor: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The dual loss and its terms.

        Video and audio are mean squared errors in the units of the features (pixels in 0..1, audio
        in SDs), text is 1 - cosine, fMRI is a mean squared error in SDs of each voxel. With
        `use_encodec` audio is the cross-entropy of the codes in nats.

        Parameters
        ----------
        weight : (batch,), optional
            Of each TR in the mean over the batch: with the mean of the subjects as target, the
            share of them that were measured.
        video_floor, fmri_floor : (batch,), optional
            Mean squared errors that no output can undo, added to those of each TR: of a mean over
            subjects, their variance around it; of coordinates, what lies outside the basis.

        Returns
        -------
        loss : scalar Tensor
            reconstruction_weight * reconstruction + fmri_weight * fmri
            (+ measured_weight * measured_recon).
        losses : dict of float
            `total, reconstruction, fmri, video_recon, audio_recon, text_recon` (before the weights
            of the modalities), and `measured_recon` where `measured_weight` > 0.

        Raises
        ------
        ValueError
            Where a target does not have the shape of the output; both shapes are named.
        """
        targets = (video_target, audio_target, text_target)

        def mean(rows: Tensor, floor: Tensor | None = None) -> Tensor:
            rows = rows if floor is None else rows + floor
            return rows.mean() if weight is None else (weight * rows).mean()

        def reconstruction(outputs: dict[str, Tensor]) -> list[Tensor]:
            rows = self._reconstruction_errors(outputs, *targets)
            return [mean(*row) for row in zip(rows, (video_floor, None, None), strict=True)]

        terms = reconstruction(outputs)
        losses = {
            "reconstruction": self._weighted(terms),
            "fmri": mean(
                self._squared_errors("fmri", outputs["fmri_pred"], fmri_target), fmri_floor
            ),
            **dict(zip(("video_recon", "audio_recon", "text_recon"), terms, strict=True)),
        }
        total = (
            self.reconstruction_weight * losses["reconstruction"]
            + self.fmri_weight * losses["fmri"]
        )
        if self.measured_weight:
            losses["measured_recon"] = self._weighted(reconstruction(self.decode_fmri(fmri_target)))
            total = total + self.measured_weight * losses["measured_recon"]
        losses = {"total": total, **losses}
        values = torch.stack([value.detach() for value in losses.values()]).tolist()
        return total, dict(zip(losses, values, strict=True))

    def _weighted(self, terms: list[Tensor]) -> Tensor:
        return sum(weight * term for weight, term in zip(self.modality_weights, terms, strict=True))

    def _reconstruction_errors(
        self, outputs: dict, video: Tensor, audio: Tensor, text: Tensor
    ) -> tuple[Tensor, ...]:
        """Errors of each TR, three times (batch,)."""
        if self.use_encodec:
            _check_target("audio", outputs["audio_recon"], audio)
            logits = outputs["audio_logits"].float().flatten(0, 2)
            audio_errors = F.cross_entropy(logits, audio.long().flatten(), reduction="none")
            audio_errors = audio_errors.view(len(audio), -1).mean(1)
        else:
            audio_errors = self._squared_errors("audio", outputs["audio_recon"], audio)
        _check_target("text", outputs["text_recon"], text)
        cosine = F.cosine_similarity(_full(outputs["text_recon"]), text, dim=1)
        text_errors = (
            1 - cosine if text.shape[1] else cosine
        )  # the cosine of nothing with nothing is 0
        return (
            self._squared_errors("video", outputs["video_recon"], video),
            audio_errors,
            text_errors,
        )

    def _squared_errors(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each TR: (batch,)."""
        _check_target(name, output, target)
        n_values = self.n_values.get(name, target.shape[1])
        return (_full(output) - target).square().sum(1) / max(
            n_values, 1
        )  # 0 where the modality is absent

    def get_config(self) -> dict[str, int | float | bool]:
        """The constructor's arguments.

        `MultimodalAutoencoder(**model.get_config())` is the same model.
        """
        return dict(self._config)

    def parameter_count(self) -> int:
        """Number of trained parameters; also on the meta device."""
        return sum(p.numel() for p in self.parameters())

    def memory_estimate(self, batch_size: int = 32) -> dict[str, int]:
        """Bytes to train in float32 with Adam.

        `parameters, gradients, optimizer, activations, total`.

        Activations are what autograd keeps for one batch. All is counted on the meta device:
        nothing is allocated.
        """
        with torch.device("meta"):
            twin = MultimodalAutoencoder(**self._config)
            activations = _saved_bytes(twin, self._config["video_dim"], batch_size)
        parameters = 4 * self.parameter_count()
        parts = {"parameters": parameters, "gradients": parameters, "optimizer": 2 * parameters}
        return parts | {"activations": activations, "total": sum(parts.values()) + activations}


def _saved_bytes(model: MultimodalAutoencoder, video_dim: int, batch_size: int) -> int:
    """Bytes that autograd saves between forward and backward, parameters aside."""
    video = torch.empty(batch_size, video_dim)
    text = torch.empty(batch_size, model.encoder.text_dim)
    audio = torch.empty(batch_size, *model.encoder.audio_shape)
    fmri = torch.empty(batch_size, model.encoder.n_voxels)
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(video, audio, text)
        kept = [model._squared_errors("fmri", outputs["fmri_pred"], fmri)]
        for decoded in [outputs] + [model.decode_fmri(fmri)] * bool(model.measured_weight):
            kept += model._reconstruction_errors(decoded, video, audio, text)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(
        tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in weights
    )


def _full(x: Tensor) -> Tensor:
    """float64 stays, everything narrower is compared in float32."""
    return x if x.dtype == torch.float64 else x.float()


def _check_target(name: str, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ValueError(
            f"{name}_target has shape {tuple(target.shape)} but the model gave "
            f"{tuple(output.shape)}: "
            f"targets are never cut or stretched to fit, so give the model the widths of the data."
        )
