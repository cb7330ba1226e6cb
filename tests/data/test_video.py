import av
import numpy as np
import pytest
import torch

from giblet.data import VideoProcessor
from giblet.data.media import write_movie, write_wav


def clock_movie(path, fps: float, seconds: float, levels: int = 50):
    """A movie whose frame number n has luminance 2 + 5 * (n % levels)."""
    numbers = np.arange(round(fps * seconds))
    write_movie(
        path, np.broadcast_to((2 + 5 * (numbers % levels)).astype(np.uint8)[:, None, None], (len(numbers), 32, 48)), fps
    )
    return path


@pytest.mark.parametrize("fps", [12, 24, 25, 29.97, 60])
@pytest.mark.parametrize("frame_skip", [1, 2, 4])
def test_frames_are_taken_by_time(tmp_path, fps, frame_skip):
    """Whatever the file's rate, the frame of a sample is the one on screen at its time."""
    processor = VideoProcessor(8, 12, frame_skip)
    features = np.zeros((4, processor.video_dim), np.uint8)
    assert processor.fill(clock_movie(tmp_path / "movie.mp4", fps, 6.5), features) == 4
    shown = features.reshape(-1, 8, 12).astype(int)
    assert np.ptp(shown, axis=(1, 2)).max() <= 2
    times = (np.arange(4)[:, None] * 1.5 + np.arange(processor.n_frames) * frame_skip / 25).ravel()
    expected = 2 + 5 * (np.floor(times * fps + 1e-6).astype(int) % 50)
    assert np.abs(np.median(shown, axis=(1, 2)) - expected).max() <= 2  # of a step of 5


def test_start_moves_the_clock(tmp_path):
    path, processor = clock_movie(tmp_path / "movie.mp4", 25, 6.5), VideoProcessor(8, 12)
    whole, later = (np.zeros((n, processor.video_dim), np.uint8) for n in (4, 2))
    processor.fill(path, whole)
    assert processor.fill(path, later, start=3.0) == 2
    assert np.array_equal(whole[2:], later)


def test_movie_that_ends_early(tmp_path):
    processor = VideoProcessor(8, 12)
    features = np.full((4, processor.video_dim), 77, np.uint8)
    assert processor.fill(clock_movie(tmp_path / "movie.mp4", 25, 4.0), features) == 2
    assert np.all(features[3] == 77)


@pytest.mark.parametrize(("frame_skip", "n_frames"), [(1, 37), (2, 18), (4, 9)])
def test_sizes(frame_skip, n_frames):
    assert VideoProcessor(frame_skip=frame_skip).n_frames == n_frames
    assert VideoProcessor(frame_skip=frame_skip).video_dim == n_frames * 90 * 160


@pytest.mark.parametrize("frame_skip", [1, 2, 4])
def test_written_movie_has_the_right_speed_and_pictures(tmp_path, frame_skip, rng):
    processor = VideoProcessor(16, 24, frame_skip)
    levels = rng.uniform(0.1, 0.9, (6, processor.n_frames, 1, 1))
    processor.features_to_video(
        torch.tensor(np.broadcast_to(levels, (*levels.shape[:2], 16, 24)).reshape(6, -1)), tmp_path / "a.mp4"
    )
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        frames = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(stream)]
        assert float(stream.duration * stream.time_base) == pytest.approx(6 * 1.5, abs=1.5 / processor.n_frames)
    times, means = np.transpose(frames)
    assert np.allclose(times, np.arange(6 * processor.n_frames) * 1.5 / processor.n_frames, atol=1e-3)
    assert np.abs(means - 255 * levels.ravel()).max() < 4


def test_values_are_clamped_when_written(tmp_path):
    processor = VideoProcessor(16, 24, 4)
    processor.features_to_video(torch.tensor([[-3.0], [5.0]]).expand(2, processor.video_dim), tmp_path / "a.mp4")
    back = np.zeros((2, processor.video_dim), np.uint8)
    processor.fill(tmp_path / "a.mp4", back)
    assert back[0].max() <= 2
    assert back[1].min() >= 253


def test_wrong_shape_names_both(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 100\), expected \(n_trs, 2592\) for 18 frames of 9 x 16"):
        VideoProcessor(9, 16).features_to_video(torch.zeros(2, 100), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_file_without_pictures(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(100))
    with pytest.raises(ValueError, match=r"a\.wav holds no pictures, expected a movie"):
        VideoProcessor(8, 12).fill(tmp_path / "a.wav", np.zeros((1, 18 * 96), np.uint8))


def test_real_films_at_other_rates(real_data):
    """Webm at 24 fps and mp4 at 25 fps, read with this processor and by hand."""
    films = sorted((real_data / "video").glob("*.webm")) + sorted((real_data / "video").glob("*.mp4"))
    assert len(films) == 2
    for path in films:
        processor = VideoProcessor(9, 16, 4)
        with av.open(str(path)) as container:
            frames = [(f.time, f.reformat(16, 9, format="gray").to_ndarray()) for f in container.decode(video=0)]
        times = np.array([time for time, _ in frames])
        n_trs = int(times[-1] // 1.5)
        features = np.zeros((n_trs, processor.video_dim), np.uint8)
        assert processor.fill(path, features) == n_trs
        shown = np.searchsorted(times, processor.sample_times(n_trs) + 1e-6, side="right") - 1
        shown = shown.clip(min=0)  # the first picture stands in until it starts
        assert np.array_equal(features.reshape(-1, 9, 16), np.stack([frames[index][1] for index in shown]))
