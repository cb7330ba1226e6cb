"""Checkpoints and the folder of a run: written whole or not at all, read without pickle."""

import inspect
import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from giblet.basis import Span
from giblet.files import alone, atomic_path, check_writable, remove_leftovers, writing
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training.config import TrainingConfig
from giblet.training.distributed import n_ranks, rank
from giblet.training.merged import MERGED, NETWORK, read_basis, read_merged
from giblet.training.settings import saved_config, saved_data

ENTRIES = ("config", "training", "span", "model_state_dict")  # of every checkpoint, besides `data`
LAST_ENTRIES = ("optimizer_state_dict", "best", "step", "history", "sums")  # of `last.pt` as well
SMOOTHED_EPOCHS = 5  # over which validation r is averaged
VERSIONS = {
    "python": platform.python_version(),
    "torch": str(torch.__version__),
    "numpy": np.__version__,
}


# what readers of damaged files raise, and what entries that do not fit raise where they are used
UNREADABLE = (RuntimeError, EOFError, UnpicklingError, SafetensorError, ValueError)
UNFIT = (KeyError, TypeError, AttributeError, IndexError)


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the last good checkpoint."""


def save_checkpoint(path: str | Path, contents: dict) -> None:
    """Write tensors and plain values to `path`, atomically.

    What was there before stays until all is on the disk.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(contents | {"versions": VERSIONS}, file)


def save_weights(path: str | Path, checkpoint: dict) -> None:
    """Write the weights of a checkpoint as safetensors, its settings as JSON metadata."""
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        metadata = {
            name: json.dumps(checkpoint[name]) for name in ("config", "training", "span", "data")
        }
        safetensors.torch.save_file(checkpoint["model_state_dict"], temporary, metadata)
        temporary.chmod(mode)  # safetensors makes files that only their owner may read


def load_checkpoint(path: str | Path, mmap: bool = False) -> dict:
    """Read a checkpoint, or weights in safetensors, onto the CPU; nothing in it is executed.

    `config`, `training`, `span` and `data` say what was trained, how, in which bases, and on what.

    Parameters
    ----------
    path : file, or folder of a run, whose `best.pt` is taken
    mmap : bool
        Tensors stay in the file until they are used.
    """
    path = checkpoint_file(path)
    with as_checkpoint(path):
        if path.suffix != ".safetensors":
            checkpoint = torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)
            if not isinstance(checkpoint, dict):
                raise TypeError(f"it holds a {type(checkpoint).__name__}")
            return checkpoint
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
        return metadata | {"model_state_dict": safetensors.torch.load_file(path)}


@contextmanager
def as_checkpoint(path: str | Path) -> Iterator[None]:
    """Turn what the contents of a checkpoint make fail into one sentence about the file."""
    try:
        yield
    except (*UNREADABLE, *UNFIT) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(":.") or "it ends too early"
        if isinstance(error, KeyError):
            reason = f"there is no {reason}"
        remedy = "take another of its run, or train again"
        if Path(path).name == "last.pt":
            remedy = "delete it to train from the start; best.pt holds the best weights so far"
        raise ValueError(
            f"{path} is damaged or no checkpoint of this version of giblet ({reason}): {remedy}."
        ) from None


def load_settings(path: str | Path) -> dict:
    """A checkpoint that says what it was trained on, with its tensors left in the file.

    Raises
    ------
    ValueError
        If it is damaged, or its entries are not those of this version of giblet.
    """
    checkpoint = load_checkpoint(path, mmap=True)
    if "data" not in checkpoint:
        raise ValueError(
            f"{path} does not say what it was trained on, as giblet's checkpoints do: train again."
        )
    file = checkpoint_file(path)
    is_last = file.name == "last.pt"
    with as_checkpoint(file):
        if missing := [name for name in ENTRIES + LAST_ENTRIES * is_last if name not in checkpoint]:
            raise ValueError(f"it has no {', '.join(missing)}")
        _check_entries(checkpoint)
        if is_last:
            _check_history(checkpoint["history"])
    return checkpoint


