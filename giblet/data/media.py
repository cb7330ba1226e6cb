"""Writing movies and sound, and what a player makes of them, through PyAV."""

import io
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.reformatter import VideoReformatter
from scipy.io import wavfile

from giblet.files import atomic_path


def write_movie(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    sound: np.ndarray | None = None,
    rate: int = 24_000,
) -> None:
    """Write an H.264 mp4, with AAC sound if given.

    Parameters
    ----------
    frames : iterable of (height, width, 3) or (height, width) uint8
        Shown at `fps` frames per second; an odd height or width loses its last row or column to the
        codec.
    sound : (n_samples,) float32 in -1..1, optional
        Mono, `rate` samples per second.
    """
    frame_rate = Fraction(fps).limit_denominator(1001)
    frames = iter(frames)
    first = next(frames)
    height, width = (size - size % 2 for size in first.shape[:2])
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        options = {"preset": "superfast", "crf": "20"}
        video = container.add_stream("libx264", rate=frame_rate, options=options)
        video.width = width
        video.height = height
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # the same bytes whatever the number of cores
        audio = None
        if sound is not None:
            options = {"aac_coder": "fast"}
            audio = container.add_stream("aac", rate=rate, layout="mono", options=options)
        n_written = 0
        pictures = _pictures(itertools.chain([first], frames), height, width)
        for index, picture in enumerate(pictures, start=1):
            picture.pts = index - 1
            container.mux(video.encode(picture))
            n_samples = int(index * rate / frame_rate)
            if audio is not None and n_samples - n_written >= rate / 2:
                container.mux(_encoded(audio, sound[n_written:n_samples], n_written, rate))
                n_written = n_samples
        if audio is not None:
            container.mux(_encoded(audio, sound[n_written:n_samples], n_written, rate))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode())


def _pictures(frames: Iterable[np.ndarray], height: int, width: int) -> Iterator[av.VideoFrame]:
    """Frames as the codec takes them."""
    convert = VideoReformatter()
    for frame in frames:
        layout = "rgb24" if frame.ndim == 3 else "gray"
        pixels = np.ascontiguousarray(frame[:height, :width])
        given = av.VideoFrame.from_ndarray(pixels, format=layout)
        yield convert.reformat(given, format="yuv420p", threads=1)


def _encoded(audio: AudioStream, samples: np.ndarray, start: int, rate: int) -> list[av.Packet]:
    """Packets of samples, if any: the sound may end before the pictures."""
    return audio.encode(_audio_frame(samples, start, rate)) if len(samples) else []


def _audio_frame(samples: np.ndarray, start: int, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.asarray(samples, np.float32).clip(-1, 1)[None], format="fltp", layout="mono"
    )
    frame.sample_rate = rate
    frame.pts = start
    frame.time_base = Fraction(1, rate)
    return frame


def write_wav(path: str | Path, sound: np.ndarray, rate: int = 24_000) -> None:
    """Write (n_samples,) float32 in -1..1 as a 16-bit mono wav."""
    samples = (np.asarray(sound).clip(-1, 1) * 32_767).astype("<i2")
    with atomic_path(path) as temporary:
        wavfile.write(temporary, rate, samples)


@dataclass(frozen=True)
class Played:
    """What a player makes of the bytes of a film or a sound.

    Attributes
    ----------
    seconds : float
        How long it plays: the longer of pictures and sound.
    n_frames : int
        Pictures, 0 in a sound.
    frame_size : (width, height) in pixels, or None in a sound
    loudness : float
        Root mean square of all channels over `seconds`, in decibels of full scale: a full-scale
        sine has -3.0, silence -inf. NaN without a sound track.
    """

    seconds: float
    n_frames: int
    frame_size: tuple[int, int] | None
    loudness: float


def decode_media(data: bytes) -> Played:
    """Decode every picture and every sample of an encoded film or sound.

    Parameters
    ----------
    data : bytes
        A whole file: mp4, mp3 or wav.

    Raises
    ------
    ValueError
        If it cannot be decoded, or holds neither pictures nor sound.
    """
    try:
        n_frames, frame_size, seen = _decode_pictures(data)
        heard, power = _decode_sound(data)
    except av.FFmpegError as error:
        raise ValueError(
            f"data is not a film or a sound that can be decoded ({error.strerror}): write it again."
        ) from None
    seconds = max(seen, heard)
    if seconds == 0:
        raise ValueError("data holds neither pictures nor sound: give a whole file.")
    loudness = math.nan if heard == 0 else -math.inf
    if power > 0:
        loudness = 10 * math.log10(power * heard / seconds)
    return Played(seconds, n_frames, frame_size, loudness)


def _decode_pictures(data: bytes) -> tuple[int, tuple[int, int] | None, float]:
    """Number of pictures, their (width, height), and seconds until the last one ends."""
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            return 0, None, 0.0
        frames = [(frame.time, frame.width, frame.height) for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    if not frames:
        return 0, None, 0.0
    return len(frames), frames[0][1:], frames[-1][0] - frames[0][0] + float(1 / rate)


def _decode_sound(data: bytes) -> tuple[float, float]:
    """Seconds, and the mean square of all samples of all channels, where 1 is full scale."""
    energy = 0.0
    n_samples = 0
    rate = 1
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.audio:
            return 0.0, 0.0
        to_float = av.AudioResampler(format="fltp")
        frames = itertools.chain(container.decode(audio=0), [None])  # None empties the resampler
        for piece in itertools.chain.from_iterable(map(to_float.resample, frames)):
            samples = piece.to_ndarray().astype(np.float64)
            energy += float(np.square(samples).mean(axis=0).sum())
            n_samples += samples.shape[1]
            rate = piece.sample_rate
    return n_samples / rate, energy / max(1, n_samples)
