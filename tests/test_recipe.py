from dataclasses import replace

import numpy as np
import pytest
import torch

from giblet.data import MultimodalDataset, VideoProcessor, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.recipe import FULL_SIZE, VIDEO, build_model, open_data
from giblet.training import Trainer, TrainingConfig

SMALL = {"width": 1 / 128, "bottleneck_dim": 8}


def test_data_of_the_recipe(simulated):
    data = open_data(simulated, progress=False)
    assert all(part.average for part in data.values())
    assert data["train"].model_dims["video_dim"] == 9 * 45 * 80 * 3
    assert sum(data[split].n_trs for split in ("train", "val", "test")) < data["all"].n_trs


def test_settings_of_the_data_by_name(simulated):
    settings = {"colour": False, "context": (1, 0), "subjects": ["sub-02"], "progress": False}
    data = open_data(simulated, average=False, **settings)
    assert data["all"].video_processor == replace(VIDEO, colour=False)
    assert data["train"].model_dims["video_dim"] == 2 * 9 * 45 * 80
    assert data["train"].subjects == ["sub-02"]
    assert [data[name].average for name in ("train", "val", "test", "all")] == [
        *(False, True, True, True),
    ]
    film = VideoProcessor(height=6, width=8, frame_skip=4, colour=True)
    grey = open_data(simulated, video_processor=film, **settings)["all"]
    assert grey.video_processor == replace(film, colour=False)
    again = open_data(data)
    assert [again[name].average for name in data] == [data[name].average for name in data]


def test_seed_gives_the_weights(simulated):
    data = open_data(simulated, progress=False)["train"]
    torch.manual_seed(5)
    weights = [build_model(data, seed, **SMALL).core.encoder.to_voxels.weight for seed in (0, 0, 1)]
    assert torch.initial_seed() == 5
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_span_where_there_are_fewer_trs_than_values(simulated):
    data = open_data(simulated, progress=False)["train"]
    span, direct = (
        build_model(data, direct=direct, progress=False, **SMALL) for direct in (False, True)
    )
    assert isinstance(span, SpanAutoencoder)
    assert type(direct) is MultimodalAutoencoder
    assert span.get_config() == direct.get_config()
    arrays = {"video": torch.rand(400, 20).numpy(), "fmri": torch.rand(400, 30).numpy()}
    wide = MultimodalDataset.from_arrays(**arrays, average=True)
    assert type(build_model(wide, **SMALL)) is MultimodalAutoencoder


def test_full_size_recipe_is_the_full_size_model(simulated):
    data = open_data(simulated, FULL_SIZE, progress=False)["train"]
    with torch.device("meta"):
        model = build_model(data, recipe=FULL_SIZE, progress=False)
        full_size = MultimodalAutoencoder(audio_features=2048, n_voxels=data.model_dims["n_voxels"])
        assert (
            MultimodalAutoencoder(**model.get_config()).parameter_count()
            == full_size.parameter_count()
        )
    assert model.get_config()["measured_weight"] == 1


def test_layer_3_keeps_its_width_where_a_modality_is_absent(rng):
    arrays = {
        "video": rng.random((150, 20)),
        "audio": rng.random((150, 6)),
        "text": rng.random((150, 9)),
    }
    widths = {"video": 1 / 8 * 1.5, "audio": 3 / 4, "text": 3 / 4}
    for name, width in widths.items():
        data = MultimodalDataset.from_arrays(
            **{name: arrays[name]}, fmri=rng.random((150, 5)), average=True
        )
        model = build_model(data)
        assert model.get_config()["width"] == pytest.approx(width)
        assert model.encoder.to_features[0].in_features == 192
        assert build_model(data, width=1 / 64).get_config()["width"] == 1 / 64
    whole = MultimodalDataset.from_arrays(**arrays, fmri=rng.random((150, 5)), average=True)
    assert build_model(whole).get_config()["width"] == 1 / 8


@pytest.mark.parametrize("direct", [True, False])
def test_constant_columns_train_as_if_they_were_not_there(rng, direct, tmp_path):
    """One modality, and the same with two constant columns: the same losses, weights and scores."""
    text = rng.standard_normal((160, 9))
    fmri = rng.standard_normal((3, 160, 200))
    constant = {"video": np.full((160, 3), 0.5), "audio": np.zeros((160, 1))}
    histories = []
    for others in ({}, constant):
        train, val = (
            MultimodalDataset.from_arrays(**others, text=text, fmri=fmri, split=split, average=True)
            for split in ("train", "val")
        )
        torch.manual_seed(0)
        folder = tmp_path / str(len(histories))
        sizes = train.model_dims | {"width": 1 / 64, "bottleneck_dim": 8, "measured_weight": 1.0}
        model = (
            MultimodalAutoencoder(**sizes)
            if direct
            else SpanAutoencoder(fit_span(train, folder), **sizes)
        )
        config = TrainingConfig(epochs=3, device="cpu")
        histories.append(Trainer(model, train, val, config).fit(folder / "run", progress=False))
    assert histories[0] == histories[1]
    assert histories[0][0]["train"]["video_recon"] == histories[0][0]["train"]["audio_recon"] == 0.0
