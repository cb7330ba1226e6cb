import hashlib
from dataclasses import dataclass
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import spearmanr, zscore

from giblet.alignment import convolve_hrf
from giblet.data import DataFolder, VideoProcessor, default_data_dir, simulate_dataset
from giblet.data.audio import AudioProcessor, read_sound
from giblet.data.segments import read_segments
from giblet.data.simulation.dataset import LAG_TRS
from giblet.data.simulation.film import MEANINGS, PLACES
from giblet.data.simulation.tuning import PLANTED
from giblet.regions import Regions, seitzman_networks

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


@dataclass(frozen=True)
class World:
    """What the written files of the default data set show, tell and measure, TR by TR.

    `film` is (n_trs, 18, 32, 3) in 0..1, `log_mel` (n_trs, 128), `meaning` (n_trs, 6), `bold`
    (n_subjects, n_trs, n_voxels) z-scored within runs, `coordinates` (n_voxels, 3) in mm.
    """

    truth: dict
    run_trs: tuple[int, ...]
    scene: np.ndarray
    film: np.ndarray
    log_mel: np.ndarray
    meaning: np.ndarray
    bold: np.ndarray
    coordinates: np.ndarray
    networks: Regions

    def by_run(self, function, values: np.ndarray) -> np.ndarray:
        return np.concatenate([function(x) for x in np.split(values, np.cumsum(self.run_trs)[:-1])])

    def heard(self, signal: np.ndarray) -> np.ndarray:
        """Through the HRF, z-scored within runs: (n_trs, n_features)."""
        return self.by_run(lambda x: zscore(convolve_hrf(x - x.mean(0), 1.5)), signal)

    @property
    def group(self) -> np.ndarray:
        return self.by_run(zscore, self.bold.mean(0))


@pytest.fixture(scope="module")
def world(full_simulated) -> World:
    folder = DataFolder.open(full_simulated)
    video = VideoProcessor(18, 32, 6, colour=True)
    film = []
    sound = []
    for path, n_trs in zip(folder.movies, folder.run_trs, strict=True):
        frames = np.zeros((n_trs, video.video_dim), np.uint8)
        assert video.fill(path, frames) == n_trs
        film.append(frames.reshape(n_trs, -1, *video.frame_shape).mean(1) / 255)
        sound.append(AudioProcessor().features(read_sound(path), n_trs))
    n_trs = sum(folder.run_trs)
    scene = np.zeros(n_trs, int)
    meaning = np.zeros((n_trs, len(MEANINGS)))
    segments = read_segments(folder.annotations, folder.text_columns, folder.run_trs)
    for number, segment in enumerate(segments):
        told = [any(verb in segment.text for verb in verbs) for verbs in MEANINGS.values()]
        meaning[segment.start : segment.stop] = told
        scene[segment.start : segment.stop] = number
    mask_img = nib.load(folder.masks[0])
    mask = np.asarray(mask_img.dataobj) > 0
    bold = [np.asarray(nib.load(path).dataobj)[mask].T for (path,) in folder.subjects.values()]
    bold = [np.concatenate([zscore(run) for run in np.split(x, [420])]) for x in bold]
    return World(
        folder.truth,
        folder.run_trs,
        scene,
        np.concatenate(film),
        np.concatenate(sound),
        meaning,
        np.array(bold, np.float32),
        nib.affines.apply_affine(mask_img.affine, np.argwhere(mask)),
        seitzman_networks(mask_img),
    )


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (zscore(x) * zscore(y)).mean(0)


