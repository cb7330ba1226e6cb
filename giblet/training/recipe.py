"""The kit's recipe: what `giblet demo`, `giblet train` and the notebooks train."""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from giblet.analysis.verdict import Verdict, judge
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training.checkpoint import RunFolder, best_epoch, load_model
from giblet.training.config import TrainingConfig, resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.trainer import PLACE, Trainer

# Pictures of 9 x 45 x 80 and a sixteenth of the seed's hidden widths fit a few hundred TRs and two CPU cores.
VIDEO = VideoProcessor(height=45, width=80, frame_skip=4)
# The mean response of several subjects has an MSE of about a fifth of audio's or text's; 10 puts the brain first.
LAYER_3 = {"video": 1024, "audio": 256, "text": 256}  # features of each modality at width 1
WEIGHTS = {"measured_weight": 1.0, "fmri_weight": 10.0}


@dataclass(frozen=True)
class Recipe:
    """Features of the film, and arguments of the model beside the sizes of the data, and of `MultimodalDataset`."""

    video: VideoProcessor
    audio: AudioProcessor
    model: dict
    data: dict = field(default_factory=dict)


SMALL = Recipe(VIDEO, AudioProcessor("mel"), {"width": 1 / 16, "bottleneck_dim": 256} | WEIGHTS)
FULL_SIZE = Recipe(VideoProcessor(), AudioProcessor("mel"), WEIGHTS)


@dataclass(frozen=True)
class Run:
    """A trained model with its data: `data` maps 'train', 'val', 'test' and 'all' to data sets.

    `verdict` says whether the model predicts the test TRs better than chance; the first rank alone has it.
    """

    model: MultimodalAutoencoder
    data: dict[str, MultimodalDataset]
    history: list[dict]
    folder: Path
    verdict: Verdict | None


def open_data(data_dir: str | Path, recipe: Recipe = SMALL, progress: bool = True) -> dict[str, MultimodalDataset]:
    """The mean responses of all subjects in every split, with the recipe's features."""
    features = {"video_processor": recipe.video, "audio_processor": recipe.audio, "progress": progress, **recipe.data}
    return {
        split: MultimodalDataset(data_dir, split=split, average=True, **features)
        for split in ("train", "val", "test", "all")
    }


def build_model(
    dataset: MultimodalDataset,
    random_state: int = 0,
    recipe: Recipe = SMALL,
    direct: bool = False,
    progress: bool = True,
    **settings,
) -> MultimodalAutoencoder:
    """The recipe's model for a training set; `settings` override the recipe's.

    Parameters
    ----------
    random_state : int
        Seeds the initial weights.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the training data, which
        is what a `SpanAutoencoder` holds, and is taken wherever there are fewer TRs than pixels or voxels.
    """
    sizes = dataset.model_dims
    settings = _recipe_settings(recipe, dataset.present) | settings
    direct = direct or dataset.n_trs >= max(sizes["video_dim"], sizes["n_voxels"])
    span = [] if direct else [fit_span(dataset, progress=progress)]
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        return (MultimodalAutoencoder if direct else SpanAutoencoder)(*span, **(sizes | settings))


def _recipe_settings(recipe: Recipe, present: tuple[str, ...]) -> dict:
    """The recipe's arguments of the model, its `width` raised where a modality is absent.

    At a sixteenth of the seed's widths the text encoder alone would leave 16 numbers of the movie. So Layer 3 keeps the
    96 features that the three encoders have together.
    """
    if "width" not in recipe.model:
        return recipe.model
    n_features = sum(LAYER_3[name] for name in present)
    return recipe.model | {"width": recipe.model["width"] * sum(LAYER_3.values()) / n_features}


def load_or_train(
    data_dir: str | Path,
    config: TrainingConfig | None = None,
    output_dir: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] = lambda history: None,
    progress: bool = True,
    recipe: Recipe = SMALL,
    direct: bool = False,
    **settings,
) -> Run:
    """Train the recipe's model on a data folder, once; under `torchrun`, with all ranks.

    With `shard` the first rank alone gets the whole model back.

    A model that predicts the test TRs no better than chance says so, here and in the last line of the run's log.

    Parameters
    ----------
    output_dir : folder, default `data_dir/runs/` and a hash of the data and of every setting
        An unfinished run goes on where it was, a finished one is loaded.
    recipe : SMALL or FULL_SIZE
    direct, **settings
        As in `build_model`.
    """
    config = config or TrainingConfig()
    with process_group(resolve_device(config)):
        data = open_data(data_dir, recipe, progress)
        with torch.device("meta") if config.shard and rank() > 0 else nullcontext():  # the first rank's weights count
            model = build_model(data["train"], config.random_state, recipe, direct, progress, **settings)
        trainer = Trainer(model, data["train"], data["val"], config)
        span = model.span.id if isinstance(model, SpanAutoencoder) else None
        what = {name: value for name, value in asdict(trainer.config).items() if name not in PLACE}
        key = json.dumps([data["train"].cache.name, model.get_config(), what, span], sort_keys=True)
        folder = Path(output_dir or Path(data_dir) / "runs" / hashlib.sha256(key.encode()).hexdigest()[:12])
        history = trainer.fit(folder, on_epoch, progress)
        first = rank() == 0
        if config.shard and first:  # shares cannot predict without the other ranks
            model = load_model(folder / "best.pt")
    verdict = _verdict(model, data, history, folder) if first else None
    return Run(model, data, history, folder, verdict)


def _verdict(model: MultimodalAutoencoder, data: dict, history: list[dict], folder: Path) -> Verdict:
    """How the kept epoch predicts the test TRs, from the run's log or computed for it."""
    log, epoch = RunFolder(folder), best_epoch(history)
    logged = log.read_verdict(epoch)
    verdict = Verdict(**logged) if logged else judge(model, data["train"], data["all"])
    if not logged:
        log.log_verdict(epoch, asdict(verdict))
    if not verdict.above_chance:
        print(verdict)
    return verdict
