"""Lesions, reconstructions and the explorer with a model on a GPU: what they are on the CPU."""

import io

import numpy as np
import pytest
from device import DEVICE, NEEDS_GPU, assert_close, assert_same_scores
from PIL import Image

from giblet import explorer as live
from giblet.analysis.lesions import FILLS, MODES, Brain, Lesion
from giblet.analysis.reconstruction import SOURCES, collect, reconstruct
from giblet.regions import seitzman_networks

pytestmark = NEEDS_GPU


@pytest.fixture(scope="module")
def brains(models, data) -> tuple[Brain, Brain]:
    """The measured brain, on the device and on the CPU."""
    return tuple(Brain(model, data["test"], "measured") for model in models)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("mode", MODES)
def test_region_lesions_score_as_on_the_cpu(brains, rng, fill, mode):
    masks = rng.random((5, brains[0].fmri.shape[1])) < 0.3
    how = {"fill": fill, "mode": mode, "strength": 0.7}
    both = []
    for brain in brains:
        both.append(brain.of_lesions([Lesion(brain, mask, **how) for mask in masks]))
    found, expected = both
    for name in brains[1].names:
        assert_same_scores(brains[0].intact[name], brains[1].intact[name])
        assert_same_scores(found[name], expected[name])


@pytest.mark.parametrize("fill", FILLS)
def test_unit_lesions_and_their_null_score_as_on_the_cpu(brains, fill):
    groups = [np.arange(start, start + 16) for start in range(0, 64, 16)]
    both = []
    nulls = []
    for brain in brains:
        lesions = [Lesion(brain, units=units, fill=fill) for units in groups]
        both.append(brain.of_lesions(lesions))
        nulls.append(lesions[0].null(n_permute=19))
    found, expected = both
    for name in brains[1].names:
        assert_same_scores(found[name], expected[name])
        assert_same_scores(nulls[0][name], nulls[1][name])


@pytest.mark.parametrize("source", SOURCES)
def test_reconstructions_are_those_of_the_cpu(models, data, source):
    found, expected = (collect(reconstruct(model, data["test"], source)) for model in models)
    for name, values in expected.items():
        assert found[name].device.type == "cpu"
        assert_close(found[name], values)


@pytest.fixture
def explorers(models, data, monkeypatch):
    monkeypatch.setattr(live, "SETTLE_SECONDS", 1e4)
    regions = seitzman_networks(data["test"].mask_img)
    both = [live.LesionExplorer(model, data["test"], regions, n_permute=19) for model in models]
    yield both
    for explorer in both:
        explorer.close()


def shown(explorer: live.LesionExplorer) -> np.ndarray:
    app = explorer.widget
    pictures = (app.movie, app.intact, app.lesioned, app.difference)
    return np.stack([Image.open(io.BytesIO(png)) for png in pictures]).astype(int)


@pytest.mark.parametrize("source", live.SOURCES)
@pytest.mark.parametrize("mode", MODES)
def test_explorer_shows_what_it_shows_on_the_cpu(explorers, source, mode):
    for explorer in explorers:
        explorer.set(source=source, mode=mode, fill="mean", tr=3)
        explorer.set(regions=("Visual", "Auditory"), units=(0, 16))
        explorer.settle()
        assert set(explorer.widget.clip_before["sounds"]) == {"movie", "intact"}
        assert set(explorer.widget.clip_after["sounds"]) == {"lesioned"}
        assert len(explorer.widget.sentences["rows"]) == 3
    on_device, on_cpu = explorers
    assert on_device.bottleneck([3]).device.type == DEVICE
    assert np.abs(shown(on_device) - shown(on_cpu)).max() <= 1
    expected = on_cpu.effects()
    for name, effect in on_device.effects().items():
        assert_same_scores(effect.lesioned, expected[name].lesioned)
        assert_same_scores(effect.null, expected[name].null)
