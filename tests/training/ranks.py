"""A small run on planted data: imported by tests, and started by them with `torchrun`."""

import argparse
import contextlib
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from giblet.models import MultimodalAutoencoder
from giblet.training import Trainer, TrainingConfig
from giblet.training.distributed import process_group, rank

WIDTHS = {"video": 30, "audio": 12, "text": 10, "fmri": 20}


class Planted(Dataset):
    """Stimuli drawn from few latents, and voxels that follow them linearly."""

    def __init__(
        self, n_trs: int, seed: int = 0, noise: float = 0.3, dtype: torch.dtype = torch.float32
    ):
        mixing = np.random.default_rng(0)
        draws = np.random.default_rng(seed + 1)
        latents = draws.standard_normal((n_trs, 3))
        self.seen: list[int] = []
        self.arrays = {
            name: torch.tensor(latents @ mixing.standard_normal((3, width)), dtype=dtype)
            for name, width in WIDTHS.items()
        }
        self.arrays["fmri"] += noise * torch.tensor(draws.standard_normal((n_trs, 20)), dtype=dtype)

    def __len__(self) -> int:
        return len(self.arrays["fmri"])

    def __getitem__(self, index: list[int]) -> dict:
        self.seen += index
        return {name: array[index] for name, array in self.arrays.items()}


def new_model(seed: int = 0, width: float = 1 / 32) -> MultimodalAutoencoder:
    torch.manual_seed(seed)
    widths = {
        "video_dim": 30,
        "audio_features": 12,
        "text_dim": 10,
        "n_voxels": 20,
        "bottleneck_dim": 8,
    }
    return MultimodalAutoencoder(**widths, width=width, measured_weight=1.0)


CONFIG = TrainingConfig(
    epochs=6, batch_size=16, learning_rate=5e-3, checkpoint_every=2, patience=6, precision="float32"
)


def new_trainer(config: TrainingConfig = CONFIG, train=None, val=None, seed: int = 0) -> Trainer:
    val = Planted(40, seed=1) if val is None else val
    return Trainer(new_model(seed), train or Planted(70), val, config)


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def main() -> None:
    """67 TRs in 5 batches of 14 and 13, so that the parts of a batch differ.

    The last validation batch is one TR.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--width", type=float, default=1 / 32)
    parser.add_argument("--nan", action="store_true", help="in one response of one rank's data")
    for name in ("epochs", "checkpoint_every", "micro_batches"):
        parser.add_argument(f"--{name}", type=int, default=2)
    parser.add_argument("--shard", action="store_true")
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    dtype = getattr(torch, given.pop("dtype"))
    width = given.pop("width")
    train = Planted(67, dtype=dtype)
    with process_group(torch.device("cpu")):
        if given.pop("nan") and rank() == 1:
            train.arrays["fmri"][:] = float("nan")
        config = TrainingConfig(
            batch_size=16, patience=9999, device="cpu", precision="float32", **given
        )
        with torch.device("meta") if config.shard and rank() else contextlib.nullcontext():
            model = new_model(width=width).to(dtype)
        try:
            Trainer(model, train, Planted(33, seed=1, dtype=dtype), config).fit(
                folder, progress=False
            )
        except SystemExit as stop:
            (folder / f"exit-{rank()}").write_text(str(stop.code))
            raise


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
