"""Lesions, reconstructions and the explorer with a model on a GPU: what they are on the CPU."""

import io

import numpy as np
import pytest
from device import DEVICE, NEEDS_GPU, assert_close, assert_same_scores
from PIL import Image

from giblet.analysis.lesion_effects import unit_null
from giblet.analysis.lesions import FILLS, MODES, LesionScores
from giblet.analysis.reconstruction import SOURCES, collect, reconstruct
from giblet.analysis.regions import seitzman_networks
from giblet.plotting import widgets

pytestmark = NEEDS_GPU


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
