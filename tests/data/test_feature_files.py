"""Features made elsewhere: read from files, on the TRs of the runs."""

import numpy as np
import pytest
from folders import copy_of, without
from scipy.signal import resample_poly

from giblet.data import MultimodalDataset, VideoProcessor
from giblet.data.audio import read_sound
from giblet.data.feature_files import FeatureFiles, read_array, resampled
from giblet.data.media import write_wav

FILM = VideoProcessor(9, 16, 10)


def test_a_row_a_tr(tmp_path, rng):
    rows = rng.standard_normal((12, 3))
    np.save(tmp_path / "f.npy", rows)
    said = []
    features, covered = FeatureFiles((tmp_path / "f.npy",)).read([5, 6], 1.5, said.append)
    assert np.array_equal(features, rows[:11].astype(np.float32))
    assert covered == [5, 6]
    assert said == [f"{tmp_path / 'f.npy'}: 12 rows for 11 TRs, 3 features"]
    _, covered = FeatureFiles((tmp_path / "f.npy",)).read([8, 6], 1.5, said.append)
    assert covered == [8, 4]


def test_a_file_a_run_and_several_kinds(tmp_path, rng):
    h5py = pytest.importorskip("h5py")
    one, other = rng.standard_normal((5, 2, 3)), rng.standard_normal((6, 6))
    np.savez(tmp_path / "one.npz", a=one, b=other)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["clip/a"] = other
    files = (tmp_path / "one.npz", tmp_path / "other.h5")
    with pytest.raises(ValueError, match=r"one\.npz holds a, b, and no key is given"):
        FeatureFiles(files).read([5, 6], 1.5)
    np.savez(tmp_path / "one.npz", a=one)
    features, covered = FeatureFiles(files).read([5, 6], 1.5)
    assert np.allclose(features, np.concatenate([one.reshape(5, 6), other]))
    assert covered == [5, 6]


def test_a_rate_of_their_own_against_a_sine(rng):
    """What is slower than half a TR is kept, what is faster is gone, at the middle of each TR."""
    tr, rate, n_trs = 1.5, 10.0, 80
    times = (np.arange(1200) + 0.5) / rate
    slow, fast = np.sin(2 * np.pi * 0.05 * times), np.sin(2 * np.pi * 0.6 * times)
    middle = (np.arange(n_trs) + 0.5) * tr
    found = resampled(np.column_stack([slow, fast]), rate, 0.0, n_trs, tr)
    assert np.abs(found[3:-3, 0] - np.sin(2 * np.pi * 0.05 * middle[3:-3])).max() < 0.05
    assert np.abs(found[3:-3, 1]).max() < 0.05  # every TR would see .1 Hz of it without a filter
    shifted = resampled(slow[30:, None], rate, 3.0, n_trs, tr)
    assert np.allclose(shifted[5:-3], found[5:-3, :1], atol=1e-6)


def test_against_polyphase_resampling(rng):
    """A smooth random course, as scipy brings it from 6 rows a TR to one."""
    rows = np.convolve(rng.standard_normal(1200), np.hanning(60), "same")
    expected = resample_poly(np.concatenate([rows[3:], rows[-3:]]), 1, 6)  # at the middles of TRs
    found = resampled(rows[:, None], 4.0, 0.0, 200, 1.5)[:, 0]
    assert np.corrcoef(found[5:-5], expected[5:-5])[0, 1] > 0.999


def test_slower_than_trs_and_beyond_the_rows(tmp_path, rng):
    rows = np.sin(np.arange(40) / 4)[:, None]
    np.save(tmp_path / "f.npy", rows)
    features, covered = FeatureFiles((tmp_path / "f.npy",), rate=0.25).read([120], 1.5)
    assert covered == [106]  # 40 rows of 4 s
    assert not features[106:].any()
    assert (
        np.abs(features[2:100, 0] - np.sin(((np.arange(2, 100) + 0.5) * 1.5 - 2) / 16)).max() < 0.1
    )