def _check_entries(checkpoint: dict) -> None:
    """Raise one of UNFIT where an entry is not what this version of giblet writes."""
    inspect.signature(MultimodalAutoencoder).bind(**checkpoint["config"])
    saved_config(checkpoint)
    saved_data(checkpoint)
    data = checkpoint["data"] or {"path": None, "train": []}
    if not isinstance(data["path"], str | None):
        raise TypeError(f"it names its data {data['path']!r}")
    for start, stop in data["train"]:
        range(start, stop)
    if checkpoint["span"] is not None:
        Path(checkpoint["span"]["path"], checkpoint["span"]["id"])
    checkpoint["model_state_dict"].items()


def _check_history(history: list[dict]) -> None:
    """Raise one of UNFIT where an entry is not of an epoch."""
    if not isinstance(history, list):
        raise TypeError(f"its history is a {type(history).__name__}")
    for entry in history:
        epoch_loss(entry)
        if entry["val"]:
            float(entry["val"]["r"])


def find_run(path: str | Path) -> Path | None:
    """The folder of a run's checkpoints; None without any.

    It is `path`, or `path/run`, where `giblet train` keeps them.
    """
    places = (Path(path), Path(path) / "run")
    return next(
        (
            place
            for place in places
            if (place / "best.pt").is_file() or (place / "last.pt").is_file()
        ),
        None,
    )


def checkpoint_file(path: str | Path) -> Path:
    """A checkpoint, or that of the best epoch of a run's folder."""
    path = Path(path)
    file = (find_run(path) or path) / "best.pt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: train first, or name the folder of a run.")
    return file


def merged_file(path: str | Path) -> Path | None:
    """The merged model in the folder of a run, if there is one and it is of its `best.pt`."""
    folder = find_run(path) if Path(path).is_dir() else None
    if folder is None or not (folder / MERGED).is_file():
        return None
    merged, best = (load_checkpoint(folder / name, mmap=True) for name in (MERGED, "best.pt"))
    same = all(merged.get(name) == best.get(name) for name in ("epoch", "training", "span", "data"))
    return folder / MERGED if same else None


def load_model(path: str | Path, span: str | Path | None = None) -> MultimodalAutoencoder:
    """The model of a run, on the CPU and in evaluation mode.

    Its `trained_on` says on what data it may be scored.

    Parameters
    ----------
    path : `merged.pt`, `best.pt`, `last.pt`, `best.safetensors`, or the folder of the run
        Of a folder the merged model, where it is that of the best epoch; else that of `best.pt`.
    span : folder, optional
        Of the bases of a `SpanAutoencoder`, where they are no longer where they were in training.
    """
    file = merged_file(path) or checkpoint_file(path)
    data = load_settings(file)["data"]
    checkpoint = load_checkpoint(file)
    trained_in = checkpoint["span"]
    bases = None if trained_in is None else Span.open(span or trained_in["path"])
    if bases is not None and bases.id != trained_in["id"]:
        raise ValueError(
            f"{bases.path} holds bases {bases.id}, expected {trained_in['id']}, those of {file}."
        )
    with as_checkpoint(file):
        if bases is None:
            model = MultimodalAutoencoder(**checkpoint["config"])
        else:
            output_basis = read_basis(checkpoint, file.parent)
            model = SpanAutoencoder(bases, output_basis, **checkpoint["config"])
        model.load_state_dict(checkpoint["model_state_dict"])
    model.trained_on = data
    if "merged" in checkpoint:
        network = load_model(file.with_name(NETWORK), span)
        with as_checkpoint(file):
            model.merged = read_merged(checkpoint, network)
    return model.eval()


def best_epoch(history: list[dict]) -> int:
    """Epoch (0-based) with the highest validation r so far, smoothed; of equals the first.

    The r of an epoch is the mean over itself and the four epochs before it, as single epochs are
    noisy. Without validation TRs it is the last epoch.
    """
    if not history[-1]["val"]:
        return len(history) - 1
    r = [entry["val"]["r"] for entry in history]
    smooth = [
        np.mean(r[max(0, epoch + 1 - SMOOTHED_EPOCHS) : epoch + 1]) for epoch in range(len(r))
    ]
    return int(np.argmax(np.round(smooth, 12)))  # rounded, so that equals are equal


