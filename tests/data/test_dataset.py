import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from folders import copy_of
from torch.utils.data import DataLoader

from giblet.data import AudioProcessor, MultimodalDataset, TextProcessor
from giblet.data.audio import read_sound
from giblet.data.prepare import QUIETEST_SD
from giblet.data.segments import read_segments


@pytest.fixture
def open_split(simulated, tiny_video):
    def open_split(split: str = "train", **settings) -> MultimodalDataset:
        return MultimodalDataset(
            simulated,
            split=split,
            **({"video_processor": tiny_video, "progress": False} | settings),
        )

    return open_split


def test_splits_are_contiguous_disjoint_and_apart(open_split):
    index = {
        split: set(open_split(split).tr_index.tolist()) for split in ("train", "val", "test", "all")
    }
    assert (
        not index["train"] & index["val"]
        | index["val"] & index["test"]
        | index["train"] & index["test"]
    )
    assert index["train"] | index["val"] | index["test"] < index["all"]
    assert (
        len(index["all"]) == 126 - 2 * 3
    )  # the lagged BOLD of the last TRs of a run was not measured
    for run in (range(64), range(64, 126)):
        train, val, test = (sorted(index[split] & set(run)) for split in ("train", "val", "test"))
        assert min(val) - max(train) == min(test) - max(val) == 18
        assert all(np.ptp(block) == len(block) - 1 for block in (train, val, test))


def test_video_and_text_are_those_of_the_processors(open_split, simulated, tiny_video):
    data = open_split("all")
    frames = np.zeros((64, tiny_video.video_dim), np.uint8)
    tiny_video.fill(simulated / "movie_run-1.mp4", frames)
    segments = read_segments(simulated / "annotations.xlsx", ["Narration"], (64, 62))
    text = TextProcessor().features(
        segments, TextProcessor().embed(segments, data.split_labels == "train"), 126
    )
    for index in (0, 30, 60):
        assert torch.equal(data[index]["video"], torch.from_numpy(frames[index]).float() / 255)
        assert torch.equal(data[index]["text"], torch.from_numpy(text[index]))


def test_second_run_starts_with_its_own_film(open_split, simulated, tiny_video):
    data = open_split("all", average=True)
    frames = np.zeros((1, tiny_video.video_dim), np.uint8)
    tiny_video.fill(simulated / "movie_run-2.mp4", frames)
    item = data[int(np.flatnonzero(data.run == 1)[0])]
    assert item["tr_index"] == 64
    assert torch.equal(item["video"], torch.from_numpy(frames[0]).float() / 255)


def test_audio_is_standardized_by_training_trs(open_split, simulated):
    data = open_split("all", average=True)
    train = open_split("train", average=True)
    raw = np.concatenate(
        [
            AudioProcessor().features(read_sound(movie), n)
            for movie, n in zip(data.folder.movies, (64, 62), strict=True)
        ]
    )
    rows = train.tr_index
    sd = raw[rows].std(0, dtype=np.float64).clip(min=QUIETEST_SD)
    expected = (raw - raw[rows].mean(0, dtype=np.float64)) / sd
    assert np.allclose(data[list(range(120))]["audio"], expected[data.tr_index], atol=1e-3)
    assert np.allclose(train.train_mean("audio"), 0, atol=1e-4)
    assert np.allclose(data.audio_processor.mean, raw[rows].mean(0), atol=1e-4)


@pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
def test_bold_is_shifted_by_the_lag_and_standardized_within_runs(open_split, simulated, subject):
    data = open_split("all", subjects=[subject])
    bold = np.asarray(nib.load(simulated / f"{subject}.nii.gz").dataobj)[
        np.asarray(data.mask_img.dataobj) > 0
    ].T
    train = np.isin(np.arange(126), open_split("train").tr_index)
    for run, last in ((slice(0, 64), 61), (slice(64, 126), 59)):
        series = bold[run].astype(np.float64)[3:]
        learned = series[train[run][:last]]
        expected = (series - learned.mean(0)) / learned.std(0)
        rows = np.flatnonzero(data.run == (run.start > 0))
        got = np.stack([data[int(row)]["fmri"].numpy() for row in rows])
        assert np.allclose(got, expected, atol=1e-4)


def test_items_by_subject_and_tr(open_split):
    data = open_split("test")
    assert len(data) == 2 * data.n_trs
    first = data[3]
    second = data[3 + data.n_trs]
    assert (first["subject_id"], second["subject_id"]) == ("sub-01", "sub-02")
    assert torch.equal(first["video"], second["video"])
    assert not torch.equal(first["fmri"], second["fmri"])
    assert np.array_equal(data.fmri()[1, 3], second["fmri"])
    assert torch.equal(data[-1]["fmri"], data[len(data) - 1]["fmri"])
    with pytest.raises(IndexError, match="out of range"):
        data[len(data)]


