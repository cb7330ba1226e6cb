"""Reading and writing movies and sound, through PyAV."""

import itertools
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from giblet.files import atomic_path


@contextmanager
def open_movie(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a movie for reading; whatever cannot be read is a ValueError that names the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: name an existing movie.")
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be read as a movie ({error.strerror}): convert it, to mp4 for example."
        ) from None


def first_second(container: av.container.InputContainer) -> float:
    """The time stamp at which a file begins: some containers do not start at 0."""
    return (container.start_time or 0) / av.time_base


def write_movie(
    path: str | Path, frames: Iterable[np.ndarray], fps: float, sound: np.ndarray | None = None, rate: int = 24_000
) -> None:
    """Write an H.264 mp4, with AAC sound if given.

    Parameters
    ----------
    frames : iterable of (height, width, 3) or (height, width) uint8
        Shown at `fps` frames per second; an odd height or width loses its last row or column to the codec.
    sound : (n_samples,) float32 in -1..1, optional
        Mono, `rate` samples per second.
    """
    frame_rate = Fraction(fps).limit_denominator(1001)
    frames = iter(frames)
    first = next(frames)
    height, width = (size - size % 2 for size in first.shape[:2])
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=frame_rate, options={"preset": "superfast", "crf": "20"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.thread_count = 2  # the same bytes whatever the number of cores
        audio = None if sound is None else container.add_stream("aac", rate=rate, layout="mono")
        n_written = 0
        for index, frame in enumerate(itertools.chain([first], frames), start=1):
            layout = "rgb24" if frame.ndim == 3 else "gray"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format=layout)
            container.mux(video.encode(picture))
            if audio is not None:  # interleaved with the pictures, as players expect
                chunk = sound[n_written : int(index * rate / frame_rate)]
                container.mux(audio.encode(_audio_frame(chunk, n_written, rate)))
                n_written += len(chunk)
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode())


def _audio_frame(samples: np.ndarray, start: int, rate: int) -> av.AudioFrame | None:
    if len(samples) == 0:
        return None
    frame = av.AudioFrame.from_ndarray(np.asarray(samples, np.float32).clip(-1, 1)[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame


def write_wav(path: str | Path, sound: np.ndarray, rate: int = 24_000) -> None:
    """Write (n_samples,) float32 in -1..1 as a 16-bit mono wav."""
    samples = (np.asarray(sound).clip(-1, 1) * 32_767).astype("<i2")
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
