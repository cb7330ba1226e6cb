"""The kit's recipe: what `giblet demo`, `giblet train` and the notebooks train; and runs, to be made and opened."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from giblet.alignment.splits import SPLITS
from giblet.analysis.verdict import Verdict, judge
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor, fit_span
from giblet.data.provenance import check_same_data
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training.checkpoint import RunFolder, best_epoch, find_run, load_model, load_settings
from giblet.training.config import TrainingConfig, resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.settings import saved_config, saved_data, sort_settings, without_sizes
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

    `config` holds the settings of its training and `settings` those of the model, sizes of the data aside.
    `verdict` says whether the model predicts the test TRs better than chance; the first rank alone has it.
    """

    model: MultimodalAutoencoder
    data: dict[str, MultimodalDataset]
    history: list[dict]
    folder: Path
    verdict: Verdict | None
    config: TrainingConfig

    @property
    def settings(self) -> dict:
        """Arguments of the model: `load_or_train(run.data["all"], run.config, **run.settings)` is the same run."""
        return without_sizes(self.model.get_config(), self.data["all"])


def open_data(
    data: str | Path | MultimodalDataset, recipe: Recipe = SMALL, progress: bool = True, **settings
) -> dict[str, MultimodalDataset]:
    """The mean responses of all subjects in every split: {'train', 'val', 'test' and 'all': data set}.

    Parameters
    ----------
    data : folder, or a data set of any split, which keeps its features
    recipe : Recipe
        Its features are made of a folder.
    **settings
        Arguments of `MultimodalDataset` for a folder, before those of the recipe.
    """
    if not isinstance(data, MultimodalDataset):
        features = {"video_processor": recipe.video, "audio_processor": recipe.audio, **recipe.data}
        data = MultimodalDataset(data, progress=progress, **(features | settings))
    elif settings:
        raise ValueError(f"{', '.join(settings)} are settings of a folder: open the data set with them.")
    first = data.select("all", average=True)
    return {split: first.select(split) for split in SPLITS} | {"all": first}