FAULTS = {
    "text": (lambda path: path.write_text("1, 2"), "cannot be read as an array"),
    "objects": (lambda path: np.save(path, np.array([{}, {}])), "cannot be read as an array"),
    "words": (lambda path: np.save(path, np.array(["a", "b"])), "expected rows of real numbers"),
    "a number": (lambda path: np.save(path, np.array(3.0)), r"values of shape \(\), expected rows"),
    "nothing": (lambda path: np.save(path, np.zeros((0, 3))), r"shape \(0, 3\), expected rows"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_refused_files(tmp_path, kind):
    write, message = FAULTS[kind]
    path = tmp_path / "f.npy"
    write(path)
    with pytest.raises(ValueError, match=message) as found:
        read_array(path)
    assert "f.npy" in str(found.value)


def test_refused_values(tmp_path):
    rows = np.ones((10, 2))
    rows[4, 1] = np.nan
    np.save(tmp_path / "f.npy", rows)
    files = FeatureFiles((tmp_path / "f.npy",))
    with pytest.raises(ValueError, match="not finite, or too large for float32, at TR 4"):
        files.read([10], 1.5)
    np.save(tmp_path / "g.npy", np.ones((10, 3)))
    np.save(tmp_path / "f.npy", np.ones((10, 2)))
    with pytest.raises(ValueError, match=r"have \[2, 3\] features, expected the same of every run"):
        FeatureFiles((tmp_path / "f.npy", tmp_path / "g.npy")).read([10, 10], 1.5)
    with pytest.raises(ValueError, match="2 files for 3 runs, expected one a run or one of all"):
        FeatureFiles((tmp_path / "f.npy", tmp_path / "g.npy")).read([10, 10, 10], 1.5)


@pytest.fixture
def folder(simulated, tmp_path):
    """Without a film and a sheet, but with text features of two numbers a TR."""
    path = copy_of(simulated, tmp_path / "data")
    without(path / "dataset.toml", "movies", "annotations", "text_columns")
    np.save(path / "text.npy", np.random.default_rng(0).standard_normal((126, 2)))
    return path


def test_a_folder_without_a_film(folder):
    with (folder / "dataset.toml").open("a") as file:
        file.write('\n[features]\ntext = "text.npy"\n')
    data = MultimodalDataset(folder, progress=False, average=True)
    assert data.present == ("text",)
    assert (data.video_processor, data.audio_processor, data.text_processor) == (None,) * 3
    text = np.load(folder / "text.npy")[data.tr_index]
    text = (text - text.mean(0)) / text.std(0)
    assert (
        np.abs(np.corrcoef(data[range(len(data))]["text"].T, text.T)[:2, 2:]).diagonal().min()
        > 0.999
    )
    assert data.provenance["features"] == {"video": None, "audio": None, "text": None}


def test_features_take_the_place_of_a_film(simulated, tmp_path, rng):
    """Video of a file, sound and words of the film; without any stimulus the folder is refused."""
    np.save(tmp_path / "v.npy", rng.standard_normal((126, 5)))
    features = {"video": str(tmp_path / "v.npy")}
    data = MultimodalDataset(simulated, progress=False, features=features)
    assert data.features.video.shape == (126, 5)
    assert data.present == ("video", "audio", "text")
    assert data.video_processor is None and data.audio_processor is not None
    bare = copy_of(simulated, tmp_path / "bare")
    without(bare / "dataset.toml", "movies", "annotations", "text_columns")
    with pytest.raises(ValueError, match="names no stimulus, expected a film, words or features"):
        MultimodalDataset(bare, progress=False)


def test_a_story_is_sound_alone(simulated, tmp_path):
    """Its sound is that of a film with the same track, and there are no pictures."""
    path = copy_of(simulated, tmp_path / "data")
    film = MultimodalDataset(path, progress=False, video_processor=FILM)
    for run in (1, 2):
        movie = path / f"movie_run-{run}.mp4"
        write_wav(path / f"story_run-{run}.wav", read_sound(movie))
        movie.unlink()
    without(path / "dataset.toml", "movies")
    with (path / "dataset.toml").open("a") as file:
        file.write('\nmovies = ["story_run-1.wav", "story_run-2.wav"]\n')
    story = MultimodalDataset(path, progress=False, video_processor=FILM)
    assert story.present == ("audio", "text")
    assert np.abs(story.features.audio - film.features.audio).mean() < 0.01  # of 16 bits
    assert np.array_equal(story.features.split, film.features.split)
