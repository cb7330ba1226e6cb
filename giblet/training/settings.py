"""Settings of a run: those given, and those that a checkpoint holds."""

import inspect

from giblet.data import AudioProcessor, MultimodalDataset, TextProcessor, VideoProcessor
from giblet.data.entries import ENTRIES
from giblet.models import MultimodalAutoencoder
from giblet.training.config import TrainingConfig

SPLITTING = ("context", "fractions", "test_runs")
PROCESSORS = ("video_processor", "audio_processor", "text_processor")
REGIONS = ("regions", "region_names")
OF_FOLDER = tuple(
    name for name in ENTRIES if name not in (*SPLITTING, *REGIONS, "subjects", "simulation")
)
DATA = ("subjects", "average", *SPLITTING, "colour", *PROCESSORS, *REGIONS, "cache_dir", *OF_FOLDER)
KINDS = {"video": VideoProcessor, "audio": AudioProcessor, "text": TextProcessor}
MERGED = ("n_networks", "ridge_units")  # of a model that is made after training
MODEL = tuple(
    name for name in inspect.signature(MultimodalAutoencoder).parameters if name not in MERGED
)


def sort_settings(settings: dict) -> tuple[dict, dict]:
    """Settings of the data, as of `open_data`, and of the model, as of `MultimodalAutoencoder`.

    Raises
    ------
    ValueError
        Naming one that is of neither.
    """
    if unknown := [name for name in settings if name not in (*DATA, *MODEL)]:
        raise ValueError(
            f"unknown setting {unknown[0]!r}, expected one of the data ({', '.join(DATA)}) "
            f"or of the model ({', '.join(MODEL)}): correct its name."
        )
    of_data = {name: value for name, value in settings.items() if name in DATA}
    return of_data, {name: value for name, value in settings.items() if name in MODEL}


def saved_config(checkpoint: dict) -> TrainingConfig:
    """The training settings in a checkpoint, for the device that is here."""
    return TrainingConfig(**(checkpoint["training"] | {"device": "auto", "shard": False}))


def saved_average(checkpoint: dict) -> bool:
    """Whether the items of training were means of the subjects."""
    return (checkpoint["data"] or {}).get("average", True)


def saved_data(checkpoint: dict) -> dict:
    """Arguments of `open_data` that open a folder as it was in training; {} of arrays."""
    provenance = checkpoint["data"]
    if provenance is None or provenance["features"] is None:
        return {}
    features = provenance["features"]
    return {
        "subjects": provenance["subjects"],
        "average": saved_average(checkpoint),
        **{
            f"{name}_processor": kind(**features[name])
            for name, kind in KINDS.items()
            if features[name] is not None
        },
        **provenance["entries"],
        **{name: tuple(provenance[name]) for name in SPLITTING},
    }


def without_sizes(config: dict, dataset: MultimodalDataset) -> dict:
    """Of a model's `get_config()`, what the data do not decide."""
    sizes = dataset.model_dims
    return {name: config[name] for name in MODEL if name in config and name not in sizes}
