import hashlib
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest

from giblet.data import DataFolder, VideoProcessor, default_data_dir, simulate_dataset
from giblet.data.audio import AudioProcessor, read_sound
from giblet.data.simulation.dataset import LAG_TRS, PLANTED
from giblet.data.simulation.film import MEANINGS
from giblet.data.text import read_segments
from giblet.regions import seitzman_networks

TINY = {"n_subjects": 1, "run_trs": (12, 8), "resolution_mm": 20, "progress": False}


def digests(path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


def test_same_seed_same_files(tmp_path):
    one, again, other = (
        simulate_dataset(tmp_path / n, random_state=s, **TINY)
        for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert sorted(digests(one)) == [
        *("annotations.xlsx", "dataset.toml", "mask.nii.gz", "movie_run-1.mp4", "movie_run-2.mp4"),
        *("sub-01.nii.gz", "truth.json"),
    ]
    for name in ("movie_run-1.mp4", "movie_run-2.mp4", "dataset.toml", "truth.json"):
        assert digests(one)[name] == digests(again)[name], name
        assert digests(one)[name] != digests(other)[name], name
    volumes = [np.asarray(nib.load(path / "sub-01.nii.gz").dataobj) for path in (one, again, other)]
    assert np.array_equal(volumes[0], volumes[1])
    assert not np.array_equal(volumes[0], volumes[2])
    sheets = [
        read_segments(path / "annotations.xlsx", ["Narration"], (12, 8)) for path in (one, again)
    ]
    assert sheets[0] == sheets[1]


def test_written_once(tmp_path):
    path = simulate_dataset(tmp_path / "data", **TINY)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    simulate_dataset(path, **TINY)
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_nothing_is_overwritten(tmp_path):
    simulate_dataset(tmp_path / "data", **TINY)
    with pytest.raises(
        ValueError, match=r"simulated with .*'random_state': 0.*, expected .*'random_state': 7"
    ):
        simulate_dataset(tmp_path / "data", random_state=7, **TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(ValueError, match="mine holds other files"):
        simulate_dataset(tmp_path / "mine", **TINY)


def test_interrupted_simulation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "giblet.data.simulation.dataset._write_brains",
        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(tmp_path / "data", **TINY)
    assert list(tmp_path.iterdir()) == []


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GIBLET_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("GIBLET_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        "giblet.data.simulation.dataset.simulate_dataset", lambda path, progress: path
    )
    assert default_data_dir().parent == tmp_path / "giblet"


def test_sheet_covers_the_film_scene_by_scene(simulated):
    segments = read_segments(simulated / "annotations.xlsx", ["Narration"], (64, 62))
    assert segments[0].start == 0
    assert segments[-1].stop == 126
    assert all(a.stop == b.start for a, b in pairwise(segments))
    assert any(segment.stop == 64 for segment in segments)  # no scene crosses the runs
    verbs = [verb for pair in MEANINGS.values() for verb in pair]
    assert all(any(verb in segment.text for verb in verbs) for segment in segments)


def regressors(folder: DataFolder, run: int) -> dict[str, np.ndarray]:
    """What can be seen, heard and read in the written files, TR by TR."""
    n_trs = folder.run_trs[run]
    video = VideoProcessor(3, 4, 1)
    frames = np.zeros((n_trs, video.video_dim), np.uint8)
    video.fill(folder.movies[run], frames)
    meaning = np.zeros((n_trs, len(MEANINGS)))
    first = sum(folder.run_trs[:run])
    for segment in read_segments(folder.annotations, folder.text_columns, folder.run_trs):
        column = next(
            i
            for i, verbs in enumerate(MEANINGS.values())
            if any(verb in segment.text for verb in verbs)
        )
        meaning[max(0, segment.start - first) : max(0, segment.stop - first), column] = 1
    log_mel = AudioProcessor().features(read_sound(folder.movies[run]), n_trs)
    sound = log_mel.reshape(n_trs, 4, 32).mean(2)
    return {"pictures": frames.reshape(n_trs, -1, 12).mean(1), "sound": sound, "meaning": meaning}


def explained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """In-sample R2 of each column of y on x, adjusted for the number of columns of x."""
    x = x - x.mean(0)
    y = y - y.mean(0)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - (residual**2).sum(0) / (y**2).sum(0) * (len(x) - 1) / (
        len(x) - 1 - np.linalg.matrix_rank(x)
    )


@pytest.fixture(scope="module")
def shifts(full_simulated) -> dict[int, dict[tuple[str, str], float]]:
    """Mean R2 of planted networks and a silent one on each source, by the lag of BOLD."""
    folder = DataFolder.open(full_simulated)
    mask_img = nib.load(folder.mask)
    networks = seitzman_networks(mask_img)
    mask = np.asarray(mask_img.dataobj) > 0
    bold = np.mean(
        [np.asarray(nib.load(p).dataobj)[mask].T for p in folder.subjects.values()], axis=0
    )[:240]
    sources = regressors(folder, 0)
    return {
        lag: {
            (network, source): float(
                explained(x[: 240 - lag], bold[lag:][:, networks.voxels(network)]).mean()
            )
            for network in (*PLANTED, "SomatomotorDorsal")
            for source, x in sources.items()
        }
        for lag in range(7)
    }


@pytest.mark.parametrize("network", PLANTED)
def test_networks_follow_what_was_planted(shifts, network):
    """From the files alone: each network follows its source, at the lag that it declares."""
    for source in PLANTED[network]:
        by_lag = [shifts[lag][network, source] for lag in range(7)]
        assert by_lag[LAG_TRS] > 0.1, source
        assert abs(int(np.argmax(by_lag)) - LAG_TRS) <= 1, source
    others = [
        shifts[LAG_TRS][network, source]
        for source in ("pictures", "sound", "meaning")
        if source not in PLANTED[network]
    ]
    assert all(abs(value) < 0.05 for value in others)
    assert all(
        shifts[LAG_TRS][network, source] > 2 * max([0, *others]) for source in PLANTED[network]
    )


@pytest.mark.parametrize("source", ["pictures", "sound", "meaning"])
def test_silent_network_follows_nothing(shifts, source):
    assert max(abs(shifts[lag]["SomatomotorDorsal", source]) for lag in range(7)) < 0.03


def test_subjects_differ_but_share_the_signal(simulated):
    folder = DataFolder.open(simulated)
    mask_img = nib.load(folder.mask)
    mask = np.asarray(mask_img.dataobj) > 0
    networks = seitzman_networks(mask_img)
    one, two = (
        np.asarray(nib.load(path).dataobj, float)[mask].T for path in folder.subjects.values()
    )
    z = [(s - s.mean(0)) / s.std(0) for s in (one, two)]
    r = networks.mean((z[0] * z[1]).mean(0))
    r = dict(zip(networks.names, r, strict=True))
    assert all(0.05 < r[name] < 0.6 for name in PLANTED)
    assert abs(r["SomatomotorDorsal"]) < 0.05


def test_exact_number_of_voxels(tmp_path):
    """The deepest voxels of the brain, or all of it and the nearest around it."""
    masks = {}
    for n_voxels in (100, None, 400):
        path = simulate_dataset(
            tmp_path / str(n_voxels), **TINY, **({"n_voxels": n_voxels} if n_voxels else {})
        )
        masks[n_voxels] = np.asarray(nib.load(path / "mask.nii.gz").dataobj) > 0
        assert nib.load(path / "sub-01.nii.gz").shape == (*masks[n_voxels].shape, 20)
    assert (masks[100].sum(), masks[400].sum()) == (100, 400)
    assert 100 < masks[None].sum() < 400
    assert not (masks[100] & ~masks[None]).any()
    assert not (masks[None] & ~masks[400]).any()
