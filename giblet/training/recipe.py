"""The kit's recipe: what `giblet demo`, `giblet train` and the notebooks train."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from giblet.data import MultimodalDataset, VideoProcessor
from giblet.models import MultimodalAutoencoder
from giblet.training.config import TrainingConfig
from giblet.training.trainer import Trainer

# Pictures of 9 x 45 x 80 and a sixteenth of the seed's hidden widths fit a few hundred TRs and two CPU cores.
VIDEO = VideoProcessor(height=45, width=80, frame_skip=4)
# The mean response of several subjects has an MSE of about a fifth of audio's or text's; 10 puts the brain first.
MODEL = {"width": 1 / 16, "bottleneck_dim": 256, "measured_weight": 1.0, "fmri_weight": 10.0}


@dataclass(frozen=True)
class Run:
    """A trained model with its data: `data` maps 'train', 'val', 'test' and 'all' to data sets."""

    model: MultimodalAutoencoder
    data: dict[str, MultimodalDataset]
    history: list[dict]
    folder: Path


def open_data(data_dir: str | Path, progress: bool = True) -> dict[str, MultimodalDataset]:
    """The mean responses of all subjects in every split, with the recipe's pictures."""
    return {
        split: MultimodalDataset(data_dir, split=split, average=True, video_processor=VIDEO, progress=progress)
        for split in ("train", "val", "test", "all")
    }


def build_model(dataset: MultimodalDataset, random_state: int = 0, **settings) -> MultimodalAutoencoder:
    """The recipe's model for a data set; `settings` override `MODEL`. The seed gives the initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        return MultimodalAutoencoder(**dataset.model_dims, **(MODEL | settings))


def load_or_train(
    data_dir: str | Path,
    config: TrainingConfig | None = None,
    output_dir: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] = lambda history: None,
    progress: bool = True,
    **settings,
) -> Run:
    """Train the recipe's model on a data folder, once.

    Parameters
    ----------
    output_dir : folder, default `data_dir/runs/` and a hash of the data and of every setting
        An unfinished run goes on where it was, a finished one is loaded.
    **settings
        Arguments of `MultimodalAutoencoder` that override the recipe's.
    """
    config = config or TrainingConfig()
    data = open_data(data_dir, progress)
    model = build_model(data["train"], config.random_state, **settings)
    key = json.dumps([data["train"].cache.name, model.get_config(), asdict(config)], sort_keys=True)
    folder = Path(output_dir or Path(data_dir) / "runs" / hashlib.sha256(key.encode()).hexdigest()[:12])
    history = Trainer(model, data["train"], data["val"], config).fit(folder, on_epoch, progress)
    return Run(model, data, history, folder)
