import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from giblet import explorer as live
from giblet.analysis.lesions import Lesion, lesion_units, lesion_voxels
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.models import MultimodalAutoencoder


@pytest.fixture(scope="module")
def data(simulated) -> MultimodalDataset:
    processors = {
        "video_processor": VideoProcessor(12, 16, frame_skip=4),
        "audio_processor": AudioProcessor("mel"),
    }
    return MultimodalDataset(simulated, split="test", average=True, **processors, progress=False)


@pytest.fixture(scope="module")
def model(data) -> MultimodalAutoencoder:
    """An untrained model whose pictures vary over half the grey scale."""
    torch.manual_seed(0)
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=16, width=1 / 32).eval()
    with torch.no_grad():
        model.encoder.to_bottleneck.weight.mul_(10)
        head = model.decoder.video_decoder[2]
        head.weight.mul_(
            0.15 / model.decode_fmri(torch.from_numpy(data.fmri()))["video_recon"].std(0).mean()
        )
        head.bias.fill_(0.5)
    return model


@pytest.fixture
def explorer(model, data, monkeypatch):
    monkeypatch.setattr(live, "SETTLE_SECONDS", 1e4)
    explorer = live.LesionExplorer(model, data, n_permute=19)
    yield explorer
    explorer.close()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    ("control", "value"),
    [("units", (0, 8)), ("region", ("Visual",)), ("tr", 3), ("source", "predicted")],
)
def test_every_control_changes_the_picture(explorer, control, value):
    before = explorer.picture.value
    getattr(explorer, control).value = value
    assert explorer.picture.value != before


def test_what_modifies_a_lesion_changes_it(explorer):
    explorer.region.value = ("Visual", "DefaultMode")
    for control, value in (("mode", "only"), ("strength", 0.5), ("fill", "mean")):
        before = explorer.bottleneck([2])
        getattr(explorer, control).value = value
        assert not torch.equal(explorer.bottleneck([2]), before), control


@pytest.mark.parametrize("source", ["measured", "predicted"])
def test_bottleneck_is_that_of_the_pure_functions(explorer, model, source):
    explorer.source.value = source
    explorer.fill.value = "mean"
    explorer.strength.value = 0.5
    explorer.region.value = ("Visual", "Auditory")
    explorer.units.value = (2, 7)
    brain = explorer.brains[source]
    fmri = lesion_voxels(brain.fmri, explorer.lesioned_voxels, "mean", 0.5)
    with torch.no_grad():
        expected = lesion_units(
            model.fmri_to_bottleneck(fmri), slice(2, 7), "mean", 0.5, brain.bottleneck
        )
    assert torch.allclose(explorer.bottleneck(range(len(fmri))), expected, atol=1e-3)


def test_picture_shows_the_film_and_the_difference(explorer, model, data):
    explorer.tr.value = 4
    explorer.units.value = (0, 8)
    shown = pixels(explorer.picture.value)
    film, intact, lesioned, difference = (
        shown[:, 20 * i : 20 * i + 16].astype(int) for i in range(4)
    )
    frames = data.features.video[data.tr_index[4]].reshape(-1, 12, 16)
    assert np.abs(film - frames[len(frames) // 2]).max() <= 1
    with torch.no_grad():
        expected = model.decoder(explorer.brains["measured"].bottleneck)[0][4].reshape(-1, 12, 16)
    assert np.abs(intact - 255 * expected[len(frames) // 2].clamp(0, 1).numpy()).max() <= 1
    inside = (
        (lesioned > 0)
        & (lesioned < 255)
        & (intact > 0)
        & (intact < 255)
        & (difference > 0)
        & (difference < 255)
    )
    assert inside.any()
    assert np.abs(difference - 127.5 - lesioned + intact)[inside].max() <= 2


def test_a_click_takes_a_region_in_and_out(explorer):
    visual = explorer.regions.voxels("Visual")
    height, width = explorer.cortex.voxel.shape
    row, column = np.argwhere((explorer.cortex.voxel >= 0) & visual[explorer.cortex.voxel])[0]
    place = [(column + 0.5) / width, (row + 0.5) / height]
    before = explorer.picture_brain.png
    explorer.picture_brain.clicked = [*place, 1]
    assert explorer.region.value == ("Visual",)
    assert explorer.picture_brain.png != before
    explorer.picture_brain.clicked = [*place, 2]
    assert explorer.region.value == ()
    explorer.picture_brain.clicked = [0.0, 0.0, 3]  # beside the brain
    assert explorer.region.value == ()


def test_sound_words_and_bars_follow(explorer):
    explorer.settle()
    before = explorer.sounds.value, explorer.words.value, explorer.bars.value
    explorer.tr.value = 5
    explorer.region.value = ("Visual",)
    assert before == (explorer.sounds.value, explorer.words.value, explorer.bars.value)
    explorer.settle()
    assert explorer.sounds.value != before[0]
    assert explorer.sounds.value.count("data:audio") == 3
    assert "lesioned" in explorer.words.value
    assert explorer.bars.value != before[2]


def test_effects_are_those_of_the_split(explorer):
    explorer.region.value = ("Visual",)
    effects = explorer.effects()
    brain = explorer.brains["measured"]
    lesioned = Lesion(brain, explorer.regions.voxels("Visual")).scores
    for name, effect in effects.items():
        assert effect.effect == pytest.approx(
            np.nanmean(brain.intact[name] - lesioned[name]), abs=1e-4
        )
        assert len(effect.null) == 19
    assert len(explorer.nulls) >= 1


def test_changes_settle_by_themselves(model, data, monkeypatch):
    monkeypatch.setattr(live, "SETTLE_SECONDS", 0.01)
    explorer = live.LesionExplorer(model, data, n_permute=9)
    told = threading.Event()
    settle = explorer._draw_bars
    monkeypatch.setattr(explorer, "_draw_bars", lambda: (settle(), told.set()))
    explorer.tr.value = 2
    assert told.wait(20)
    explorer.close()


def test_closed_is_closed(model, data):
    explorer = live.LesionExplorer(model, data, n_permute=9)
    explorer.units.value = (0, 3)
    timer = explorer._timer
    explorer.close()
    timer.join(20)
    before = explorer.picture.value
    explorer.units.value = (0, 9)
    explorer.settle()
    assert explorer.picture.value == before
    assert explorer.widget.comm is None
