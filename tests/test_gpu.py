"""Training, lesions and reconstruction on a GPU, compared with the CPU.

    pytest -m gpu

Every test is skipped where torch can use no GPU. Started by torchrun, this file is the rank that
the tests of DDP and FSDP2 compare with plain training.
"""

import argparse
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from giblet.analysis.lesion_effects import unit_null
from giblet.analysis.lesions import FILLS, MODES, LesionScores
from giblet.analysis.prediction import predict_fmri
from giblet.analysis.reconstruction import SOURCES, collect, reconstruct
from giblet.analysis.regions import seitzman_networks
from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.plotting import widgets
from giblet.training import Trainer, TrainingConfig, load_checkpoint, load_model
from giblet.training.config import resolve_device
from giblet.training.distributed import process_group
from giblet.training.memory import plan_memory
from giblet.training.recipe import FULL_SIZE, build_model, open_data

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]

CONFIG = TrainingConfig(
    epochs=8,
    batch_size=16,
    patience=8,
    checkpoint_every=8,
    device=DEVICE,
    precision="float32",
)
BF16 = replace(CONFIG, precision="bf16")  # a GPU's default
PRECISIONS = ("float32", "bf16")
LOSSES = ("total", "reconstruction", "fmri")
# Largest relative difference of a loss of CONFIG, which AdamW makes of rounding. On a CPU, noise of
# 1e-7 or 1e-6 of the initial weights moved a loss by up to 6.3e-3, in the first epoch by 6e-4, and
# bf16 moved one by 2.9e-3. Half the learning rate moved one by 2.9e-2, and dropout by 5.9e-2.
TOLERANCE = 1.2e-2
FIRST_EPOCH = 2e-3
# The same run again on the same device: equal but for what the device itself does not repeat.
REPEATED = 1e-6
# Largest difference of what equal weights give on two devices in float32, where torch leaves TF32
# off: in SDs, and in scores. On a CPU, noise of 2e-7 of the weights moved a reconstruction by 5e-6
# SDs and a score by 5e-7; the lesions below cost .01 to .1.
ROUNDING = 1e-4
SCORES = 1e-4

# The seed's sizes, with TRs enough for five updates per epoch.
N_TRS, N_PIXELS, N_VOXELS, N_AUDIO, N_TEXT = 150, 259_200, 85_810, 2048, 1024
N_EPOCHS = 4
# Peak memory beyond the weights, as a share of the plan. The plan counts neither the responses that
# validation holds in float64, nor bf16 copies of weights and gradients, nor the workspaces of
# cuBLAS. Tensors alone came to 1.14 of it on a CPU in the span, and to 1.12 directly at a quarter
# of the size.
USED = (0.8, 1.35)


class Enough(Exception):
    """Ends a run before its checkpoint, which has 31 GB for the direct model, is written."""


@dataclass(frozen=True)
class FullSize:
    """A short run of the full-size model: its losses, the dtypes of its weights and bytes."""

    history: list[dict]
    dtypes: set[torch.dtype]
    planned: int
    used: int


def stop_after(n_epochs: int) -> Callable[[list[dict]], None]:
    """A callback that ends a run after some epochs."""

    def on_epoch(history: list[dict]) -> None:
        if len(history) == n_epochs:
            raise Enough

    return on_epoch


def small_trainer(data: dict, config: TrainingConfig, dropout: bool = True) -> Trainer:
    """The small recipe in the span; without dropout, whose draws differ between devices."""
    model = build_model(data["train"], progress=False)
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    return Trainer(model, data["train"], data["val"], config)


def largest_difference(found: list[dict], expected: list[dict]) -> float:
    """Of the losses of every epoch, relative."""
    assert len(found) == len(expected)
    differences = []
    for a, b in zip(found, expected, strict=True):
        for split in ("train", "val"):
            differences += [abs(a[split][name] / b[split][name] - 1) for name in LOSSES]
    return max(differences)


