"""What data are told apart by, and what is refused to a model that was trained on others."""

import json
import os
import shutil

import numpy as np
import pytest

from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.data.provenance import check_held_out, check_same_data, fingerprint_file, trained_on


@pytest.fixture(scope="module")
def opened(simulated, tmp_path_factory):
    """Open the simulated folder, or a copy of it, with small pictures."""
    cache = tmp_path_factory.mktemp("caches")

    def opened(path=simulated, **settings) -> MultimodalDataset:
        video = VideoProcessor(height=6, width=8, frame_skip=4)
        settings = {"video_processor": video, "cache_dir": cache, "progress": False} | settings
        return MultimodalDataset(path, **settings)

    return opened


def test_plain_values_of_a_copy_are_the_same(opened, simulated, tmp_path):
    """Times and places of files do not matter: a checkpoint may come from another machine."""
    here = opened()
    copied = shutil.copytree(simulated, tmp_path / "copy")
    for file in copied.iterdir():
        if file.is_file():
            os.utime(file, (1, 1))
    there = opened(copied)
    assert json.loads(json.dumps(here.provenance)) == here.provenance
    assert there.provenance["hash"] == here.provenance["hash"]
    assert there.provenance["path"] == str(copied.resolve())
    check_same_data(trained_on(here), there)


def test_training_trs(opened):
    data = opened()
    rows = np.concatenate([np.arange(*pair) for pair in trained_on(data)["train"]])
    assert rows.tolist() == data.tr_index.tolist()
    check_same_data(trained_on(data), opened(split="test"))


@pytest.mark.parametrize("split", ["all", "test"])
def test_a_model_trained_on_held_out_trs_is_not_scored(opened, split):
    with pytest.raises(
        ValueError, match=r"trained on \d+ TRs that are no training TRs of this data set"
    ):
        check_same_data(trained_on(opened(split=split)), opened(split="val"))


CHANGES = {
    "fractions": {"fractions": (0.5, 0.25, 0.25)},
    "test_runs": {"test_runs": [1]},
    "context": {"context": (1, 0)},
    "features": {"video_processor": VideoProcessor(height=6, width=8, frame_skip=4, colour=True)},
    "kind": {"audio_processor": AudioProcessor("mel")},
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_refused(opened, name):
    with pytest.raises(
        ValueError, match=f"trained on other data than this data set: .*{name}.*load_run"
    ):
        check_same_data(trained_on(opened()), opened(**CHANGES[name]))


@pytest.mark.parametrize("name", ["sub-02.nii.gz", "movie_run-1.mp4", "annotations.xlsx"])
def test_other_contents_have_another_fingerprint(opened, simulated, tmp_path, name):
    """One bit of a file, which keeps its size."""
    other = shutil.copytree(simulated, tmp_path / "other", ignore=shutil.ignore_patterns("cache*"))
    mine = opened(other)
    changed = bytearray((other / name).read_bytes())
    then = trained_on(mine)
    changed[len(changed) // 3 if name.endswith("mp4") else 8] ^= 1
    (other / name).write_bytes(bytes(changed))
    assert fingerprint_file(other / name) != then["files"][name]


def test_other_clock_is_refused(opened, simulated, tmp_path):
    other = shutil.copytree(simulated, tmp_path / "other", ignore=shutil.ignore_patterns("cache*"))
    text = (other / "dataset.toml").read_text()
    (other / "dataset.toml").write_text(text.replace("lag_trs = 3", "lag_trs = 2"))
    with pytest.raises(ValueError, match=r"lag_trs=3 \(now 2\)"):
        check_same_data(trained_on(opened()), opened(other))


def test_other_subjects_may_be_scored(opened):
    check_same_data(
        trained_on(opened(subjects=["sub-01"])), opened(subjects=["sub-02"], split="test")
    )
    check_same_data(None, opened())


def test_arrays_are_known_by_their_values(rng):
    given = {"text": rng.random((150, 3)), "fmri": rng.random((150, 5))}
    data = MultimodalDataset.from_arrays(**given)
    check_same_data(trained_on(data), MultimodalDataset.from_arrays(**given, split="test"))
    other = MultimodalDataset.from_arrays(**(given | {"fmri": rng.random((150, 5))}))
    with pytest.raises(ValueError, match="other contents of fmri"):
        check_same_data(trained_on(data), other)
    with pytest.raises(ValueError, match=r"lag_trs=0 \(now 1\)"):
        check_same_data(trained_on(data), MultimodalDataset.from_arrays(**given, lag_trs=1))


def test_training_trs_are_not_scored(opened):
    for split in ("val", "test"):
        check_held_out(opened(split=split))
    for split in ("train", "all"):
        with pytest.raises(ValueError, match=rf"holds \d+ training TRs \(split is '{split}'\)"):
            check_held_out(opened(split=split))
