import math

import pytest
import torch

from giblet.training import TrainingConfig
from giblet.training.config import learning_rate_at, resolve_device, resolve_dtype


def test_schedule_against_closed_form():
    config = TrainingConfig(learning_rate=2e-3, warmup=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    for step in range(10):
        assert rates[step] == pytest.approx(2e-3 * (step + 1) / 11)
    for step in range(10, 100):
        assert rates[step] == pytest.approx(1e-3 + 1e-3 * math.cos(math.pi * (step - 10) / 90))
    assert max(rates) == rates[10] == 2e-3
    assert learning_rate_at(100, 100, config) == pytest.approx(0)


def test_schedule_without_warmup_starts_at_the_peak():
    assert learning_rate_at(0, 10, TrainingConfig(warmup=0.0)) == 1e-3


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "clip_norm", "patience", "checkpoint_every"])
def test_numbers_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected a positive number"):
        TrainingConfig(**{name: 0})


def test_negative_micro_batches():
    with pytest.raises(ValueError, match="micro_batches is -1, expected a positive number, or 0 for one a rank"):
        TrainingConfig(micro_batches=-1)


def test_each_rank_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert resolve_device(TrainingConfig()) == resolve_device(TrainingConfig(device="cuda")) == torch.device("cuda:3")
    assert resolve_device(TrainingConfig(device="cuda:1")) == torch.device("cuda:1")


def test_unknown_precision():
    with pytest.raises(ValueError, match="'fp8', expected 'auto', 'bf16' or 'float32'"):
        TrainingConfig(precision="fp8")


@pytest.mark.parametrize(("flag", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_asks_the_gpu(monkeypatch, flag, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: flag)
    assert resolve_dtype(TrainingConfig(), torch.device("cuda")) == dtype


def test_cpu_computes_in_float32_unless_asked():
    """Whatever the CPU: kinds of CPU would give other numbers in bfloat16."""
    assert resolve_dtype(TrainingConfig(), torch.device("cpu")) == torch.float32
    assert resolve_dtype(TrainingConfig(precision="bf16"), torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", r"device is 'mps', expected 'auto', 'cpu', 'cuda' or 'cuda:N'; 'mps' has no float64"),
        ("gpu", "device is 'gpu', expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("cuda:x", "device is 'cuda:x', "),
        ("cpu:", "device is 'cpu:', "),
    ],
)
def test_device_that_giblet_does_not_train_on(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=message):
        resolve_device(TrainingConfig(device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu():
    with pytest.raises(ValueError, match=r"device is 'cuda', but torch .* finds no GPU: take 'cpu'"):
        resolve_device(TrainingConfig(device="cuda"))


def test_auto_device_prefers_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(TrainingConfig()).type == "cuda"
    assert resolve_device(TrainingConfig(device="cpu")).type == "cpu"
