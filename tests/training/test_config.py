import math

import pytest

from giblet.training import TrainingConfig
from giblet.training.config import learning_rate_at


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
    assert learning_rate_at(0, 10, TrainingConfig(warmup=0.0)) == 2e-3


@pytest.mark.parametrize(
    "name", ["epochs", "batch_size", "learning_rate", "clip_norm", "patience", "checkpoint_every"]
)
def test_numbers_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} is 0, expected a positive number"):
        TrainingConfig(**{name: 0})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "clip_norm"])
def test_numbers_that_are_none(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, expected a positive number"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 1.5}, "epochs is 1.5, expected a whole number"),
        ({"micro_batches": 0.5}, "micro_batches is 0.5, expected a whole number"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1, expected a number from 0 on"),
        ({"weight_decay": math.nan}, "weight_decay is nan, expected a number from 0 on"),
        ({"warmup": 1.1}, "warmup is 1.1, expected a share from 0 to 1"),
        ({"warmup": math.nan}, "warmup is nan, expected a share from 0 to 1"),
        ({"random_state": -1}, "random_state is -1, expected a whole number from 0"),
        ({"random_state": 2**64}, "random_state is 18446744073709551616, expected a whole number"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**given)


def test_negative_micro_batches():
    with pytest.raises(
        ValueError, match="micro_batches is -1, expected a positive number, or 0 for one a rank"
    ):
        TrainingConfig(micro_batches=-1)


def test_unknown_precision():
    with pytest.raises(ValueError, match="'fp8', expected 'auto', 'bf16' or 'float32'"):
        TrainingConfig(precision="fp8")
