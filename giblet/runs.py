"""Runs: a model trained once on a data set, opened again with its data."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from matplotlib.figure import Figure

from giblet.analysis.verdict import Verdict, judge
from giblet.basis import Span
from giblet.data import MultimodalDataset
from giblet.data.provenance import check_same_data, differences, trained_on
from giblet.files import check_writable, expanded
from giblet.merging import merge
from giblet.models import MultimodalAutoencoder
from giblet.plotting.training import plot_history
from giblet.recipe import SMALL, Recipe, build_model, open_data
from giblet.training.checkpoint import (
    RunFolder,
    best_epoch,
    describe_history,
    find_run,
    load_checkpoint,
    load_model,
    load_settings,
    merged_file,
    save_checkpoint,
)
from giblet.training.config import TrainingConfig
from giblet.training.device import resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.merged import checkpoints_of
from giblet.training.settings import (
    saved_average,
    saved_config,
    saved_data,
    sort_settings,
    without_sizes,
)
from giblet.training.trainer import PLACE, Trainer


@dataclass(frozen=True)
class Run:
    """A trained model with its data.

    Parameters
    ----------
    model : MultimodalAutoencoder
        The network of the best epoch merged with ridge regression, see `giblet.merging`; the
        network alone where the data are too few for that.
    data : dict
        Data sets of 'train', 'val', 'test' and 'all'.
    history : list of dict
        One entry per epoch, see `Trainer.fit`.
    folder : Path
        Where checkpoints and log are.
    verdict : Verdict or None
        Whether the model predicts the test TRs better than chance; the first rank alone has it.
    config : TrainingConfig
    """

    model: MultimodalAutoencoder
    data: dict[str, MultimodalDataset]
    history: list[dict]
    folder: Path
    verdict: Verdict | None
    config: TrainingConfig

    @property
    def settings(self) -> dict:
        """Arguments of the model, sizes of the data aside.

        `load_or_train(run.data, run.config, **run.settings)` is the same run.
        """
        return without_sizes(self.model.get_config(), self.data["all"])

    @property
    def ended(self) -> str:
        """How many epochs it took, why training ended, and which epoch is kept: a sentence."""
        return describe_history(self.history, self.config)

    def plot(self) -> Figure:
        """Losses and validation r by epoch."""
        return plot_history(self.history, self.data["all"].label)


def load_or_train(
    data: str | Path | MultimodalDataset | Mapping[str, MultimodalDataset],
    config: TrainingConfig | None = None,
    run_dir: str | Path | None = None,
    on_epoch: Callable[[list[dict]], None] = lambda history: None,
    progress: bool = True,
    recipe: Recipe | None = None,
    direct: bool = False,
    say: Callable[[str], object] = lambda sentence: None,
    **settings,
) -> Run:
    """Train the recipe's model on a data set, once; under `torchrun`, with all ranks.

    A run that is there already is loaded, or goes on where it was; it keeps every setting that is
    not given here, and one that is given must be the same, except that `epochs` and `patience` may
    be raised. With `shard` the first rank alone gets the whole model back.

    A model that predicts the test TRs no better than chance says so, here and in the last line of
    the run's log.

    Parameters
    ----------
    data : folder, a data set of any split, or the data sets of `open_data`
    run_dir : folder of the run, or the `--out` of a `giblet train`
        Where no setting is given, the default is the folder that the environment variable
        GIBLET_RUN names; else it is `runs/` and a hash of the data and of every setting in the data
        folder. Arrays have no folder: they need it.
    recipe : SMALL, FULL_SIZE or another; default SMALL
    direct : bool
        As in `build_model`.
    say : callable
        Takes a sentence on subjects, runs and splits before training starts.
    **settings
        Of the data, as of `open_data` and `MultimodalDataset` (`context`, `subjects`, `colour`,
        `fractions`, `regions`, `average`, ...), and of the model, as of `MultimodalAutoencoder`
        (`width`, `bottleneck_dim`, ...). `cache_dir`, where the features are kept, is none: it
        names no other run.

    Raises
    ------
    ValueError
        If a setting is unknown, the run was trained with others or on other data, or arrays have no
        `run_dir`.
    OSError
        One sentence where a folder cannot be read or written.
    """
    given = config is not None or recipe is not None or direct or set(settings) - {"cache_dir"}
    run_dir = run_dir or (None if given else os.environ.get("GIBLET_RUN"))
    run_dir = _place_of_run(run_dir, data)
    of_data, of_model = sort_settings(settings)
    saved = RunFolder(run_dir).read_settings() if run_dir else None
    if saved:
        config = config or saved_config(saved)
        direct = direct or saved["span"] is None
        if recipe is None and isinstance(data, str | Path):
            of_data = saved_data(saved) | of_data
        elif recipe is None:
            of_data = {"average": saved_average(saved)} | of_data
    config = config or TrainingConfig()
    with process_group(resolve_device(config)):
        data = open_data(data, recipe or SMALL, progress, **of_data)
        if rank() == 0:
            say(data["all"].summary)
        if saved and recipe is None:
            of_model = without_sizes(saved["config"], data["train"]) | of_model
        of_model["span"] = _bases_of_run(saved, data["train"], run_dir)
        model = _start_model(
            data["train"], config, recipe or SMALL, direct, progress, run_dir, of_model
        )
        trainer = Trainer(model, data["train"], data["val"], config)
        folder = Path(run_dir or _usual_folder(trainer, data["train"]))
        history = trainer.fit(folder, on_epoch, progress)
        del trainer  # with gradients and the optimiser's state
        first = rank() == 0
        if config.shard and first:  # shares cannot predict without the other ranks
            model = load_model(folder / "best.pt")
    model = _merged(model, data, folder, progress) if first else model
    verdict = _verdict(model, data, history, folder) if first else None
    return Run(model, data, history, folder, verdict, config)


def _merged(
    network: MultimodalAutoencoder,
    data: dict[str, MultimodalDataset],
    folder: Path,
    progress: bool,
) -> MultimodalAutoencoder:
    """The merged model of a run, made where it is not there; the network where it cannot be."""
    found = merged_file(folder)
    if found is not None:
        return load_model(found, None if network.span is None else network.span.path)
    try:
        model = merge([network], data["all"], progress)
    except ValueError as error:
        print(f"The model is the network alone: {error}")
        return network
    if RunFolder(folder).is_writable:
        best = load_checkpoint(folder / "best.pt", mmap=True)
        for name, contents in checkpoints_of(model, best, folder).items():
            save_checkpoint(folder / name, contents)
    return model


def _place_of_run(run_dir, data) -> Path | None:
    """The folder of a run that is named, if there is one, found and fit to be written to."""
    if run_dir:
        run_dir = expanded(run_dir)
        found = find_run(run_dir)
        if found is None:
            check_writable(run_dir)
        return found or run_dir
    if isinstance(data, str | Path) and (expanded(data) / "dataset.toml").is_file():
        usual = expanded(data) / "runs"
        if not usual.is_dir():
            check_writable(usual)
    return None


def _start_model(
    train: MultimodalDataset,
    config: TrainingConfig,
    recipe: Recipe,
    direct: bool,
    progress: bool,
    run_dir,
    settings,
) -> MultimodalAutoencoder:
    """The model at its initial weights; the bases of arrays lie with the run."""
    if train.cache is None and run_dir is None:
        raise ValueError("arrays have no folder of their own: give run_dir, the folder of the run.")
    span_dir = run_dir if train.cache is None else None
    on_meta = config.shard and rank() > 0  # the first rank's weights count
    with torch.device("meta") if on_meta else nullcontext():
        return build_model(
            train, config.random_state, recipe, direct, progress, span_dir, **settings
        )


def _usual_folder(trainer: Trainer, train: MultimodalDataset) -> Path:
    """In the data folder, named by a hash of the data and of every setting."""
    model = trainer.model
    span = model.bases and model.bases["id"]
    config = {name: value for name, value in asdict(trainer.config).items() if name not in PLACE}
    what = [train.cache.name, train.subjects, model.get_config(), config, span, model.started_as]
    if not train.average:
        what.append("per subject")
    key = json.dumps(what, sort_keys=True)
    return train.folder.path / "runs" / hashlib.sha256(key.encode()).hexdigest()[:12]


def load_run(
    run_dir: str | Path | None = None,
    data: str | Path | MultimodalDataset | None = None,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> Run:
    """A run as it was trained, with the data as they were in training; nothing is trained.

    Parameters
    ----------
    run_dir : folder of the run, a checkpoint in it, or the `--out` of a `giblet train`
        Default the folder that GIBLET_RUN names.
    data : folder, or a data set of arrays
        Needed where the data are no longer where they were in training, and for arrays; for a
        folder GIBLET_DATA will do. The bases of a `SpanAutoencoder` are looked for where they were,
        in the data's cache, and in `run_dir`.
    cache_dir : folder, optional
        Of the features, if they are not in `cache` of the data folder.

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
    path = expanded(path)
    saved = load_settings(path)
    folder = find_run(path) or path.parent
    parts = _data_of_run(path, saved, data or os.environ.get("GIBLET_DATA"), progress, cache_dir)
    check_same_data(saved["data"], parts["train"])
    span = _span_of_run(saved, parts["train"], folder)
    model = load_model(path, span)
    if path.is_dir() and model.merged is None:
        model = _merged(model, parts, folder, progress)
    history = RunFolder(folder).read_history()
    verdict = _verdict(model, parts, history, folder)
    last = RunFolder(folder).read_settings() or saved  # `best.pt` is older than a lengthening
    return Run(model, parts, history, folder, verdict, saved_config(last))