def assert_close(found, expected) -> None:
    """Arrays or tensors on the CPU within rounding, in SDs of what is expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.std(expected))


def assert_same_scores(found: np.ndarray, expected: np.ndarray) -> None:
    """R2 or cosines within rounding; NaN is NaN."""
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=SCORES)


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    return open_data(simulated, progress=False)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> dict[str, Trainer]:
    """The small recipe without dropout: on the device by precision, and 'cpu' in float32."""
    configs = {precision: replace(CONFIG, precision=precision) for precision in PRECISIONS}
    configs["cpu"] = replace(CONFIG, device="cpu")
    trainers = {}
    for name, config in configs.items():
        trainers[name] = small_trainer(data, config, dropout=False)
        trainers[name].fit(tmp_path_factory.mktemp(name), progress=False)
    return trainers


@pytest.fixture(scope="module")
def models(data, tmp_path_factory) -> tuple[MultimodalAutoencoder, MultimodalAutoencoder]:
    """A model of 120 updates in bf16 on the device, and its checkpoint on the CPU.

    Validated on the training TRs, it keeps a late epoch, which lesions hurt more than rounding.
    """
    folder = tmp_path_factory.mktemp("model")
    config = replace(BF16, epochs=60, patience=60, checkpoint_every=60)
    model = build_model(data["train"], progress=False)
    Trainer(model, data["train"], data["train"], config).fit(folder, progress=False)
    return model, load_model(folder / "best.pt")


def test_small_recipe_trains_in_bf16_over_float32_weights(trained):
    trainer = trained["bf16"]
    assert trainer.dtype == torch.bfloat16
    assert trainer.device.type == DEVICE
    assert {value.device.type for value in trainer.model.state_dict().values()} == {DEVICE}
    assert {parameter.dtype for parameter in trainer.core.parameters()} == {torch.float32}
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    assert {moment.dtype for moment in moments} == {torch.float32}
    for name in LOSSES:
        losses = [entry["train"][name] for entry in trainer.history]
        assert losses[-1] < (1 - 2 * TOLERANCE) * losses[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_losses_are_those_of_the_cpu(trained, precision):
    difference = largest_difference(trained[precision].history, trained["cpu"].history)
    print(f"{precision}: largest relative difference {difference:.1e}")
    assert difference < TOLERANCE


def test_checkpoint_of_the_device_predicts_the_same_on_the_cpu(models, data):
    on_device, on_cpu = models
    assert next(on_device.parameters()).device.type == DEVICE
    assert {parameter.device.type for parameter in on_cpu.parameters()} == {"cpu"}
    assert_close(predict_fmri(on_device, data["test"]), predict_fmri(on_cpu, data["test"]))


@pytest.fixture(scope="module")
def arrays() -> dict[str, MultimodalDataset]:
    """Random features and responses of the seed's sizes."""
    rng = np.random.default_rng(0)
    features = {
        "video": rng.integers(0, 256, (N_TRS, N_PIXELS), dtype=np.uint8),
        "audio": rng.standard_normal((N_TRS, N_AUDIO), dtype=np.float32),
        "text": rng.standard_normal((N_TRS, N_TEXT), dtype=np.float32),
        "fmri": rng.standard_normal((N_TRS, N_VOXELS), dtype=np.float32),
    }
    splits = ("train", "val")
    features |= {"average": True}
    return {split: MultimodalDataset.from_arrays(**features, split=split) for split in splits}


def full_size_model(kind: str, train: MultimodalDataset, folder: Path) -> MultimodalAutoencoder:
    """The model in the span, or 'direct', every weight of it, made on the device."""
    settings = train.model_dims | FULL_SIZE.model
    torch.manual_seed(0)
    if kind == "span":
        return SpanAutoencoder(fit_span(train, folder, progress=False), **settings)
    with torch.device("meta"):
        model = MultimodalAutoencoder(**settings)
    plan = plan_memory(model, CONFIG.batch_size, torch.device(DEVICE))
    asked = USED[1] * sum(plan.parts.values())
    if plan.free < asked:
        free = f"{plan.free / 1e9:.0f} GB"
        pytest.skip(f"needs a GPU with {asked / 1e9:.0f} GB free, this one has {free}")
    with torch.device(DEVICE):
        return MultimodalAutoencoder(**settings)


