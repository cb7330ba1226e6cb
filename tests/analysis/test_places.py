import numpy as np
import pytest
import torch

from giblet.analysis.places import Naming, name_places
from giblet.data import MultimodalDataset


@pytest.fixture(scope="module", params=[(0, 0), (2, 1)])
def dataset(request) -> MultimodalDataset:
    """Test TRs of a film of noise, without and with context."""
    rng = np.random.default_rng(0)
    return MultimodalDataset.from_arrays(
        video=rng.integers(0, 256, (420, 2, 6, 8)).astype(np.uint8),
        fmri=rng.standard_normal((420, 6)),
        runs=[210, 210],
        context=request.param,
        split="test",
        average=True,
    )


def test_naming_against_a_loop(dataset, rng):
    """Faint and noisy pictures, named in float64 one TR and one place at a time."""
    places = rng.integers(5, size=420)
    places[dataset.select("train").tr_index[:9]] = 7  # seen in training alone
    shown = dataset.without_context("video", dataset.stimulus("video", dataset.tr_index))
    video = 0.3 * shown + torch.from_numpy(rng.normal(0.3, 0.1, shown.shape)).float()
    naming = name_places(video, places, dataset)

    pixels = dataset.features.video.astype(np.float64) / 255
    trained = dataset.split_labels == "train"
    mean = pixels[trained].mean(0)
    known = [0, 1, 2, 3, 4, 7]
    named = []
    for picture in video.double().numpy() - mean:
        cosines = []
        for place in known:
            typical = pixels[trained & (places == place)].mean(0) - mean
            cosines.append(typical @ picture / np.linalg.norm(typical) / np.linalg.norm(picture))
        named.append(known[int(np.argmax(cosines))])
    assert naming.named.tolist() == named
    assert len(set(named)) > 3
    assert naming.places.tolist() == places[dataset.tr_index].tolist()
    assert naming.accuracy == np.mean(np.array(named) == places[dataset.tr_index])
    assert naming.chance == 1 / 6


def test_interval_covers_the_accuracy_and_chance_is_chance(rng):
    places = np.repeat(rng.integers(10, size=60), 7)
    run = np.repeat([0, 1], len(places) // 2)
    guessed = rng.integers(10, size=len(places))
    low, high = Naming(guessed, places, run, 10).interval()
    assert 0 <= low < 0.1 < high < 0.25
    naming = Naming(
        np.where(rng.random(len(places)) < 0.5, places, (places + 1) % 10), places, run, 10
    )
    low, high = naming.interval()
    assert 0.3 < low < naming.accuracy < high
    assert naming.interval(random_state=0) == (low, high)


def test_refusals(dataset, rng):
    places = np.zeros(420, int)
    shown = dataset.without_context("video", dataset.stimulus("video", dataset.tr_index))
    with pytest.raises(ValueError, match=r"places has 3 values, expected one for each of 420 TRs"):
        name_places(shown, places[:3], dataset)
    with pytest.raises(ValueError, match="training TRs"):
        name_places(shown, places, dataset.select("train"))
    words = MultimodalDataset.from_arrays(
        text=rng.standard_normal((300, 3)),
        fmri=rng.standard_normal((300, 6)),
        split="test",
        average=True,
    )
    with pytest.raises(ValueError, match="no pictures to name places by: take data with a film"):
        name_places(torch.zeros(words.n_trs, 0), np.zeros(300, int), words)