def _data_of_run(
    path: Path, saved: dict, data, progress: bool, cache_dir: str | Path | None
) -> dict[str, MultimodalDataset]:
    """The data of a checkpoint, from where they were or from `data`."""
    if isinstance(data, MultimodalDataset):
        return open_data(data, average=saved_average(saved))
    where = data or (saved["data"] or {}).get("path")
    if where is None or not saved_data(saved):
        raise ValueError(f"{path} was trained on arrays: give the data set that they make.")
    if not expanded(where).is_dir():
        raise FileNotFoundError(
            f"{where}, the data that {path} was trained on, is missing: say where it is now, with "
            "--data (in Python data)."
        )
    return open_data(where, progress=progress, cache_dir=cache_dir, **saved_data(saved))


def _span_of_run(saved: dict, train: MultimodalDataset, folder: Path) -> Path | None:
    """Where the bases of a checkpoint lie now."""
    if saved["span"] is None:
        return None
    then = Path(saved["span"]["path"])
    places = [then, folder / then.name]
    if train.cache is not None:  # a copy of the data has another cache; the bases name themselves
        places += [train.cache / then.name, *train.cache.parent.glob(f"*/{then.name}")]
    return next((place for place in places if place.is_dir()), then)


def _bases_of_run(saved: dict | None, train: MultimodalDataset, folder) -> Span | None:
    """The bases of a run that goes on with its own data: a copy of the data has another cache."""
    if (
        saved is None
        or saved["span"] is None
        or differences(saved["data"] or {}, trained_on(train))
    ):
        return None
    path = _span_of_run(saved, train, folder)
    return Span.open(path) if path is not None and path.is_dir() else None


def _verdict(
    model: MultimodalAutoencoder, data: dict, history: list[dict], folder: Path
) -> Verdict:
    """How the kept epoch predicts the test TRs, from the run's log or computed for it."""
    log = RunFolder(folder)
    epoch = best_epoch(history) if history else None
    logged = log.read_verdict(epoch)
    if logged is not None and set(logged) != {entry.name for entry in fields(Verdict)}:
        logged = None  # of another version
    verdict = Verdict(**logged) if logged else judge(model, data["train"], data["all"])
    if epoch is not None and not logged and log.is_writable:
        log.log_verdict(epoch, asdict(verdict))
    if not verdict.above_chance:
        print(verdict)
    return verdict