def build_model(
    dataset: MultimodalDataset,
    random_state: int = 0,
    recipe: Recipe = SMALL,
    direct: bool = False,
    progress: bool = True,
    span_dir: str | Path | None = None,
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
    span_dir : folder, optional
        As `folder` of `fit_span`.
    """
    sizes = dataset.model_dims
    settings = _recipe_settings(recipe, dataset.present) | settings
    direct = direct or dataset.n_trs >= max(sizes["video_dim"], sizes["n_voxels"])
    span = [] if direct else [fit_span(dataset, span_dir, progress=progress)]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
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
    data: str | Path | MultimodalDataset,
    config: TrainingConfig | None = None,
    run_dir: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] = lambda history: None,
    progress: bool = True,
    recipe: Recipe | None = None,
    direct: bool = False,
    **settings,
) -> Run:
    """Train the recipe's model on a data set, once; under `torchrun`, with all ranks.

    A run that is there already is loaded, or goes on where it was; it keeps every setting that is not given here, and
    one that is given must be the same, except that `epochs` and `patience` may be raised. With `shard` the first rank
    alone gets the whole model back.

    A model that predicts the test TRs no better than chance says so, here and in the last line of the run's log.

    Parameters
    ----------
    data : folder, or a data set of any split, of a folder or of arrays
    run_dir : folder of the run, or the `--output` of a `giblet train`
        Where no setting is given, the default is the folder that the environment variable GIBLET_RUN names; else it is
        `runs/` and a hash of the data and of every setting in the data folder. Arrays have no folder: they need it.
    recipe : SMALL, FULL_SIZE or another; default SMALL
    direct : bool
        As in `build_model`.
    **settings
        Of the data, as of `MultimodalDataset` (`context`, `subjects`, `video_processor`, ...), and of the model, as of
        `MultimodalAutoencoder` (`width`, `bottleneck_dim`, ...).

    Raises
    ------
    ValueError
        If a setting is unknown, the run was trained with others or on other data, or arrays have no `run_dir`.
    """
    given = config is not None or recipe is not None or direct or settings
    run_dir = run_dir or (None if given else os.environ.get("GIBLET_RUN"))
    run_dir = run_dir and (find_run(run_dir) or run_dir)
    of_data, of_model = sort_settings(settings)
    saved = RunFolder(run_dir).read_settings() if run_dir else None
    if saved:
        config, direct = config or saved_config(saved), direct or saved["span"] is None
        as_trained = saved_data(saved) if recipe is None and not isinstance(data, MultimodalDataset) else {}
        of_data = as_trained | of_data
    config = config or TrainingConfig()
    with process_group(resolve_device(config)):
        data = open_data(data, recipe or SMALL, progress, **of_data)
        if saved and recipe is None:
            of_model = without_sizes(saved["config"], data["train"]) | of_model
        model = _start_model(data["train"], config, recipe or SMALL, direct, progress, run_dir, of_model)
        trainer = Trainer(model, data["train"], data["val"], config)
        folder = Path(run_dir or _usual_folder(trainer, data["train"]))
        history = trainer.fit(folder, on_epoch, progress)
        first = rank() == 0
        if config.shard and first:  # shares cannot predict without the other ranks
            model = load_model(folder)
    verdict = _verdict(model, data, history, folder) if first else None
    return Run(model, data, history, folder, verdict, config)


def _start_model(
    train: MultimodalDataset, config: TrainingConfig, recipe: Recipe, direct: bool, progress: bool, run_dir, settings
) -> MultimodalAutoencoder:
    """The model at its initial weights; the bases of arrays lie with the run."""
    if train.cache is None and run_dir is None:
        raise ValueError("arrays have no folder of their own: give run_dir, the folder of the run.")
    span_dir = run_dir if train.cache is None else None
    with torch.device("meta") if config.shard and rank() > 0 else nullcontext():  # the first rank's weights count
        return build_model(train, config.random_state, recipe, direct, progress, span_dir, **settings)


def _usual_folder(trainer: Trainer, train: MultimodalDataset) -> Path:
    """In the data folder, named by a hash of the data and of every setting."""
    model = trainer.model
    span = model.span.id if isinstance(model, SpanAutoencoder) else None
    what = {name: value for name, value in asdict(trainer.config).items() if name not in PLACE}
    key = json.dumps([train.cache.name, train.subjects, model.get_config(), what, span], sort_keys=True)
    return train.folder.path / "runs" / hashlib.sha256(key.encode()).hexdigest()[:12]


def load_run(
    run_dir: str | Path | None = None, data: str | Path | MultimodalDataset | None = None, progress: bool = True
) -> Run:
    """A run as it was trained, with the data as they were in training; nothing is trained.

    Parameters
    ----------
    run_dir : folder of the run, a checkpoint in it, or the `--output` of a `giblet train`
        Default the folder that GIBLET_RUN names.
    data : folder, or a data set of arrays
        Needed where the data are no longer where they were in training, and for arrays; for a folder GIBLET_DATA will
        do. The bases of a `SpanAutoencoder` are looked for where they were, in the data's cache, and in `run_dir`.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint, or the data or the bases are not where they were.
    ValueError
        If the data are not those of the training.
    """
    path = run_dir or os.environ.get("GIBLET_RUN")
    if path is None:
        raise ValueError("no run is named: give run_dir, or set GIBLET_RUN to the folder of a run.")
    saved = load_settings(path)
    folder = find_run(path) or Path(path).parent
    data = _data_of_run(path, saved, data or os.environ.get("GIBLET_DATA"), progress)
    check_same_data(saved["data"], data["train"])
    model = load_model(path, _span_of_run(saved, data["train"], folder))
    history = RunFolder(folder).read_history()
    return Run(model, data, history, folder, _verdict(model, data, history, folder), saved_config(saved))


def _data_of_run(path: str | Path, saved: dict, data, progress: bool) -> dict[str, MultimodalDataset]:
    """The data of a checkpoint, from where they were or from `data`."""
    if isinstance(data, MultimodalDataset):
        return open_data(data)
    where = data or (saved["data"] or {}).get("path")
    if where is None or not saved_data(saved):
        raise ValueError(f"{path} was trained on arrays: give the data set that they make.")
    if not Path(where).is_dir():
        raise FileNotFoundError(f"{where}, the data that {path} was trained on, is missing: say where it is now.")
    return open_data(where, progress=progress, **saved_data(saved))


def _span_of_run(saved: dict, train: MultimodalDataset, folder: Path) -> Path | None:
    """Where the bases of a checkpoint lie now."""
    if saved["span"] is None:
        return None
    then = Path(saved["span"]["path"])
    places = [place / then.name for place in (train.cache, folder) if place is not None]
    return next((place for place in (then, *places) if place.is_dir()), then)


def _verdict(model: MultimodalAutoencoder, data: dict, history: list[dict], folder: Path) -> Verdict:
    """How the kept epoch predicts the test TRs, from the run's log or computed for it."""
    log = RunFolder(folder)
    epoch = best_epoch(history) if history else None
    logged = log.read_verdict(epoch)
    verdict = Verdict(**logged) if logged else judge(model, data["train"], data["all"])
    if history and not logged:
        log.log_verdict(epoch, asdict(verdict))
    if not verdict.above_chance:
        print(verdict)
    return verdict
