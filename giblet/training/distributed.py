"""The ranks of one run, as `torchrun` starts them; a process alone is one rank.

Every rank holds the same weights (DDP) or a share of them (FSDP2), and sees its share of each
batch.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

# DDP leaves BatchNorm's running statistics alone: the trainer averages them, see RunningStatistics.
# torch 2.13 renamed the argument.
_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _ARGUMENTS else "broadcast_buffers"


def rank() -> int:
    """Number of this process among the ranks; 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Number of this process among those of this machine: which of its GPUs is ours."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other ranks for as long as the block runs, if `torchrun` started this process.

    Tensors travel by NCCL between GPUs and by gloo between CPUs.
    """
    if dist.is_initialized() or not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_joined() -> None:
    """Raise RuntimeError where ranks of `torchrun` would each train alone in one folder."""
    if (
        dist.is_torchelastic_launched()
        and int(os.environ["WORLD_SIZE"]) > 1
        and not dist.is_initialized()
    ):
        raise RuntimeError(
            f"torchrun started {os.environ['WORLD_SIZE']} ranks that have not joined: "
            f"put the training into `with giblet.training.distributed.process_group(device):`."
        )


def all_sum(values: Tensor) -> Tensor:
    """Sum over the ranks, the same on each, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def distribute(module: nn.Module, device: torch.device, shard: bool) -> nn.Module:
    """Make the backward pass of `module` give the mean gradient over the ranks.

    Parameters
    ----------
    module : nn.Module
        On one process it is given back as it is. With `shard` all ranks but the first may hold it
        on the meta device: the first one's weights go to all.
    shard : bool
        FSDP2: each rank keeps its share of weights, gradients and optimiser state, and the layers
        gather their weights as they run. Else DDP: each rank keeps them all.
    """
    if not shard:
        if n_ranks() == 1:
            return module.to(device)
        settings = {BUFFERS: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(module.to(device), **settings)
    if not dist.is_initialized():
        raise ValueError(
            "shard is True, but there is one process: start several with torchrun, or leave shard "
            "away."
        )
    first = module.state_dict() if rank() == 0 else {}
    module.to("meta")
    mesh = init_device_mesh(device.type, (n_ranks(),))
    for layer in module.modules():
        if any(True for _ in layer.parameters(recurse=False)):
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    module.to_empty(device=device)
    for name, value in module.state_dict().items():
        whole = (
            first.pop(name)
            if rank() == 0
            else torch.empty(value.shape, dtype=value.dtype, device=device)
        )
        whole = whole.to(device)
        if isinstance(value, DTensor):
            value.copy_(distribute_tensor(whole, mesh, value.placements))
        else:
            dist.broadcast(whole, 0)
            value.copy_(whole)
    return module


def no_sync(module: nn.Module, last: bool) -> AbstractContextManager:
    """Keep gradients on their rank until the `last` micro-batch of a step.

    FSDP2, short of memory, adds up shares.
    """
    return (
        nullcontext()
        if last or not isinstance(module, DistributedDataParallel)
        else module.no_sync()
    )


def gather(state):
    """A state dict with every sharded tensor whole, on the CPU of rank 0.

    None on other ranks. Every rank has to call it.
    """
    if isinstance(state, dict):
        return {key: gather(value) for key, value in state.items()}
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.cpu() if rank() == 0 else None
    return state


def scatter(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of whole tensors, the shares that `like` has on this rank; the names are those in `like`."""
    return {name: _share(state[name], value) for name, value in like.items()}


def scatter_optimizer(state: dict, parameters: list[nn.Parameter]) -> dict:
    """The same for the state dict of an optimiser."""
    shares = {
        index: {
            name: _share(value, parameters[index]) if value.dim() else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return state | {"state": shares}


def _share(whole: Tensor, like: Tensor) -> Tensor:
    whole = whole.to(like.device)
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
