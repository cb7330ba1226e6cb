import pytest
import torch

from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training import TrainingConfig
from giblet.training.recipe import FULL_SIZE, build_model, load_or_train, open_data

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


def test_span_where_there_are_fewer_trs_than_values(simulated):
    data = open_data(simulated, progress=False)["train"]
    span, direct = (build_model(data, direct=direct, progress=False, **SMALL) for direct in (False, True))
    assert isinstance(span, SpanAutoencoder)
    assert type(direct) is MultimodalAutoencoder
    assert span.get_config() == direct.get_config()
    arrays = {"video": torch.rand(400, 20).numpy(), "fmri": torch.rand(400, 30).numpy()}
    wide = MultimodalDataset.from_arrays(**arrays, average=True)
    assert type(build_model(wide, **SMALL)) is MultimodalAutoencoder


def test_direct_run_is_another_run(train):
    assert train().folder != train(direct=True).folder


def test_full_size_recipe_is_the_full_size_model(simulated):
    data = open_data(simulated, FULL_SIZE, progress=False)["train"]
    with torch.device("meta"):
        model = build_model(data, recipe=FULL_SIZE, progress=False)
        full_size = MultimodalAutoencoder(audio_features=2048, n_voxels=data.model_dims["n_voxels"])
        assert MultimodalAutoencoder(**model.get_config()).parameter_count() == full_size.parameter_count()
    assert model.get_config()["measured_weight"] == 1
