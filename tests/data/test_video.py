from fractions import Fraction

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
        path,
        np.broadcast_to(
            (2 + 5 * (numbers % levels)).astype(np.uint8)[:, None, None], (len(numbers), 32, 48)
        ),
        fps,
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
        torch.tensor(np.broadcast_to(levels, (*levels.shape[:2], 16, 24)).reshape(6, -1)),
        tmp_path / "a.mp4",
    )
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        frames = [
            (frame.time, frame.to_ndarray(format="gray").mean())
            for frame in container.decode(stream)
        ]
        assert float(stream.duration * stream.time_base) == pytest.approx(
            6 * 1.5, abs=1.5 / processor.n_frames
        )
    times, means = np.transpose(frames)
    assert np.allclose(
        times, np.arange(6 * processor.n_frames) * 1.5 / processor.n_frames, atol=1e-3
    )
    assert np.abs(means - 255 * levels.ravel()).max() < 4


def test_values_are_clamped_when_written(tmp_path):
    processor = VideoProcessor(16, 24, 4)
    processor.features_to_video(
        torch.tensor([[-3.0], [5.0]]).expand(2, processor.video_dim), tmp_path / "a.mp4"
    )
    back = np.zeros((2, processor.video_dim), np.uint8)
    processor.fill(tmp_path / "a.mp4", back)
    assert back[0].max() <= 2
    assert back[1].min() >= 253


