"""Caches of one folder share what does not differ."""

import os
import shutil

import numpy as np
import pytest
from folders import copy_of

from giblet.data import MultimodalDataset, TextProcessor, VideoProcessor
from giblet.data.prepare import _drop_absent

FILM = VideoProcessor(9, 16, 10)


@pytest.fixture
def folder(simulated, tmp_path):
    return copy_of(simulated, tmp_path / "data")


def opened(folder, **settings) -> MultimodalDataset:
    return MultimodalDataset(folder, progress=False, **({"video_processor": FILM} | settings))


def shares(one: MultimodalDataset, other: MultimodalDataset) -> dict[str, bool]:
    return {
        name: os.path.samefile(one.cache / f"{name}.npy", other.cache / f"{name}.npy")
        for name in ("video", "fmri")
    }


def test_what_caches_share(folder):
    first = opened(folder)
    cases = {
        "another film": ({"video_processor": VideoProcessor(4, 8, 10)}, (False, True)),
        "another split": ({"fractions": (0.5, 0.25, 0.25)}, (True, False)),
        "another lag": ({"lag_trs": 2}, (True, False)),
        "cleaning": ({"cleaning": {"detrend": True}}, (True, False)),
        "other words": ({"text_processor": TextProcessor(n_features=64)}, (True, True)),
    }
    for settings, expected in cases.values():
        other = opened(folder, **settings)
        assert other.cache != first.cache
        assert tuple(shares(first, other).values()) == expected


def test_a_shared_file_outlives_the_other_cache(folder):
    first = opened(folder)
    kept = np.array(first.features.video), np.array(first.features.fmri)
    other = opened(folder, text_processor=TextProcessor(n_features=64))
    shutil.rmtree(first.cache)
    assert np.array_equal(other.features.video, kept[0])
    assert np.array_equal(opened(folder).features.fmri, kept[1])


def test_pictures_that_are_absent_leave_those_of_another_cache(tmp_path):
    """A film that does not vary in the training TRs is replaced, and not written over."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    video = np.arange(20).reshape(10, 2)
    np.save(tmp_path / "one/video.npy", video)
    for name in ("audio", "text"):
        np.save(tmp_path / f"other/{name}.npy", video)
    os.link(tmp_path / "one/video.npy", tmp_path / "other/video.npy")
    train = np.arange(10) == 3
    assert _drop_absent(train, tmp_path / "other", []) == []
    assert np.load(tmp_path / "other/video.npy").shape == (10, 0)
    assert np.array_equal(np.load(tmp_path / "one/video.npy"), video)


def test_disks_without_links(folder, monkeypatch):
    first = opened(folder)

    def refuse(*paths):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    other = opened(folder, text_processor=TextProcessor(n_features=64))
    assert not any(shares(first, other).values())
    assert np.array_equal(first.features.fmri, other.features.fmri)


def test_a_damaged_cache_is_not_shared(folder):
    first = opened(folder)
    with (first.cache / "video.npy").open("ab") as file:
        file.write(b"more")
    assert not any(
        shares(first, opened(folder, text_processor=TextProcessor(n_features=64))).values()
    )