def describe_history(history: list[dict], config: TrainingConfig) -> str:
    """How many epochs a run took, why it ended, and which of them is kept: a sentence."""
    if not history:
        return "no epoch is done"
    n_done = len(history)
    kept = best_epoch(history) + 1
    if n_done >= config.epochs:
        reason = "the most that `epochs` allows"
    elif n_done - kept >= config.patience:
        reason = f"no higher validation r in the last {config.patience}, so training stopped"
    else:
        reason = "interrupted"
    return f"{n_done} of {config.epochs} epochs ({reason}); epoch {kept} is kept"


def epoch_loss(entry: dict) -> float:
    """Validation loss of an epoch, or its training loss without validation TRs."""
    return (entry["val"] or entry["train"])["total"]


class RunFolder:
    """A run on disk; rank 0 writes for all.

    `last.pt` holds all of it, and `log.jsonl`, `best.pt` and `best.safetensors` show parts of it;
    the last line of the log of a finished run is its verdict.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / "last.pt"
        self._exported: int | None = None  # epoch of best.pt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training here; delete half-written files of killed ones.

        A process waits for another one that trains here; of several ranks, which would wait for
        each other meanwhile, it is refused.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if rank() > 0:
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(alone(self.path, timeout=None if n_ranks() == 1 else 0))
            except TimeoutError:
                raise TrainingError(
                    f"another process is training in {self.path}: wait until it has ended, or "
                    "choose another folder."
                ) from None
            check_writable(self.path)
            remove_leftovers(self.path, "*")
            yield

    @property
    def is_writable(self) -> bool:
        """Whether this process may train here: somebody else's run can only be read."""
        try:
            check_writable(self.path)
        except OSError:
            return False
        return True

    def write(self, last: dict) -> None:
        """Write the log, then `last.pt`; then the best weights, where they are new."""
        self._write_log(last["history"])
        save_checkpoint(self.last, last)
        self._export(last)

    def log_verdict(self, epoch: int, verdict: dict) -> None:
        """Append a line to the log: how the kept epoch (0-based) predicts the test TRs."""
        entries = [entry for entry in self._log_entries() if "verdict" not in entry]
        self._write_log([*entries, {"kept": epoch, "verdict": verdict}])

    def read_verdict(self, epoch: int | None) -> dict | None:
        """What `log_verdict` wrote of this epoch, if it did."""
        for entry in self._log_entries():
            if epoch is not None and entry.get("kept") == epoch:
                return entry["verdict"]
        return None

    def read_history(self) -> list[dict]:
        """What the log says of each epoch; [] without a log."""
        return [entry for entry in self._log_entries() if "verdict" not in entry]

    def _log_entries(self) -> list[dict]:
        log = self.path / "log.jsonl"
        if not log.is_file():
            return []
        try:
            entries = [json.loads(line) for line in log.read_text().splitlines()]
            _check_history([entry for entry in entries if "verdict" not in entry])
        except (ValueError, *UNFIT) as error:
            raise ValueError(
                f"{log} is damaged ({error!r}): copy it again, or delete it to open the run "
                "without its history."
            ) from None
        return entries

    def _write_log(self, entries: list[dict]) -> None:
        with atomic_path(self.path / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def read_settings(self) -> dict | None:
        """What was trained on what: `last.pt`, if there is one, with tensors left in the file."""
        return load_settings(self.last) if self.last.exists() else None

    def read(self, mmap: bool = False) -> dict | None:
        """`last.pt`, if there is one; a kill may have come before its best weights were written."""
        if not self.last.exists():
            return None
        last = load_checkpoint(self.last, mmap)
        self._exported = self._epoch_of_best()
        if rank() == 0:
            self._export(last)
        return last

    def _epoch_of_best(self) -> int | None:
        """Epoch of `best.pt`; None where it is missing or damaged, and has to be written again."""
        try:
            return load_checkpoint(self.path / "best.pt", mmap=True).get("epoch")
        except (FileNotFoundError, ValueError):
            return None

    def _export(self, last: dict) -> None:
        if not last["history"] or self._exported == best_epoch(last["history"]):
            return
        entry = last["history"][best_epoch(last["history"])]
        contents = {
            "epoch": entry["epoch"],
            "loss": epoch_loss(entry),
            "model_state_dict": last["best"],
        }
        contents |= {name: last[name] for name in ("config", "training", "span", "data")}
        save_weights(self.path / "best.safetensors", contents)
        save_checkpoint(self.path / "best.pt", contents)
        self._exported = entry["epoch"]
