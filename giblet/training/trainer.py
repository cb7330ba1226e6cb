"""The training loop."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from giblet.analysis.ceiling import shared_voxels
from giblet.data import MultimodalDataset
from giblet.data.coordinates import in_coordinates
from giblet.data.provenance import WHERE, describe, differences, trained_on
from giblet.models import MultimodalAutoencoder
from giblet.models.autoencoder import MODALITIES, WEIGHTING
from giblet.training.checkpoint import (
    RunFolder,
    TrainingError,
    as_checkpoint,
    best_epoch,
    epoch_loss,
)
from giblet.training.config import TrainingConfig, learning_rate_at
from giblet.training.device import resolve_device, resolve_dtype
from giblet.training.distributed import (
    all_sum,
    check_joined,
    distribute,
    gather,
    n_ranks,
    no_sync,
    rank,
    scatter,
    scatter_optimizer,
)
from giblet.training.memory import check_memory
from giblet.training.signals import SIGINT, StopSignals
from giblet.training.step import (
    BatchLoss,
    RunningStatistics,
    clip_gradients,
    seed_of,
)

PLACE = ("device", "shard")  # settings of where a run goes on, not of what it computes
LENGTH = ("epochs", "patience")  # settings that a later call may raise

DECODING = ("encoder.to_bottleneck.", "decoder.")  # parameters of Layers 6 to 13


class Trainer:
    """Train a model, keeping the epoch with the highest validation r, see `best_epoch`.

    A run is a folder: `log.jsonl` (one line an epoch), `best.pt` and the same weights as
    `best.safetensors`, and `last.pt`, from which an interrupted run goes on exactly as if it had
    not been interrupted. SIGTERM, SIGUSR1 and SIGINT are answered at the next step: `last.pt` is
    written, and the process ends (by KeyboardInterrupt after SIGINT). No state of a random
    generator outlives a step: seeds come from `random_state`, step and micro-batch.

    Under `torchrun`, within `process_group`, the ranks train together; every method is called by
    all of them.

    Parameters
    ----------
    model : MultimodalAutoencoder
        A `SpanAutoencoder` trains in coordinates.
    train, val : Dataset
        Indexed by a list they give a batch: a dict with `video, audio, text, fmri` and whatever
        else `compute_loss` takes, as `MultimodalDataset` does. For a `SpanAutoencoder`:
        `MultimodalDataset`s with `average=True`. An empty `val` validates nothing: the last epoch
        is kept.
    config : TrainingConfig
    """

    def __init__(
        self, model: MultimodalAutoencoder, train: Dataset, val: Dataset, config: TrainingConfig
    ):
        check_joined()
        _check_trainable(model)
        self.config = replace(config, micro_batches=config.micro_batches or n_ranks())
        self.device = resolve_device(config)
        self.dtype = resolve_dtype(config, self.device)
        self.model = model
        self.core = model.core
        self._train_set = train
        self.model.trained_on = trained_on(train) if isinstance(train, MultimodalDataset) else None
        self.train = in_coordinates(train, model.span)
        self.val = in_coordinates(val, model.span, voxels=True)
        self.n_batches = math.ceil(len(self.train) / config.batch_size)
        self.n_steps = config.epochs * self.n_batches
        self._check_micro_batches()
        self._loss = distribute(BatchLoss(self.core), self.device, config.shard)
        model.to(self.device)
        self._statistics = RunningStatistics(self.core)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.history: list[dict] = []
        self._sums: dict[str, float] = {}  # losses of the epoch so far
        self._best: dict[str, Tensor] = {}  # state of the best epoch so far

    def _parameter_groups(self) -> list[dict]:
        """Layers 2 to 5, and Layers 6 to 13, in the order of the model's parameters."""
        groups = []
        for decodes, rate in ((False, 1.0), (True, self.core.get_config()["decoder_rate"])):
            parameters = [
                parameter
                for name, parameter in self.core.named_parameters()
                if name.startswith(DECODING) == decodes
            ]
            groups.append({"params": parameters, "rate": rate})
        return groups

    def _check_micro_batches(self) -> None:
        n_micro = self.config.micro_batches
        n_trs = len(self.train) // self.n_batches
        if n_micro % n_ranks():
            raise ValueError(
                f"micro_batches is {n_micro}, expected a multiple of the {n_ranks()} ranks."
            )
        if n_trs // n_micro < 2:
            raise ValueError(
                f"{n_micro} micro-batches of a batch of {n_trs} TRs leave less than the two TRs "
                "that BatchNorm needs: "
                f"raise batch_size, or train on fewer ranks or in fewer micro_batches."
            )

    def fit(
        self,
        run_dir: str | Path,
        on_epoch: Callable[[list[dict]], None] = lambda history: None,
        progress: bool = True,
    ) -> list[dict]:
        """Train in `run_dir`, from `last.pt` if it is there; the model ends with the best weights.

        A run that has ended goes on if `epochs` or `patience` have been raised, with the learning
        rate that the new number of epochs gives a step: it rises again before it falls to 0.

        Parameters
        ----------
        run_dir : folder of the run; several machines share it
        on_epoch : callable
            Called with the history after every epoch, and at the start of a resumed run.

        Returns
        -------
        list of dict
            One entry per epoch: `epoch, step, learning_rate, train` and `val` (the losses; `val`
            also has `r`, see `evaluate`, and is empty without validation TRs).

        Raises
        ------
        ValueError
            If the folder holds a run with other settings or of other data.
        TrainingError
            If a loss is not finite, or another process trains in the folder.
        MemoryError
            If the device is too small, see `check_memory`.
        SystemExit
            With code 0 after SIGTERM or SIGUSR1.
        """
        folder = RunFolder(run_dir)
        devices = [self.device] if self.device.type == "cuda" else []
        with self._hold(folder), StopSignals() as self._signals, torch.random.fork_rng(devices):
            finished = self._was_finished(folder)
            progress = progress and rank() == 0 and not finished
            if not finished:
                self._check_memory(progress)  # before what was saved is on the device
            self._resume(folder)
            if self.history:
                on_epoch(self.history)
            with tqdm(
                total=self.n_steps,
                initial=self.step,
                desc="training",
                unit="step",
                disable=not progress,
            ) as bar:
                while not self._finished():
                    bar.set_description(f"epoch {len(self.history) + 1} of {self.config.epochs}")
                    self._epoch(folder, bar)
                    on_epoch(self.history)
        self.model.load_state_dict(self._best)
        self.model.eval()
        return self.history

    def _hold(self, folder: RunFolder) -> AbstractContextManager[None]:
        """Keep other processes from the run; one of somebody else's that has ended is only read."""
        if folder.last.exists() and not folder.is_writable and self._was_finished(folder):
            return nullcontext()
        return folder.held()

    def _check_memory(self, progress: bool) -> None:
        n_rows = math.ceil(self.config.batch_size / self.config.micro_batches)
        n_shards = n_ranks() if self.config.shard else 1
        plan = check_memory(self.model, len(self.train), n_rows, self.device, n_shards)
        if progress:
            print(plan)

    def _finished(self) -> bool:
        n_done = len(self.history)
        if n_done == 0 or n_done >= self.config.epochs:
            return n_done > 0
        return n_done - 1 - best_epoch(self.history) >= self.config.patience

    def _epoch(self, folder: RunFolder, bar: tqdm) -> None:
        epoch = len(self.history)
        self.model.train()
        for n_trs, batches in self._batches(epoch, self.step - epoch * self.n_batches):
            stop = self._train_step(n_trs, batches, folder)
            self.step += 1
            bar.update()
            if stop is not None:
                self._save(folder)
                if rank() == 0:
                    print(
                        f"asked to stop: saved step {self.step} in {folder.last}", file=sys.stderr
                    )
                raise stop
        entry = {
            "epoch": epoch,
            "step": self.step,
            "learning_rate": learning_rate_at(self.step - 1, self.n_steps, self.config),
            "train": {name: value / len(self.train) for name, value in self._sums.items()},
            "val": self.evaluate(self.val) if len(self.val) else {},
        }
        self.history.append(entry)
        self._sums = {}
        if best_epoch(self.history) == epoch:
            self._keep_best(self.model.state_dict())
        if len(self.history) % self.config.checkpoint_every == 0 or self._finished():
            self._save(folder)
        bar.set_postfix(
            {name: f"{value:.3f}" for name, value in entry["val"].items() if name in ("total", "r")}
        )

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[int, Iterator[dict[str, Tensor]]]]:
        """This rank's micro-batches from step `first` of an epoch on.

        Each comes with the number of TRs of the whole batch.
        """
        generator = torch.Generator().manual_seed(seed_of(self.config.random_state, 0, epoch))
        order = torch.randperm(len(self.train), generator=generator)
        rows = torch.tensor_split(order, self.n_batches)[first:]
        parts = [torch.tensor_split(batch, self.config.micro_batches) for batch in rows]
        batches = _load(
            self.train, [part[micro] for part in parts for micro in self._micro_batches]
        )
        return ((len(batch), batches) for batch in rows)

    @property
    def _micro_batches(self) -> range:
        """Numbers of this rank's micro-batches."""
        n_mine = self.config.micro_batches // n_ranks()
        return range(rank() * n_mine, (rank() + 1) * n_mine)

    def _train_step(
        self, n_trs: int, batches: Iterator[dict[str, Tensor]], folder: RunFolder
    ) -> BaseException | None:
        """One update; what to raise if a rank was asked to stop."""
        for group in self.optimizer.param_groups:
            rate = learning_rate_at(self.step, self.n_steps, self.config)
            group["lr"] = rate * group["rate"]
        self.optimizer.zero_grad()
        before = self._statistics.read()
        after = 0
        sums = 0
        for micro in self._micro_batches:
            self._statistics.write(before)
            torch.manual_seed(
                seed_of(self.config.random_state, 1, self.step, micro)
            )  # dropout depends on these alone
            batch = next(batches)
            size = len(batch["fmri"])
            with no_sync(self._loss, last=micro == self._micro_batches[-1]):
                loss, losses, _ = self._losses(batch)
                (
                    loss * (size * n_ranks() / n_trs)
                ).backward()  # DDP and FSDP2 take the mean over ranks
            after = after + self._statistics.read()
            sums = sums + size * torch.tensor(list(losses.values()), dtype=torch.float64)
        self._statistics.write(all_sum(after) / self.config.micro_batches)
        asked = self._signals.asked()
        flags = torch.tensor([asked is not None, asked == SIGINT], dtype=torch.float64)
        *sums, stopped, interrupted = all_sum(torch.cat([sums, flags]).to(self.device)).tolist()
        self._check_finite(sums[list(losses).index("total")], folder.last)
        clip_gradients(self.core, self.config.clip_norm)
        self.optimizer.step()
        self._sums = {
            name: self._sums.get(name, 0.0) + value
            for name, value in zip(losses, sums, strict=True)
        }
        return None if not stopped else KeyboardInterrupt() if interrupted else SystemExit(0)

    def _check_finite(self, loss: float, last: Path) -> None:
        if not math.isfinite(loss):
            kept = (
                f"the last good checkpoint is {last}"
                if last.exists()
                else "there is no checkpoint yet"
            )
            raise TrainingError(
                f"the loss at step {self.step} is {loss}: {kept}; lower the learning rate or look "
                "for NaN in the data."
            )

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], Tensor]:
        names = [name for name in (*MODALITIES, *WEIGHTING) if name in batch]
        on_device = {name: batch[name].to(self.device, non_blocking=True) for name in names}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self._loss(on_device)

    @torch.no_grad()
    def evaluate(self, data: Dataset) -> dict[str, float]:
        """Losses over a data set, and `r`, how well predicted fMRI follows the measured one.

        `r` is the correlation over time of predicted and measured fMRI. It is the mean over the
        voxels that the training subjects share, see `shared_voxels`, or over all voxels of data
        that are no `MultimodalDataset`.
        """
        self.model.eval()
        parts = [
            torch.tensor_split(rows, n_ranks())
            for rows in torch.arange(len(data)).split(self.config.batch_size)
        ]
        sums = 0
        moments = 0
        # a rank without a part still runs, as sharded layers need every rank: on a row that does
        # not count
        rows = [part[rank()] if len(part[rank()]) else part[0][:1] for part in parts]
        for batch, part in zip(_load(data, rows), parts, strict=True):
            n_trs = len(part[rank()])
            _, losses, fmri_pred = self._losses(batch)
            sums = sums + n_trs * torch.tensor(list(losses.values()), dtype=torch.float64)
            if "voxels" in batch:
                fmri_pred = self.model.fmri_basis.expand(fmri_pred)
            x = fmri_pred.double()
            y = batch.get("voxels", batch["fmri"]).to(self.device).double()
            x = x[:n_trs]
            y = y[:n_trs]
            moments = moments + torch.stack([v.sum(0) for v in (x, y, x * x, y * y, x * y)]) / len(
                data
            )
        means = (all_sum(sums.to(self.device)) / len(data)).tolist()
        x, y, xx, yy, xy = all_sum(moments)
        r = (xy - x * y) / ((xx - x**2) * (yy - y**2)).clamp(min=1e-12).sqrt()
        return dict(zip(losses, means, strict=True)) | {"r": r[self._scored_voxels].mean().item()}

    @cached_property
    def _scored_voxels(self) -> Tensor | slice:
        """Voxels whose r chooses the epoch."""
        if not isinstance(self._train_set, MultimodalDataset):
            return slice(None)
        return torch.from_numpy(shared_voxels(self._train_set)).to(self.device)

    def _keep_best(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            self._best.setdefault(name, torch.empty_like(value)).copy_(value)

    def _save(self, folder: RunFolder) -> None:
        state = gather(self.model.state_dict())
        optimizer = gather(self.optimizer.state_dict())
        at_best = bool(self.history) and self.step == self.history[best_epoch(self.history)]["step"]
        best = state if at_best else gather(self._best)  # torch.save writes shared tensors once
        if rank() > 0:
            return
        last = {
            "epoch": len(self.history) - 1,
            "loss": epoch_loss(self.history[-1]) if self.history else None,
        }
        last |= {
            "config": self.model.get_config(),
            "training": asdict(self.config),
            "span": self.model.bases,
        }
        last |= {"data": self.model.trained_on}
        last |= {"model_state_dict": state, "optimizer_state_dict": optimizer, "best": best}
        folder.write(last | {"step": self.step, "history": self.history, "sums": self._sums})

    def _was_finished(self, folder: RunFolder) -> bool:
        """Whether the folder holds this run, trained to its end."""
        saved = folder.read_settings()
        if saved is None:
            return False
        self._check_settings(saved, folder.path)
        self.history = saved["history"]
        return self._finished()

    def _resume(self, folder: RunFolder) -> None:
        last = folder.read(mmap=self.config.shard)
        if last is None:
            return
        like = self.model.state_dict()
        parameters = list(self.core.parameters())
        with as_checkpoint(folder.last):
            self.model.load_state_dict(scatter(last["model_state_dict"], like))
            optimizer = scatter_optimizer(last["optimizer_state_dict"], parameters)
            self.optimizer.load_state_dict(optimizer)
            self.step = last["step"]
            self.history = last["history"]
            self._sums = last["sums"]
            if self.history:
                self._keep_best(scatter(last["best"], like))

    def _check_settings(self, last: dict, run_dir: Path) -> None:
        bases = (
            {"span": span and span["id"]} for span in (last["span"], self.model.bases)
        )  # where they lie is no setting
        then = {
            "data": last["data"] or {},
            "model": last["config"] | next(bases),
            "training": last["training"],
        }
        now = {"data": self.model.trained_on or {}, "model": self.model.get_config() | next(bases)}
        now["training"] = asdict(self.config)
        for name in LENGTH:
            if now["training"][name] > then["training"][name]:
                then["training"][name] = now["training"][name]
        for name, wanted in now.items():
            if found := differences(then[name], wanted, (*PLACE, *WHERE)):
                raise ValueError(
                    f"{run_dir} holds a run with other {name} settings, {describe(found)}: choose "
                    "another folder."
                )


def _check_trainable(model: MultimodalAutoencoder) -> None:
    """Refuse a model whose layers were solved or merged after training."""
    settings = {name: model.get_config()[name] for name in ("n_networks", "ridge_units")}
    solved = model.output_basis is not model.fmri_basis
    if solved or settings != {"n_networks": 1, "ridge_units": 0}:
        raise ValueError(
            f"the model is merged ({settings}), and so for evaluation, expected a network: train "
            "one, and merge it again."
        )


def _load(data: Dataset, batches: list[Tensor]) -> Iterator[dict[str, Tensor]]:
    return iter(DataLoader(data, batch_size=None, sampler=[batch.tolist() for batch in batches]))