def test_mean_of_the_subjects(open_split):
    data = open_split("test")
    mean = open_split("test", average=True)
    assert len(mean) == data.n_trs
    assert np.allclose(mean.fmri(), data.fmri().mean(0), atol=1e-6)
    assert mean[2]["subject_id"] == "mean"
    assert np.allclose(
        mean[2]["fmri"], (data[2]["fmri"] + data[2 + data.n_trs]["fmri"]) / 2, atol=1e-6
    )


def test_a_list_of_indices_is_a_batch(open_split):
    data = open_split("train")
    indices = [5, 0, data.n_trs + 1]
    batch = data[indices]
    loaded = next(iter(DataLoader(data, batch_size=3, sampler=indices)))
    assert batch.keys() == loaded.keys()
    for name in ("video", "audio", "text", "fmri", "tr_index"):
        assert torch.equal(batch[name], loaded[name]), name
    assert batch["subject_id"] == loaded["subject_id"] == ["sub-01", "sub-01", "sub-02"]


def test_units(open_split):
    batch = open_split("train")[list(range(30))]
    assert 0 <= batch["video"].min() < batch["video"].max() <= 1
    assert batch["text"].norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert {batch[name].dtype for name in ("video", "audio", "text", "fmri")} == {torch.float32}
    assert [batch[name].shape[1] for name in ("video", "audio", "text", "fmri")] == list(
        open_split().model_dims.values()
    )


def test_means_of_the_training_trs(open_split):
    train = open_split("train", average=True)
    batch = train[list(range(len(train)))]
    for name in ("video", "audio", "text"):
        assert np.allclose(open_split("test").train_mean(name), batch[name].mean(0), atol=1e-5)


def test_prepared_once(open_split, simulated):
    cache = open_split().cache
    stamps = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert open_split("val").cache == cache
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == stamps
    assert json.loads((cache / "manifest.json").read_text())["settings"]["lag_trs"] == 3
    assert {path.suffix for path in (simulated / "cache").glob(".*")} == {".lock"}


def test_other_settings_are_another_cache(open_split, tiny_video):
    settings = (
        {},
        {"video_processor": replace(tiny_video, frame_skip=2)},
        {"audio_processor": AudioProcessor("mel")},
        {"text_processor": TextProcessor(n_features=64)},
        {"fractions": (0.5, 0.2, 0.3)},
    )
    assert len({open_split(**changed).cache for changed in settings}) == len(settings)


def test_interrupted_preparation_is_not_read(open_split, tmp_path, monkeypatch):
    monkeypatch.setattr(TextProcessor, "embed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        open_split(cache_dir=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    assert np.isfinite(open_split(cache_dir=tmp_path).fmri()).all()


def test_bad_arguments(open_split):
    with pytest.raises(ValueError, match="split is 'dev', expected one of train, val, test or all"):
        open_split("dev")
    with pytest.raises(
        ValueError,
        match=r"subjects are \['sub-09'\], expected 'all' or some of \['sub-01', 'sub-02'\]",
    ):
        open_split(subjects=["sub-09"])
    with pytest.raises(ValueError, match=r"subjects are \[\]"):
        open_split(subjects=[])


def test_entries_of_the_folder_are_the_defaults(open_split, simulated, tiny_video, tmp_path):
    """What dataset.toml says is what an argument says; an argument goes before it."""
    folder = copy_of(simulated, tmp_path / "data")
    entries = 'subjects = ["sub-02"]\ncontext = [2, 1]\ntest_runs = [1]\n'
    (folder / "dataset.toml").write_text(entries + (folder / "dataset.toml").read_text())
    settings = {"video_processor": tiny_video, "progress": False}
    found = MultimodalDataset(folder, split="test", **settings)
    given = {"subjects": ["sub-02"], "context": (2, 1), "test_runs": (1,)}
    expected = open_split("test", **given)
    assert found.subjects == expected.subjects == ["sub-02"]
    assert found.model_dims == expected.model_dims
    assert np.array_equal(found.tr_index, expected.tr_index)
    assert set(found.run) == {1}
    assert torch.equal(found[3]["video"], expected[3]["video"])
    assert np.allclose(found.fmri(), expected.fmri(), atol=1e-6)
    other = MultimodalDataset(folder, split="test", context=(0, 0), test_runs=(), **settings)
    assert np.array_equal(other.tr_index, open_split("test").tr_index)
    with pytest.raises(ValueError, match=r"subjects are \['sub-01'\], expected 'all' or some of"):
        MultimodalDataset(folder, subjects=["sub-01"], **settings)
