import pytest
import torch

from giblet.training import TrainingConfig
from giblet.training.device import resolve_device, resolve_dtype


def test_each_rank_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (
        resolve_device(TrainingConfig())
        == resolve_device(TrainingConfig(device="cuda"))
        == torch.device("cuda:3")
    )
    assert resolve_device(TrainingConfig(device="cuda:1")) == torch.device("cuda:1")


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
        (
            "mps",
            r"device is 'mps', expected 'auto', 'cpu', 'cuda' or 'cuda:N'; 'mps' has no float64",
        ),
        ("gpu", "device is 'gpu', expected 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("cuda:x", "device is 'cuda:x', "),
        ("cpu:", "device is 'cpu:', "),
        ("", "device is '', "),
        ("GPU0", "device is 'GPU0', "),
        ("cuda:-1", "device is 'cuda:-1', "),
        ("cuda:4", r"device is 'cuda:4', but torch finds 4 GPUs, counted from 0"),
    ],
)
def test_device_that_giblet_does_not_train_on(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match=message):
        resolve_device(TrainingConfig(device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu():
    with pytest.raises(
        ValueError, match=r"device is 'cuda', but torch .* finds no GPU: take 'cpu'"
    ):
        resolve_device(TrainingConfig(device="cuda"))


def test_auto_device_prefers_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_device(TrainingConfig()).type == "cuda"
    assert resolve_device(TrainingConfig(device="cpu")).type == "cpu"
