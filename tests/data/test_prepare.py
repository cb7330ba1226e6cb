"""The cache: whole or not there, and never somebody else's."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from folders import copy_of, without

from giblet.data import MultimodalDataset, VideoProcessor, simulate_dataset

PREPARE = """
import sys
from giblet.data import MultimodalDataset, VideoProcessor
print("ready", flush=True)
settings = {"video_processor": VideoProcessor(18, 32, 1), "progress": False}
MultimodalDataset(sys.argv[1], cache_dir=sys.argv[2], **settings)
"""
ARRAYS = (
    "video",
    "audio",
    "text",
    "fmri",
    "valid",
    "split",
    "run",
    "embeddings",
    "audio_mean",
    "audio_sd",
)


def start(data, cache) -> subprocess.Popen:
    """Prepare in another process, which has imported everything when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, data, cache], stdout=subprocess.PIPE, text=True
    )
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def contents(cache_dir) -> dict[str, bytes]:
    (cache,) = cache_dir.glob("[!.]*")
    return {name: (cache / f"{name}.npy").read_bytes() for name in ARRAYS} | {
        "mask": (cache / "mask.nii.gz").read_bytes()
    }


@pytest.fixture(scope="module")
def whole(simulated, tmp_path_factory):
    """Arrays of a preparation that was left alone, and the seconds it took."""
    cache_dir = tmp_path_factory.mktemp("whole")
    process = start(simulated, cache_dir)
    begin = time.monotonic()
    assert process.wait() == 0
    return contents(cache_dir), time.monotonic() - begin


def kill_and_start_again(simulated, cache_dir, whole, seconds: float) -> None:
    """Kill a preparation after some seconds; the next one must end as if nothing had happened."""
    process = start(simulated, cache_dir)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(simulated, cache_dir).wait() == 0
    assert contents(cache_dir) == whole
    assert [
        path for path in cache_dir.glob(".*") if path.suffix != ".lock"
    ] == []  # the dead process's rest is gone


@pytest.mark.parametrize("moment", [0.3, 0.6, 0.9])
def test_killed_while_preparing(simulated, tmp_path, whole, moment):
    arrays, seconds = whole
    kill_and_start_again(simulated, tmp_path, arrays, moment * seconds)


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(20))
def test_killed_at_random_moments(simulated, tmp_path, whole, draw):
    arrays, seconds = whole
    moment = np.random.default_rng(draw).uniform(0, 1.05 * seconds)
    kill_and_start_again(simulated, tmp_path, arrays, moment)


def test_two_processes_at_once(simulated, tmp_path, whole):
    processes = [start(simulated, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert contents(tmp_path) == whole[0]


def damage_size(cache):
    os.truncate(cache / "fmri.npy", 1000)


def damage_missing(cache):
    (cache / "text.npy").unlink()


def damage_manifest(cache):
    (cache / "manifest.json").write_text("{")


def damage_foreign(cache):
    manifest = json.loads((cache / "manifest.json").read_text())
    manifest["settings"]["lag_trs"] = 0
    (cache / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [damage_size, damage_missing, damage_manifest, damage_foreign])
def test_damaged_cache_is_prepared_anew(simulated, tiny_video, tmp_path, damage):
    def open_data():
        return MultimodalDataset(
            simulated, video_processor=tiny_video, cache_dir=tmp_path, progress=False
        )

    first = open_data()
    fmri = first.fmri()
    damage(first.cache)
    again = open_data()
    assert again.cache == first.cache
    assert np.array_equal(again.fmri(), fmri)


def test_changed_source_is_another_cache(simulated, tiny_video, tmp_path):
    data = shutil.copytree(
        simulated, tmp_path / "data", ignore=shutil.ignore_patterns("cache", "runs")
    )
    before = MultimodalDataset(data, video_processor=tiny_video, progress=False)
    other = simulate_dataset(
        tmp_path / "other",
        n_subjects=2,
        run_trs=(64, 62),
        resolution_mm=12,
        random_state=1,
        progress=False,
    )
    shutil.copy(other / "sub-01.nii.gz", data / "sub-01.nii.gz")
    after = MultimodalDataset(data, video_processor=tiny_video, progress=False)
    assert after.cache != before.cache
    assert not np.array_equal(after.fmri()[0], before.fmri()[0])
    assert np.array_equal(after.fmri()[1], before.fmri()[1])


def test_what_was_decided_is_said_and_kept(simulated, tiny_video, tmp_path, capsys):
    data = MultimodalDataset(simulated, video_processor=tiny_video, cache_dir=tmp_path)
    said = "cropped from the end of each run, where stimulus or lagged BOLD is missing: 3, 3 TRs"
    assert said in capsys.readouterr().out
    manifest = json.loads((data.cache / "manifest.json").read_text())
    assert said in manifest["said"]
    assert manifest["present"] == ["video", "audio", "text"]
    MultimodalDataset(simulated, video_processor=tiny_video, cache_dir=tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("tr", "unused"), [(1.5, []), (1.25, ["64", "62"])])
def test_film_that_goes_on_after_its_run_is_said(simulated, tmp_path, capsys, tr, unused):
    """A TR that is told too short leaves film over, which nobody would see."""
    folder = copy_of(simulated, tmp_path / "data")
    without(folder / "dataset.toml", "tr =", "annotations", "text_columns")
    with (folder / "dataset.toml").open("a") as file:
        file.write(f"\ntr = {tr}\n")
    MultimodalDataset(folder, video_processor=VideoProcessor(18, 32, 1))
    said = [line for line in capsys.readouterr().out.splitlines() if "of film are left out" in line]
    assert [re.search(r"its (\d+) TRs of 1.25 s", line)[1] for line in said] == unused
    for number, line in enumerate(said, start=1):
        assert f"movie_run-{number}.mp4 lasts" in line
        assert line.endswith("make sure of tr and run_trs")


def test_a_film_that_ends_before_a_run_begins(simulated, tmp_path):
    """As where one film is named for runs that have a film each."""
    folder = copy_of(simulated, tmp_path / "data")
    without(folder / "dataset.toml", "movies")
    with (folder / "dataset.toml").open("a") as file:
        file.write('\nmovies = ["movie_run-1.mp4"]\n')
    with pytest.raises(
        ValueError, match=r"movie_run-1\.mp4 ends after 96 s, before run 2 of 2 beg"
    ):
        MultimodalDataset(folder, video_processor=VideoProcessor(18, 32, 1), progress=False)