def train_full_size(model: MultimodalAutoencoder, arrays: dict, folder: Path) -> FullSize:
    """Some epochs in bf16, and their peak of memory beyond the weights."""
    n_epochs = N_EPOCHS + 1
    settings = {"epochs": n_epochs, "checkpoint_every": n_epochs, "patience": n_epochs}
    config = replace(BF16, learning_rate=1e-4, **settings)
    trainer = Trainer(model, arrays["train"], arrays["val"], config)
    plan = plan_memory(trainer.core, config.batch_size, trainer.device)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with pytest.raises(Enough):
        trainer.fit(folder, stop_after(N_EPOCHS), progress=False)
    used = torch.cuda.max_memory_allocated() - before
    dtypes = {parameter.dtype for parameter in trainer.core.parameters()}
    return FullSize(trainer.history, dtypes, plan.needed, used)


@pytest.fixture(scope="module", params=["span", "direct"])
def full_size(request, arrays, tmp_path_factory) -> FullSize:
    folder = tmp_path_factory.mktemp("full")
    gc.collect()  # frames of a run that was ended still hold its model
    torch.cuda.empty_cache()
    model = full_size_model(request.param, arrays["train"], folder)
    return train_full_size(model, arrays, folder / "run")


def test_full_size_losses_fall(full_size):
    assert len(full_size.history) == N_EPOCHS
    for entry in full_size.history:
        assert np.isfinite([*entry["train"].values(), *entry["val"].values()]).all()
    first, last = full_size.history[0]["train"], full_size.history[-1]["train"]
    for name in ("total", "reconstruction", "video_recon", "measured_recon"):
        assert last[name] < first[name]
    assert full_size.dtypes == {torch.float32}


def test_full_size_takes_the_memory_that_was_planned(full_size):
    share = full_size.used / full_size.planned
    print(f"planned {full_size.planned / 1e9:.2f} GB, used {full_size.used / 1e9:.2f} GB")
    assert USED[0] < share < USED[1]


