"""What a run needs of memory, and whether it is there."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from giblet.models import MultimodalAutoencoder
from giblet.training.distributed import n_ranks

PARTS = {
    "parameters": "weights",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "best": "best weights so far",
    "activations": "activations of a batch",
}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that training needs by part, see `PARTS`, and bytes that are free.

    Free is what is left besides the weights.
    """

    parts: dict[str, int]
    free: int

    @property
    def needed(self) -> int:
        """All parts but the weights, which are in memory already."""
        return sum(self.parts.values()) - self.parts["parameters"]

    def __str__(self) -> str:
        parts = ", ".join(
            f"{PARTS[name]} {n_bytes / 1e9:.2f}" for name, n_bytes in self.parts.items()
        )
        return (
            f"memory: {sum(self.parts.values()) / 1e9:.1f} GB to train ({parts}); "
            f"{self.free / 1e9:.1f} GB are free beside the weights"
        )


def plan_memory(
    model: MultimodalAutoencoder, batch_size: int, device: torch.device, n_shards: int = 1
) -> MemoryPlan:
    """What each rank needs to train `model` on `device`, in float32 with AdamW.

    See `check_memory`.
    """
    parts = model.memory_estimate(batch_size)
    del parts["total"]
    parts |= {"best": parts["parameters"]}
    shares = {
        name: n_bytes // (1 if name == "activations" else n_shards)
        for name, n_bytes in parts.items()
    }
    return MemoryPlan(shares, free_memory(device))


def check_memory(
    model: MultimodalAutoencoder,
    n_trs: int,
    batch_size: int,
    device: torch.device,
    n_shards: int = 1,
) -> MemoryPlan:
    """The plan, if it fits.

    Parameters
    ----------
    n_trs : int
        Training TRs, which bound what span training needs.
    batch_size : int
        TRs that are worked on at once: those of a micro-batch.
    n_shards : int
        Ranks that share the weights, with `TrainingConfig(shard=True)`.

    Raises
    ------
    MemoryError
        If it does not fit, naming what would: span training, a smaller batch, fewer frames or
        shards.
    """
    plan = plan_memory(model, batch_size, device, n_shards)
    if plan.needed <= plan.free:
        return plan
    smaller = _smaller(model, n_trs, batch_size, n_shards, plan.free)
    others = [f"{name} ({n_bytes / 1e9:.1f} GB)" for name, n_bytes in smaller]
    advice = (
        f"what would fit: {', or '.join(others)}"
        if others
        else "neither a smaller batch nor fewer frames would fit"
    )
    place = "GPU" if device.type == "cuda" else "machine"
    raise MemoryError(f"this {place} is too small for the model: {plan}; {advice}.")


def _smaller(
    model: MultimodalAutoencoder, n_trs: int, batch_size: int, n_shards: int, free: int
) -> list[tuple[str, int]]:
    """Ways to train with less memory than `free`, with what each needs beside its weights."""
    config = model.get_config()
    ways = []
    if model.span is None:
        sizes = {name: min(config[name], n_trs) for name in ("video_dim", "n_voxels")}
        ways.append(("span training", config | sizes, batch_size, n_shards))
        fewer = config | {"video_dim": config["video_dim"] // 2}
        ways += [("twice the frame_skip", fewer, batch_size, n_shards)] * (config["video_dim"] > 1)
    ways += [
        (f"batches of {n}", config, n, n_shards)
        for n in (batch_size // 2, batch_size // 8)
        if n > 1
    ]
    ways += [("shard", config, batch_size, n_ranks())] * (n_shards < n_ranks())
    fitting = []
    for name, settings, n_rows, shards in ways:
        with torch.device("meta"):
            other = model if settings == config else MultimodalAutoencoder(**settings)
        plan = plan_memory(other, n_rows, torch.device("cpu"), shards)
        if plan.needed <= free:
            fitting.append((name, plan.needed))
    return fitting


def free_memory(device: torch.device) -> int:
    """Bytes that this rank can still take on a device, within the limit of a container."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    limit = (
        (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
    )
    free = free if limit == "max" else min(free, int(limit) - psutil.Process().memory_info().rss)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
