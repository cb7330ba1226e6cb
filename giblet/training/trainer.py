"""The training loop."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from giblet.data import CoordinateDataset
from giblet.files import atomic_path
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training.checkpoint import load_checkpoint, save_checkpoint
from giblet.training.config import TrainingConfig, learning_rate_at, resolve_device, resolve_dtype
from giblet.training.memory import check_memory

MODALITIES = ("video", "audio", "text", "fmri")
WEIGHTING = ("weight", "video_floor", "fmri_floor")  # see MultimodalAutoencoder.compute_loss


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the last good checkpoint."""


class Trainer:
    """Train a model, keeping the checkpoint with the lowest validation loss.

    A run is a folder: `log.jsonl` (one line an epoch), `best.pt`, and `last.pt`, from which an interrupted
    run goes on exactly as if it had not been interrupted.

    Parameters
    ----------
    model : MultimodalAutoencoder
        A `SpanAutoencoder` trains in coordinates.
    train, val : Dataset
        Indexed by a list they give a batch: a dict with `video, audio, text, fmri` and whatever else `compute_loss`
        takes, as `MultimodalDataset` does. For a `SpanAutoencoder`: `MultimodalDataset`s with `average=True`.
    config : TrainingConfig
    """

    def __init__(self, model: MultimodalAutoencoder, train: Dataset, val: Dataset, config: TrainingConfig):
        self.config = config
        self.device = resolve_device(config)
        self.dtype = resolve_dtype(config, self.device)
        self.model, self.core = model.to(self.device), model
        if isinstance(model, SpanAutoencoder):
            self.core = model.core
            train, val = CoordinateDataset(train, model.span), CoordinateDataset(val, model.span, voxels=True)
        self.train, self.val = train, val
        self.n_batches = math.ceil(len(train) / config.batch_size)
        self.n_steps = config.epochs * self.n_batches
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.history: list[dict] = []
        self._best: dict[str, Tensor] = {}  # state of the best epoch so far

    def fit(
        self,
        output_dir: str | Path,
        on_epoch: Callable[[list[dict]], None] = lambda history: None,
        progress: bool = True,
    ) -> list[dict]:
        """Train in `output_dir`, from `last.pt` if it is there; the model ends with the best weights.

        Parameters
        ----------
        output_dir : folder of the run
        on_epoch : callable
            Called with the history after every epoch, and at the start of a resumed run.

        Returns
        -------
        list of dict
            One entry an epoch: `epoch, step, learning_rate, train` and `val` (the losses; `val` also has `r`, the
            mean over voxels of the correlation over time).

        Raises
        ------
        ValueError
            If the folder holds a run with other settings.
        TrainingError
            If a loss is not finite.
        MemoryError
            If the device is too small, see `check_memory`.
        """
        output_dir = Path(output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        self._resume(output_dir)
        if self.history:
            on_epoch(self.history)
        if not self._finished():
            plan = check_memory(self.core, len(self.train), self.config.batch_size, self.device)
            if progress:
                print(plan)
        silent = not progress or self._finished()
        bar = tqdm(total=self.n_steps, initial=self._step, desc="training", unit="step", disable=silent)
        with bar, torch.random.fork_rng():
            while not self._finished():
                self.history.append(self._epoch(output_dir, bar))
                if self.best_epoch == len(self.history) - 1:
                    self._keep_best()
                if len(self.history) % self.config.checkpoint_every == 0 or self._finished():
                    self._save(output_dir)
                bar.set_postfix({name: f"{self.history[-1]['val'][name]:.3f}" for name in ("total", "r")})
                on_epoch(self.history)
        self.model.load_state_dict(self._best)
        self.model.eval()
        return self.history

    def _keep_best(self) -> None:
        for name, value in self.model.state_dict().items():
            self._best.setdefault(name, torch.empty_like(value)).copy_(value)

    @property
    def best_epoch(self) -> int:
        """Epoch (0-based) with the lowest validation loss so far."""
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val"]["total"])

    @property
    def _span(self) -> dict[str, str] | None:
        """The bases that the weights refer to."""
        if not isinstance(self.model, SpanAutoencoder):
            return None
        return {"id": self.model.span.id, "path": str(self.model.span.path.resolve())}

    @property
    def _step(self) -> int:
        return len(self.history) * self.n_batches

    def _finished(self) -> bool:
        n_done = len(self.history)
        return n_done >= self.config.epochs or (n_done > 0 and n_done - 1 - self.best_epoch >= self.config.patience)

    def _epoch(self, output_dir: Path, bar: tqdm) -> dict:
        epoch = len(self.history)
        generator = torch.Generator().manual_seed(_seed(self.config.random_state, 0, epoch))
        batches = torch.tensor_split(torch.randperm(len(self.train), generator=generator), self.n_batches)
        sums: dict[str, float] = {}
        self.model.train()
        for index, (batch, size) in enumerate(_load(self.train, batches)):
            step = epoch * self.n_batches + index
            losses = self._train_step(step, batch, output_dir)
            sums = {name: sums.get(name, 0.0) + size * value for name, value in losses.items()}
            bar.update()
        return {
            "epoch": epoch,
            "step": (epoch + 1) * self.n_batches,
            "learning_rate": learning_rate_at(step, self.n_steps, self.config),
            "train": {name: value / len(self.train) for name, value in sums.items()},
            "val": self.evaluate(self.val),
        }

    def _train_step(self, step: int, batch: dict[str, Tensor], output_dir: Path) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.n_steps, self.config)
        torch.manual_seed(_seed(self.config.random_state, 1, step))  # dropout depends on the step alone
        loss, losses, _ = self._losses(batch)
        if not math.isfinite(losses["total"]):
            last = output_dir / "last.pt"
            kept = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
            raise TrainingError(
                f"the loss at step {step} is {losses['total']}: {kept}; "
                f"lower the learning rate or look for NaN in the data."
            )
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients(self.model, self.config.clip_norm)
        self.optimizer.step()
        return losses

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], Tensor]:
        names = [name for name in (*MODALITIES, *WEIGHTING) if name in batch]
        on_device = {name: batch[name].to(self.device, non_blocking=True) for name in names}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return batch_loss(self.core, on_device)

    @torch.no_grad()
    def evaluate(self, data: Dataset) -> dict[str, float]:
        """Losses over a data set, and `r`: the mean over voxels of the correlation of predicted and measured fMRI."""
        self.model.eval()
        sums: dict[str, float] = {}
        moments = 0
        for batch, size in _load(data, torch.arange(len(data)).split(self.config.batch_size)):
            _, losses, fmri_pred = self._losses(batch)
            sums = {name: sums.get(name, 0.0) + size * value for name, value in losses.items()}
            if "voxels" in batch:
                fmri_pred = self.model.fmri_basis.expand(fmri_pred)
            x, y = fmri_pred.double(), batch.get("voxels", batch["fmri"]).to(self.device).double()
            moments = moments + torch.stack([v.sum(0) for v in (x, y, x * x, y * y, x * y)]) / len(data)
        x, y, xx, yy, xy = moments
        r = (xy - x * y) / ((xx - x**2) * (yy - y**2)).clamp(min=1e-12).sqrt()
        return {name: value / len(data) for name, value in sums.items()} | {"r": r.mean().item()}

    def _save(self, output_dir: Path) -> None:
        """Write the log, `best.pt`, then `last.pt`: whatever `last.pt` speaks of is there before it."""
        with atomic_path(output_dir / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in self.history))
        for name, epoch, state in (("best", self.best_epoch, self._best), ("last", -1, self.model.state_dict())):
            entry = self.history[epoch]
            contents = {"epoch": entry["epoch"], "loss": entry["val"]["total"], "model_state_dict": state}
            contents |= {"config": self.model.get_config(), "training": asdict(self.config), "span": self._span}
            if name == "last":
                contents |= {"optimizer_state_dict": self.optimizer.state_dict(), "history": self.history}
            save_checkpoint(output_dir / f"{name}.pt", contents)

    def _resume(self, output_dir: Path) -> None:
        if not (output_dir / "last.pt").exists():
            return
        last = load_checkpoint(output_dir / "last.pt", self.device)
        bases = ({"span": span and span["id"]} for span in (last["span"], self._span))  # where they lie is no setting
        for name, found, wanted in (
            ("model", last["config"] | next(bases), self.model.get_config() | next(bases)),
            ("training", last["training"], asdict(self.config)),
        ):
            if differing := [key for key in wanted if found.get(key) != wanted[key]]:
                was = ", ".join(f"{key}={found.get(key)!r} (now {wanted[key]!r})" for key in differing)
                raise ValueError(f"{output_dir} holds a run with other {name} settings, {was}: choose another folder.")
        self.model.load_state_dict(last["model_state_dict"])
        self.optimizer.load_state_dict(last["optimizer_state_dict"])
        self.history = last["history"]
        self._best = load_checkpoint(output_dir / "best.pt", self.device)["model_state_dict"]


def batch_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], Tensor]:
    """The loss of a batch as a data set gives it, its terms, and the predicted fMRI."""
    video, audio, text, fmri = (batch[name] for name in MODALITIES)
    outputs = model(video, audio, text)
    weighting = {name: batch[name] for name in WEIGHTING if name in batch}
    return *model.compute_loss(outputs, fmri, video, audio, text, **weighting), outputs["fmri_pred"]


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    """As `clip_grad_norm_`, which also writes to gradients that are short enough."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if not norm <= max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)


def _seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers: torch's CPU generator ignores the higher bits of a seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _load(data: Dataset, batches: list[Tensor]) -> Iterator[tuple[dict[str, Tensor], int]]:
    loader = DataLoader(data, batch_size=None, sampler=[batch.tolist() for batch in batches])
    for batch in loader:
        yield batch, len(batch["fmri"])
