"""Where in the picture a voxel counts: three answers, of which two are weights and one is not.

A decoder's weights are not a receptive field. They subtract from a voxel what others already tell,
noise they share included, and so may be large where the voxel sees nothing, and small where it
does: Haufe et al. 2014, NeuroImage 87:96-110.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd import grad

from giblet.analysis.kernels import stimulus_blocks, stimulus_mean
from giblet.analysis.ridge_decoding import ridge_decoder
from giblet.data import MultimodalDataset
from giblet.data.video import LIGHT
from giblet.models import MultimodalAutoencoder

FIELDS = ("decoder", "ridge", "covariance")
N_TRS = 64  # at which the decoder's slope is taken
BATCH_VOXELS = 64  # whose fields are in memory at a time, all frames of a TR


def receptive_fields(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    voxels: Sequence[int] | np.ndarray,
    of: str = "decoder",
) -> np.ndarray:
    """What each voxel adds to the light of the picture, mean over the frames of a TR.

    Parameters
    ----------
    dataset : MultimodalDataset
        With a film; its training TRs are used.
    voxels : (n,) int
    of : 'decoder', 'ridge' or 'covariance'
        'decoder' is the mean signed Jacobian of the model's decoder over training TRs of the
        measured brain. 'ridge' is the weight of ridge decoding. 'covariance' is that of voxel and
        pixel over the training TRs, without any model.

    Returns
    -------
    (n, height, width) float32

    Raises
    ------
    ValueError
        If `of` is none of these, or the data have no film.
    """
    if of not in FIELDS:
        raise ValueError(f"of is {of!r}, expected one of {', '.join(FIELDS)}.")
    if "video" not in dataset.present or dataset.video_processor is None:
        raise ValueError("the data have no pictures for receptive fields: take data with a film.")
    train = dataset.select("train", average=True)
    chosen = np.asarray(voxels)
    weights: Tensor | np.ndarray
    if of == "decoder":
        weights = _decoder_weights(model, train, chosen)
    elif of == "ridge":
        weights = ridge_decoder(train, "video").weights(chosen)
    else:
        responses = train.fmri()[:, chosen]
        weights = (responses - responses.mean(0)).T / len(responses)
    batches = torch.as_tensor(weights, dtype=torch.float32).split(BATCH_VOXELS)
    if of == "decoder":
        fields = (model.video_basis.expand(batch).cpu() for batch in batches)
    else:
        fields = (_summed(train, batch) for batch in batches)
    return np.concatenate([_light(values, train) for values in fields])


def _decoder_weights(
    model: MultimodalAutoencoder, train: MultimodalDataset, voxels: np.ndarray
) -> Tensor:
    """Mean slope of the decoded video, in coordinates, with each voxel: (n, n_coordinates).

    The slope with a unit of the bottleneck by two backward passes, the second through the first:
    what the first gives is linear in what it is given, which all TRs share.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = np.linspace(0, train.n_trs - 1, min(N_TRS, train.n_trs)).astype(int)
    bottleneck = model.fmri_to_bottleneck(torch.from_numpy(train.fmri()[rows]).to(device)).detach()
    bottleneck.requires_grad_()
    video = model.core.decode(bottleneck)["video_recon"]
    given = torch.zeros(video.shape[1], device=device, requires_grad=True)
    (back,) = grad(video, bottleneck, given.expand_as(video), create_graph=True)
    slopes = [grad(unit, given, retain_graph=True)[0] for unit in back.mean(0)]
    ones = torch.eye(len(voxels), device=device)
    with torch.no_grad():
        return model.bottleneck_change(ones, torch.from_numpy(voxels)) @ torch.stack(slopes)


def _summed(train: MultimodalDataset, weights: Tensor) -> Tensor:
    """Training video beyond its mean, summed with weights (n, n_train): (n, video_dim)."""
    total = -weights.sum(1, keepdim=True) * stimulus_mean("video", train)
    for rows, shown in stimulus_blocks("video", train):
        total.addmm_(weights[:, rows], shown)
    return total


def _light(values: Tensor, dataset: MultimodalDataset) -> np.ndarray:
    """Mean light over the frames of a TR: (n, video_dim) -> (n, height, width)."""
    video = dataset.video_processor
    own = dataset.without_context("video", values)
    frames = own.reshape(len(own), -1, *video.frame_shape).mean(1).numpy()
    return frames @ LIGHT if video.colour else frames


def field_centres(fields: np.ndarray) -> np.ndarray:
    """Where fields (n, height, width) are, across and down in shares of the picture: (n, 2).

    The centre of mass of the squares of what is positive.
    """
    mass = np.square(np.maximum(fields, 0))
    mass = mass / np.maximum(mass.sum((1, 2), keepdims=True), 1e-30)
    height, width = fields.shape[1:]
    across = mass.sum(1) @ ((np.arange(width) + 0.5) / width)
    down = mass.sum(2) @ ((np.arange(height) + 0.5) / height)
    return np.stack([across, down], axis=1)
