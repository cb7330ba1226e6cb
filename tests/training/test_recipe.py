import pytest
import torch

from giblet.training import TrainingConfig
from giblet.training.recipe import build_model, load_or_train, open_data

CONFIG = TrainingConfig(epochs=2, batch_size=16)
SMALL = {"width": 1 / 128, "bottleneck_dim": 8}


@pytest.fixture
def train(simulated):
    def train(config: TrainingConfig = CONFIG, **settings):
        return load_or_train(simulated, config, progress=False, **(SMALL | settings))

    return train


def test_trains_once(train, monkeypatch):
    first = train()
    monkeypatch.setattr("giblet.training.trainer.Trainer._train_step", lambda *_: pytest.fail("trained again"))
    again = train()
    assert again.folder == first.folder
    assert again.history == first.history
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_are_another_run(train):
    runs = [train(), train(TrainingConfig(epochs=2, batch_size=8)), train(bottleneck_dim=4)]
    assert len({run.folder for run in runs}) == 3
    assert runs[2].model.get_config()["bottleneck_dim"] == 4


def test_data_of_the_recipe(simulated):
    data = open_data(simulated, progress=False)
    assert all(part.average for part in data.values())
    assert data["train"].model_dims["video_dim"] == 9 * 45 * 80
    assert sum(data[split].n_trs for split in ("train", "val", "test")) < data["all"].n_trs


def test_seed_gives_the_weights(simulated):
    data = open_data(simulated, progress=False)["train"]
    torch.manual_seed(5)
    weights = [build_model(data, seed, **SMALL).core.encoder.to_voxels.weight for seed in (0, 0, 1)]
    assert torch.initial_seed() == 5
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
