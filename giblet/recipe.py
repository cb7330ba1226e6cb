"""The kit's recipe: what `giblet train` and the notebooks take by default."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from giblet.alignment.splits import SPLITS
from giblet.basis import Span
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor, fit_span
from giblet.files import expanded
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.ridge_start import start_from_ridge

# Colour pictures of 9 x 45 x 80 and an eighth of the seed's hidden widths fit a few hundred TRs and
# two CPU cores.
VIDEO = VideoProcessor(height=45, width=80, frame_skip=4, colour=True)
LAYER_3 = {"video": 1024, "audio": 256, "text": 256}  # features of each modality at width 1
# The mean response of several subjects has an MSE of about a fifth of audio's or text's; 10 puts
# the brain first.
WEIGHTS = {"measured_weight": 1.0, "fmri_weight": 10.0}
FILM_WEIGHT = 15.0  # pixels in 0..1 vary by about a fifteenth of features in SDs
# A decoder that starts as ridge decoding is moved gently, and dropout would undo it.
GENTLY = {"decoder_dropout": 0.0, "decoder_rate": 0.02}


@dataclass(frozen=True)
class Recipe:
    """Features of the movie, and arguments of the model and of `MultimodalDataset`.

    Sizes of the data are not among them. With `ridge_start` the decoder starts as ridge decoding,
    see `giblet.ridge_start`; otherwise at random, as the seed's.
    """

    video: VideoProcessor
    audio: AudioProcessor
    model: dict
    data: dict = field(default_factory=dict)
    ridge_start: bool = True


SMALL = Recipe(
    VIDEO,
    AudioProcessor("mel"),
    {"width": 1 / 8, "bottleneck_dim": 256, "dropout_scale": 0.3} | WEIGHTS | GENTLY,
)
FULL_SIZE = Recipe(VideoProcessor(), AudioProcessor("mel"), WEIGHTS | GENTLY)


def open_data(
    data: str | Path | MultimodalDataset | Mapping[str, MultimodalDataset],
    recipe: Recipe = SMALL,
    progress: bool = True,
    average: bool = True,
    **settings,
) -> dict[str, MultimodalDataset]:
    """The data of a run, split: {'train', 'val', 'test' and 'all': data set}.

    `open_data("derivatives/fmriprep", task="film", stimuli="stimuli/")` opens what fMRIPrep wrote.

    Parameters
    ----------
    data : folder, a data set of any split, or what this function returned
        A folder with a dataset.toml, or of fMRIPrep's derivatives, see data/README.md. A data set
        keeps its features.
    recipe : Recipe
        Its features are made of a folder.
    average : bool
        Train on the mean response of the subjects. Otherwise, and where `data` came from a call
        with False, 'train' has one item per subject and TR; the other splits are means in any case.
    **settings
        Arguments of `MultimodalDataset` for a folder, before those of the recipe, entries of
        dataset.toml, and `colour`, of its `VideoProcessor`. `cache_dir` is where the features are
        kept, and changes no result.
    """
    if isinstance(data, Mapping):
        average = average and data["train"].average
        data = data["all"]
    if not isinstance(data, MultimodalDataset):
        settings = _data_settings(recipe, settings)
        data = MultimodalDataset(expanded(data), progress=progress, **settings)
    elif settings:
        raise ValueError(
            f"{', '.join(settings)} are settings of a folder: open the data set with them."
        )
    whole = data.select("all", average=True)
    parts = {split: whole.select(split) for split in SPLITS} | {"all": whole}
    return parts if average else parts | {"train": parts["train"].per_subject()}


def _data_settings(recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `MultimodalDataset`: those given, then those of the recipe."""
    given: dict[str, Any] = {
        "video_processor": recipe.video,
        "audio_processor": recipe.audio,
    }
    given |= recipe.data | settings
    if given.get("cache_dir") is not None:
        given["cache_dir"] = expanded(given["cache_dir"])
    if "colour" in given:
        colour = given.pop("colour")
        given["video_processor"] = replace(given["video_processor"], colour=colour)
    return given


def build_model(
    dataset: MultimodalDataset,
    random_state: int = 0,
    recipe: Recipe = SMALL,
    direct: bool = False,
    progress: bool = True,
    span_dir: str | Path | None = None,
    span: Span | None = None,
    **settings,
) -> MultimodalAutoencoder:
    """The recipe's model for a training set; `settings` override the recipe's.

    Parameters
    ----------
    random_state : int
        Seeds the initial weights.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the
        training data, which is what a `SpanAutoencoder` holds. Taken wherever the TRs are as many
        as pixels and voxels, or the training items are not means of the subjects.
    span_dir : folder, optional
        As `folder` of `fit_span`.
    span : Span, optional
        Bases of this training set that exist already; default those of `fit_span`.

    Raises
    ------
    ValueError
        If `width` or `bottleneck_dim` is no positive number, or every stimulus is absent.
    """
    sizes: dict[str, Any] = dict(dataset.model_dims)
    settings = _recipe_settings(recipe, dataset) | settings
    for name in ("width", "bottleneck_dim"):
        if name in settings and not 0 < settings[name] < math.inf:
            raise ValueError(f"{name} is {settings[name]}, expected a positive number.")
    many_trs = dataset.n_trs >= max(sizes["video_dim"], sizes["n_voxels"])
    direct = direct or many_trs or not dataset.average
    if direct:
        span = None
    elif span is None:
        span = fit_span(dataset, span_dir, progress=progress)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(random_state)
        if span is None:
            model = MultimodalAutoencoder(**(sizes | settings))
        else:
            model = SpanAutoencoder(span, **(sizes | settings))
    if recipe.ridge_start:
        _start_decoder(model, dataset)
    return model


def _start_decoder(model: MultimodalAutoencoder, dataset: MultimodalDataset) -> None:
    """Start as ridge decoding, or say why not; on the meta device there is nothing to start."""
    if next(model.parameters()).is_meta:
        return
    try:
        start_from_ridge(model, dataset.select(dataset.split, average=True))
    except ValueError as error:
        print(f"The decoder starts at random: {error}")


def _recipe_settings(recipe: Recipe, dataset: MultimodalDataset) -> dict[str, Any]:
    """The recipe's arguments of the model, its `width` raised where a modality is absent.

    At an eighth of the seed's widths the text encoder alone would leave 32 numbers of the movie.
    So Layer 3 keeps the 192 features that the three encoders have together.
    """
    present = dataset.present
    if not present:
        raise ValueError(
            "video, audio and text are each missing or the same in every training TR: give a data "
            "set in which at least one of them changes."
        )
    settings = dict(recipe.model)
    if dataset.video_processor is not None:
        settings.setdefault("video_weight", FILM_WEIGHT)
    if "width" in settings:
        n_features = sum(LAYER_3[name] for name in present)
        settings["width"] *= sum(LAYER_3.values()) / n_features
    return settings