def run_in_bf16(data: dict, folder: Path) -> list[dict]:
    """Losses of the small recipe as a GPU trains it, dropout included."""
    return small_trainer(data, BF16).fit(folder, progress=False)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> list[dict]:
    """Losses in one process on the device."""
    return run_in_bf16(data, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_one_rank_gives_the_losses_of_plain_training(simulated, plain, tmp_path, kind):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command = [sys.executable, *torchrun, __file__, str(simulated), str(tmp_path), kind]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    history = load_checkpoint(tmp_path / "last.pt")["history"]
    assert largest_difference(history[:1], plain[:1]) < FIRST_EPOCH
    assert largest_difference(history, plain) < TOLERANCE
    assert load_model(tmp_path / "best.pt").get_config()


def test_resumed_run_gives_the_losses_of_the_uninterrupted_one(data, plain, tmp_path):
    """Stopped within the third epoch: the signal is answered at the step after it."""

    def ask_to_stop(history: list[dict]) -> None:
        if len(history) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(SystemExit):
        small_trainer(data, BF16).fit(tmp_path / "run", ask_to_stop, progress=False)
    stopped = load_checkpoint(tmp_path / "run" / "last.pt")
    assert len(stopped["history"]) == 2
    assert stopped["step"] == stopped["history"][-1]["step"] + 1
    resumed = small_trainer(data, BF16)
    history = resumed.fit(tmp_path / "run", progress=False)
    assert {value.device.type for value in resumed.model.state_dict().values()} == {DEVICE}
    repeated = largest_difference(run_in_bf16(data, tmp_path / "repeated"), plain)
    assert repeated < TOLERANCE
    assert largest_difference(history, plain) <= max(REPEATED, 4 * repeated)


@pytest.fixture(scope="module")
def scores(models, data) -> tuple[LesionScores, LesionScores]:
    """Of the measured brain, on the device and on the CPU."""
    test = data["test"]
    return tuple(LesionScores(model, test, test.fmri()) for model in models)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("mode", MODES)
def test_region_lesions_score_as_on_the_cpu(scores, rng, fill, mode):
    regions = rng.random((5, scores[0].fmri.shape[1])) < 0.3
    lesion = {"fill": fill, "mode": mode, "strength": 0.7}
    found, expected = (part.of_regions(regions, **lesion) for part in scores)
    for name in scores[1].names:
        assert_same_scores(scores[0].intact[name], scores[1].intact[name])
        assert_same_scores(found[name], expected[name])


@pytest.mark.parametrize("fill", FILLS)
def test_unit_lesions_and_their_null_score_as_on_the_cpu(scores, fill):
    groups = [np.arange(start, start + 16) for start in range(0, 64, 16)]
    found, expected = (part.of_units(groups, fill=fill) for part in scores)
    nulls = [unit_null(part, 16, n_permute=19, fill=fill) for part in scores]
    for name in scores[1].names:
        assert_same_scores(found[name], expected[name])
        assert_same_scores(nulls[0][name], nulls[1][name])


@pytest.mark.parametrize("source", SOURCES)
def test_reconstructions_are_those_of_the_cpu(models, data, source):
    found, expected = (collect(reconstruct(source, model, data["test"])) for model in models)
    for name, values in expected.items():
        assert found[name].device.type == "cpu"
        assert_close(found[name], values)


@pytest.fixture
def explorers(models, data, monkeypatch):
    monkeypatch.setattr(widgets, "SETTLE_SECONDS", 1e4)
    regions = seitzman_networks(data["test"].mask_img)
    both = [widgets.LesionExplorer(model, data["test"], regions, n_permute=19) for model in models]
    yield both
    for explorer in both:
        explorer.close()


def shown(explorer: widgets.LesionExplorer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(explorer.picture.value))).astype(int)


@pytest.mark.parametrize("source", widgets.SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_explorer_shows_what_it_shows_on_the_cpu(explorers, source, mode):
    for explorer in explorers:
        explorer.source.value = source
        explorer.mode.value = mode
        explorer.fill.value = "mean"
        explorer.tr.value = 3
        explorer.region.value = ("Visual", "Auditory")
        explorer.units.value = (0, 16)
        explorer.settle()
        assert explorer.sounds.value.count("data:audio") == 3
        assert "lesioned" in explorer.words.value
    on_device, on_cpu = explorers
    assert on_device.bottleneck([3]).device.type == DEVICE
    assert np.abs(shown(on_device) - shown(on_cpu)).max() <= 1
    expected = on_cpu.effects()
    for name, effect in on_device.effects().items():
        assert_same_scores(effect.lesioned, expected[name].lesioned)
        assert_same_scores(effect.null, expected[name].null)


def main() -> None:
    """Train the small recipe as one rank: `torchrun test_gpu.py DATA RUN KIND`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("kind", choices=("ddp", "fsdp"))
    given = parser.parse_args()
    config = replace(BF16, shard=given.kind == "fsdp")
    # one rank alone trains without DDP, so let the model be wrapped as for two
    two_ranks = patch("giblet.training.distributed.n_ranks", return_value=2)
    with process_group(resolve_device(config)):
        with two_ranks if given.kind == "ddp" else nullcontext():
            trainer = small_trainer(open_data(given.data, progress=False), config)
        wrapped = {"ddp": DistributedDataParallel, "fsdp": FSDPModule}[given.kind]
        assert isinstance(trainer._loss, wrapped)
        trainer.fit(given.run, progress=False)


if __name__ == "__main__":
    main()