def seen_in(pictures: np.ndarray, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Pictures (n_trs, height, width) within Gaussian fields: (n_trs, n_fields)."""
    height, width = pictures.shape[1:]
    down, across = (np.indices((height, width)) + 0.5) / height
    away = np.square(across[..., None] - x * width / height) + np.square(down[..., None] - y)
    fields = np.exp(-away / (2 * np.square(size)))
    return np.tensordot(pictures, fields / fields.sum((0, 1)), 2)


def test_visual_voxels_follow_their_own_part_and_colour(world):
    """Better than the opposite part of the picture, and than another colour or light."""
    table = world.truth["voxels"]["Visual"]
    voxels, x, y, size = (np.array(table[key]) for key in ("voxel", "x", "y", "size"))
    assert np.array_equal(voxels, np.flatnonzero(world.networks.voxels("Visual")))
    red, green, blue = np.moveaxis(world.film, -1, 0)
    pictures = {
        "light": 0.299 * red + 0.587 * green + 0.114 * blue,
        "red-green": red - green,
        "blue-yellow": blue - (red + green) / 2,
    }
    followed = {}
    for name, picture in pictures.items():
        for place, fields in {"own": (x, y), "opposite": (1 - x, 1 - y)}.items():
            seen = world.heard(seen_in(picture, *fields, size))
            followed[name, place] = correlations(seen, world.group[:, voxels])
    tuned_to = np.array(table["tuned_to"])
    far = np.hypot(16 / 9 * (2 * x - 1), 2 * y - 1) > 0.3
    for name in pictures:
        tuned = tuned_to == name
        assert tuned.sum() > 20
        own = followed[name, "own"]
        assert np.median(own[tuned]) > 0.7
        assert (own > followed[name, "opposite"] + 0.2)[tuned & far].mean() > 0.95
        for other in set(pictures) - {name}:
            assert (own > followed[other, "own"])[tuned].mean() > 0.95
    assert set(tuned_to) == {*pictures, "motion"}


def test_fields_lie_as_in_the_brain(world):
    """Left sees right, lower sees up, further forward sees further out; they tile the picture."""
    table = world.truth["voxels"]["Visual"]
    x, y = np.array(table["x"]), np.array(table["y"])
    right, forward, up = world.coordinates[table["voxel"]].T
    assert ((x < 0.5) == (right >= 0)).all()
    for side in (right < 0, right >= 0):
        assert spearmanr(forward[side], np.abs(x - 0.5)[side]).statistic > 0.95
        assert spearmanr(up[side], y[side]).statistic > 0.5
        halves, _, _ = np.histogram2d(x[side], y[side], bins=(2, 4))
        assert halves.min() > 0.6 * halves.mean()


def test_auditory_voxels_follow_their_frequency(world):
    """Better than two octaves away."""
    table = world.truth["voxels"]["Auditory"]
    hz = np.array(table["hz"])
    mels = np.linspace(*(2595 * np.log10(1 + np.array([40, 10_000]) / 700)), 130)[1:-1]
    octaves = np.log2(700 * (10 ** (mels / 2595) - 1))
    responses = world.group[:, table["voxel"]]
    followed = []
    for shift in (0, 2, -2):
        weights = np.exp(-np.square((octaves[:, None] - np.log2(hz) - shift) / 0.4) / 2)
        heard = world.heard(world.log_mel @ (weights / weights.sum(0)))
        followed.append(correlations(heard, responses))
    own, above, below = followed
    assert np.median(own) > 0.8
    assert (own > above)[hz < 1700].mean() > 0.95
    assert (own > below)[hz > 400].mean() > 0.95
    forward = world.coordinates[table["voxel"]][:, 1]
    assert spearmanr(forward, hz).statistic < -0.9


def explained(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """In-sample R2 of each column of y on x, adjusted for the number of columns of x."""
    x = x - x.mean(0)
    y = y - y.mean(0)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    free = len(x) - 1 - np.linalg.matrix_rank(x)
    return 1 - (residual**2).sum(0) / (y**2).sum(0) * (len(x) - 1) / free


@pytest.fixture(scope="module")
def shifts(world) -> dict[str, np.ndarray]:
    """R2 of every voxel on each source, by the lag of BOLD: {source: (7, n_voxels)}."""
    lights = world.film.mean(-1).reshape(-1, 2, 9, 4, 8).mean((2, 4))
    sources = {
        "pictures": lights.reshape(-1, 8),
        "sound": world.log_mel.reshape(-1, 8, 16).mean(2),
        "meaning": world.meaning,
    }
    starts = np.cumsum((0, *world.run_trs[:-1]))
    found = {}
    for source, x in sources.items():
        by_lag = []
        for lag in range(7):
            rows = [np.arange(n - lag) + at for at, n in zip(starts, world.run_trs, strict=True)]
            rows = np.concatenate(rows)
            by_lag.append(explained(x[rows], world.group[rows + lag]))
        found[source] = np.stack(by_lag)
    return found


@pytest.mark.parametrize("source", ["pictures", "sound", "meaning"])
def test_networks_follow_what_was_planted_and_nothing_else(world, shifts, source):
    """From the files alone: at the lag that they declare; other networks are silent."""
    assert world.truth["planted"] == {name: list(of) for name, of in PLANTED.items()}
    by_lag = {
        network: shifts[source][:, world.networks.voxels(network)].mean(1)
        for network in world.networks.names
    }
    followers = [network for network, of in PLANTED.items() if source in of]
    weakest = min(by_lag[network][LAG_TRS] for network in followers)
    assert weakest > 0.1
    for network, values in by_lag.items():
        if network in followers:
            assert abs(int(np.argmax(values)) - LAG_TRS) <= 1, network
        else:
            assert np.abs(values).max() < (0.5 * weakest if network in PLANTED else 0.03), network


def test_no_part_of_a_scene_tells_another(world):
    """Across scenes, quarters of the picture and voices of the sound are independent."""
    starts = np.flatnonzero(np.diff(world.scene, prepend=-1))
    stops = np.append(starts[1:], len(world.scene))
    # away from the seams, where quarters meet
    halves = (slice(0, 8), slice(10, 18)), (slice(0, 14), slice(18, 32))
    lights = world.film.mean(-1)
    parts = [lights[:, rows, columns].mean((1, 2)) for rows in halves[0] for columns in halves[1]]
    parts += [world.log_mel[:, band].mean(1) for band in (slice(3, 14), slice(76, 120))]
    inside = [slice(start + 1, stop - 1) for start, stop in zip(starts, stops, strict=True)]
    by_scene = np.array([[part[rows].mean() for rows in inside] for part in parts])
    assert by_scene.shape[1] > 100
    r = np.corrcoef(by_scene)[~np.eye(len(parts), dtype=bool)]
    assert np.abs(r).max() < 0.3


def test_places_are_balanced_and_marked(world):
    """Each is shown about as often, none is brighter, and its banner hangs where it should."""
    place = np.array(world.truth["place"])
    counts = np.bincount(place, minlength=10)
    assert counts.min() > 0.75 * counts.mean()
    lights = np.array([world.film[place == one].mean() for one in range(10)])
    assert lights.std() < 0.25 * world.film.mean((1, 2, 3)).std()
    assert world.truth["place_names"] == [name for name, *_ in PLACES]
    for one, (_, (across, down), colour) in enumerate(PLACES):
        shown = world.film[place == one, int(down * 18), int(across * 32)]
        assert (np.abs(shown - np.divide(colour, 255)).max(1) < 0.15).mean() > 0.85


def test_viewers_agree_as_real_ones(world):
    """Leave-one-out inter-subject correlation of voxels, directly."""
    others = (world.bold.sum(0) - world.bold) / (len(world.bold) - 1)
    isc = np.mean([correlations(*pair) for pair in zip(world.bold, others, strict=True)], axis=0)
    for network in world.networks.names:
        mean = isc[world.networks.voxels(network)].mean()
        if network in PLANTED:
            assert 0.3 < mean < 0.45, network
        else:
            assert abs(mean) < 0.03, network


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