def test_wrong_shape_names_both(tmp_path):
    with pytest.raises(
        ValueError, match=r"\(2, 100\), expected \(n_trs, 2592\) for 18 frames of 9 x 16"
    ):
        VideoProcessor(9, 16).features_to_video(torch.zeros(2, 100), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_file_without_pictures(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(100))
    with pytest.raises(ValueError, match=r"a\.wav holds no pictures, expected a film"):
        VideoProcessor(8, 12).fill(tmp_path / "a.wav", np.zeros((1, 18 * 96), np.uint8))


def test_real_films_at_other_rates(real_data):
    """Webm at 24 fps and mp4 at 25 fps, read with this processor and by hand."""
    films = sorted((real_data / "video").glob("*.webm")) + sorted(
        (real_data / "video").glob("*.mp4")
    )
    assert len(films) == 2
    for path in films:
        processor = VideoProcessor(9, 16, 4)
        with av.open(str(path)) as container:
            frames = [
                (f.time, f.reformat(16, 9, format="gray").to_ndarray())
                for f in container.decode(video=0)
            ]
        times = np.array([time for time, _ in frames])
        n_trs = int(times[-1] // 1.5)
        features = np.zeros((n_trs, processor.video_dim), np.uint8)
        assert processor.fill(path, features) == n_trs
        shown = np.searchsorted(times, processor.sample_times(n_trs) + 1e-6, side="right") - 1
        shown = shown.clip(min=0)  # the first picture stands in until it starts
        assert np.array_equal(
            features.reshape(-1, 9, 16), np.stack([frames[index][1] for index in shown])
        )


def test_colour_there_and_back(tmp_path, rng):
    colours = rng.integers(40, 215, (4, 9, 1, 1, 3))
    processor = VideoProcessor(16, 24, 4, colour=True)
    assert processor.video_dim == 9 * 16 * 24 * 3
    frames = np.broadcast_to(colours, (4, 9, 16, 24, 3)) / 255
    processor.features_to_video(torch.tensor(frames.reshape(4, -1)), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = np.stack(
            [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        ).astype(int)
    assert np.abs(shown - colours.reshape(36, 1, 1, 3)).max() <= 8
    back = np.zeros((4, processor.video_dim), np.uint8)
    assert processor.fill(tmp_path / "a.mp4", back) == 4
    assert np.array_equal(back.reshape(4, 9, 16, 24, 3)[:, 0], shown[::9])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_movie(tmp_path, quarters):
    """A film shot with the camera turned, whose display matrix turns it back."""
    upright = np.full((32, 48), 40, np.uint8)
    upright[:8, :12] = 220  # a light in the upper left
    stored = np.ascontiguousarray(np.rot90(upright, -quarters))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *stored.shape, "yuv420p"
        stream.set_display_rotation(90 * quarters)
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="gray")))
        container.mux(stream.encode())
    processor = VideoProcessor(16, 24)
    features = np.zeros((1, processor.video_dim), np.uint8)
    processor.fill(tmp_path / "a.mp4", features)
    still = features.reshape(-1, 16, 24)[0].astype(int)
    assert np.abs(still[:3, :5] - 220).max() < 12
    assert np.abs(still[6:] - 40).max() < 12


def test_variable_rate(tmp_path):
    """Frames at irregular times: each is shown until the next begins."""
    times = [0, 40, 1000, 1040, 2500, 2900]  # milliseconds
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height = 32
        stream.width = 48
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(
                np.full((32, 48), 30 + 40 * index, np.uint8), format="gray"
            )
            frame.pts = time
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    processor = VideoProcessor(8, 12, 1)
    features = np.zeros((1, processor.video_dim), np.uint8)
    assert processor.fill(tmp_path / "a.mkv", features) == 1
    shown = np.median(features.reshape(37, -1), axis=1)
    expected = [30 + 40 * (np.searchsorted(times, 40 * k, side="right") - 1) for k in range(37)]
    assert np.abs(shown - expected).max() <= 3


def test_time_stamps_that_do_not_start_at_zero(tmp_path):
    """A transport stream does not begin at 0; its film does."""
    clock_movie(tmp_path / "a.mp4", 25, 4)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "a.ts"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    with av.open(str(tmp_path / "a.ts")) as container:
        assert container.start_time > 0
    processor = VideoProcessor(8, 12)
    features = np.zeros((2, 2, processor.video_dim), np.uint8)
    assert [
        processor.fill(tmp_path / f"a.{end}", out)
        for end, out in zip(("mp4", "ts"), features, strict=True)
    ] == [
        2,
        2,
    ]
    assert np.array_equal(*features)


@pytest.mark.parametrize("content", [b"", b"no movie" * 1000])
def test_unreadable_movie(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read as a movie \(.*\): convert it"):
        VideoProcessor(8, 12).fill(tmp_path / "a.mp4", np.zeros((1, 18 * 96), np.uint8))


@pytest.mark.parametrize("name", ["notes.txt", "release.nfo"])
def test_text_is_no_movie(tmp_path, name):
    """FFmpeg would draw its letters."""
    (tmp_path / name).write_text("The film lies on the other disk.\n" * 20)
    with pytest.raises(ValueError, match=rf"{name} (is text, expected|cannot be read as) a movie"):
        VideoProcessor(8, 12).fill(tmp_path / name, np.zeros((1, 18 * 96), np.uint8))


def test_missing_movie(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.mp4 is missing: name an existing movie"):
        VideoProcessor(8, 12).fill(tmp_path / "a.mp4", np.zeros((1, 18 * 96), np.uint8))


@pytest.mark.parametrize("name", ["big_buck_bunny_30s.webm", "big_buck_bunny_5s_surround.mp4"])
@pytest.mark.parametrize("frame_skip", [1, 2, 4])
def test_real_films_come_back(real_data, tmp_path, name, frame_skip):
    """In and out again: as long as the TRs of the film, to one frame, and the same pictures."""
    film = real_data / "video" / name
    processor = VideoProcessor(frame_skip=frame_skip)
    with av.open(str(film)) as container:
        seconds = container.duration / av.time_base
    n_trs = int(seconds / 1.5 + 0.01)
    features = np.zeros((n_trs, processor.video_dim), np.uint8)
    assert processor.fill(film, features) == n_trs
    processor.features_to_video(features / np.float32(255), tmp_path / "back.mp4")
    with av.open(str(tmp_path / "back.mp4")) as container:
        stream = container.streams.video[0]
        frame = 1.5 / processor.n_frames
        assert float(stream.duration * stream.time_base) == pytest.approx(1.5 * n_trs, abs=frame)
    again = np.zeros_like(features)
    assert processor.fill(tmp_path / "back.mp4", again) == n_trs
    stills = [
        x.reshape(n_trs, processor.n_frames, -1)[:, 0].astype(float).ravel()
        for x in (features, again)
    ]
    assert np.corrcoef(*stills)[0, 1] > 0.99
