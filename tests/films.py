"""Films whose every frame shows its number and whose every second has a tone of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from giblet.data import VideoProcessor
from giblet.data.audio import RATE, read_sound

FPS = 25
HEIGHT = 48
WIDTH = 64
N_BITS = 16
SOUND_RATE = 48_000
INTRA = {"preset": "ultrafast", "crf": "10"}
REORDERED = {"preset": "medium", "bf": "3", "crf": "10"}
PROCESSOR = VideoProcessor(6, N_BITS, frame_skip=2, tr=2.0)


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The bits of a number as upright black and white bars, the lowest on the left."""
    bits = (number >> np.arange(N_BITS)) & 1
    bars = np.repeat(bits.astype(np.uint8) * 255, width // N_BITS)
    return np.tile(bars, (height, 1))


def tones(first: float, stop: float, rate: int = SOUND_RATE) -> np.ndarray:
    """Second k of a film has a tone of 300 + 100 k Hz."""
    times = np.arange(round(first * rate), round(stop * rate)) / rate
    hertz = 300 + 100 * np.floor(times)
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """A sound track: None holds no packet."""

    sound: np.ndarray | None
    title: str = ""
    disposition: int | None = None
    codec: str = "aac"
    layout: str = "mono"
    rate: int = SOUND_RATE


def write_film(
    path: Path,
    first: float = 0,
    stop: float = 6,
    tracks: Sequence[Track] | None = None,
    clock: float = 0,
    codec: str = "libx264",
    options: dict | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Path:
    """Seconds `first` to `stop` of the film; its time stamps begin at `clock` seconds."""
    tracks = [Track(tones(first, stop))] if tracks is None else tracks
    with av.open(str(path), "w") as container:
        film = container.add_stream(codec, rate=FPS, options=options or INTRA)
        film.height, film.width = size
        film.pix_fmt = pixels
        sounds = [(_add_track(container, track), track) for track in tracks]
        for index in range(round((stop - first) * FPS)):
            shown = av.VideoFrame.from_ndarray(
                picture(round(first * FPS) + index, *size), format="gray"
            ).reformat(format=pixels)
            shown.pts = index + round(clock * FPS)
            shown.time_base = Fraction(1, FPS)
            container.mux(film.encode(shown))
            for stream, track in sounds:
                _write_sound(container, stream, track, index, clock)
        for stream in (film, *(stream for stream, track in sounds if track.sound is not None)):
            container.mux(stream.encode())
    return path


def _add_track(container, track: Track):
    stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
    if track.title:
        stream.metadata["title"] = track.title
    if track.disposition is not None:
        stream.disposition = track.disposition
    stream.codec_context.open()
    return stream


def _write_sound(container, stream, track: Track, index: int, clock: float) -> None:
    if track.sound is None:
        return
    start, stop = (edge * track.rate // FPS for edge in (index, index + 1))
    form = stream.codec_context.format
    samples = np.tile(track.sound[start:stop], (stream.codec_context.channels, 1))
    samples = (samples * 32767).astype(np.int16) if form.name.startswith("s16") else samples
    samples = samples if form.is_planar else samples.T.reshape(1, -1)
    if samples.size == 0:
        return
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), format=form.name, layout=track.layout
    )
    frame.sample_rate = track.rate
    frame.pts = start + round(clock * track.rate)
    frame.time_base = Fraction(1, track.rate)
    container.mux(stream.encode(frame))


@dataclass(frozen=True)
class Seen:
    """What `VideoProcessor.fill` makes of a film, in TRs of 2 s."""

    n_trs: int
    numbers: np.ndarray
    said: list[str]

    @property
    def late(self) -> np.ndarray:
        """Frames by which what is shown comes too late, for each sample of the TRs covered."""
        n_samples = self.n_trs * PROCESSOR.n_frames
        expected = np.round(PROCESSOR.sample_times(self.n_trs) * FPS).astype(int)
        return expected - self.numbers[:n_samples]


def see(path: Path, n_trs: int = 3) -> Seen:
    """Read the pictures of a film."""
    features = np.zeros((n_trs, PROCESSOR.video_dim), np.uint8)
    said = []
    covered = PROCESSOR.fill(path, features, say=said.append)
    return Seen(covered, read_numbers(features), said)


def read_numbers(frames: np.ndarray) -> np.ndarray:
    """The number that each frame shows."""
    bars = frames.reshape(-1, PROCESSOR.height, N_BITS).mean(axis=1) > 127
    return bars @ (1 << np.arange(N_BITS))


def hear(path: Path, seconds: Sequence[int]) -> tuple[list[int], np.ndarray, list[str]]:
    """Which second's tone is heard in the middle of some seconds; the sound; what was said."""
    said = []
    sound = read_sound(path, said.append)
    return [_tone(sound[s * RATE + RATE // 4 :][: RATE // 2]) for s in seconds], sound, said


def _tone(sound: np.ndarray) -> int:
    """The second of the film that has this half second of sound; -1 for silence."""
    if len(sound) < RATE // 2 or not sound.any():
        return -1
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2 * RATE))
    return round((np.argmax(spectrum) / 2 - 300) / 100)
