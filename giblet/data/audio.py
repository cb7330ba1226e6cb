"""Sound: movie -> log-mel features per TR, and features -> wav."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from giblet.data import encodec
from giblet.data.decoding import decoded
from giblet.data.media import write_wav
from giblet.data.movie import Say, describe, open_movie, say_choice, sound_streams

RATE = 24_000  # samples per second, mono
N_FFT = 4096
WILD = 1e4  # times full scale, which no sound has
GAP = 0.05  # seconds by which sound may be off its time stamps, which are often rounded
FLOOR = 1e-6  # power added before the logarithm: about -60 dB of full scale
# Largest log power that is written, 9 dB above full scale: a lesioned model may go anywhere.
LOUDEST = 2.0
LOWEST_HZ, HIGHEST_HZ = 40.0, 10_000.0  # of mel bands
_MEL = {"mel_mean": (1, 128), "mel": (32, 64)}  # frames and bands of a TR
KINDS = (*_MEL, "encodec_latents", "encodec_codes")


def mel_frequencies(
    n_mels: int, low_hz: float = LOWEST_HZ, high_hz: float = HIGHEST_HZ
) -> np.ndarray:
    """Centres in Hz of the bands of `mel_filters`: (n_mels,)."""
    return _mel_edges(n_mels, low_hz, high_hz)[1:-1]


def _mel_edges(n_mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    mels = np.linspace(*(2595 * np.log10(1 + np.array([low_hz, high_hz]) / 700)), n_mels + 2)
    return 700 * (10 ** (mels / 2595) - 1)


def mel_filters(
    n_mels: int, rate: int = RATE, low_hz: float = LOWEST_HZ, high_hz: float = HIGHEST_HZ
) -> np.ndarray:
    """Triangular mel filters (n_mels, N_FFT // 2 + 1) whose weights sum to 1 each."""
    edges = _mel_edges(n_mels, low_hz, high_hz)
    bins = np.arange(N_FFT // 2 + 1) * rate / N_FFT
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rise, fall))
    narrow = filters.sum(1) == 0  # a band between two bins takes the nearest one
    filters[narrow, np.abs(bins - edges[1:-1][narrow, None]).argmin(1)] = 1
    return (filters / filters.sum(1, keepdims=True)).astype(np.float32)


def mel_power(
    sound: np.ndarray, rate: int, n_trs: int, tr: float, n_mels: int, n_frames: int
) -> np.ndarray:
    """Mel power in `n_frames` equal parts of every TR: (n_trs, n_frames, n_mels) float32.

    Windows overlap and are averaged, so that all of the sound counts; each is placed by its own
    time, so nothing drifts whatever the TR. Sound that ends before the last TR counts as silence.
    """
    per_part = max(1, round(32 / n_frames))
    times = (np.arange(n_trs * n_frames * per_part) + 0.5) * tr / (n_frames * per_part)
    starts = np.round(times * rate).astype(
        np.int64
    )  # of windows centred on `times` in the padded sound
    n_padded = int(n_trs * tr * rate) + 2 * N_FFT
    padded = torch.zeros(n_padded)
    usable = min(len(sound), n_padded - N_FFT // 2)
    padded[N_FFT // 2 : N_FFT // 2 + usable] = torch.from_numpy(
        np.ascontiguousarray(sound[:usable])
    )
    windows = padded.unfold(0, N_FFT, 1)
    hann = torch.hann_window(N_FFT)
    filters = torch.from_numpy(mel_filters(n_mels, rate)).T
    scale = 4 / hann.sum() ** 2  # a full-scale sine has power 1
    power = [
        scale * torch.fft.rfft(windows[torch.from_numpy(block)] * hann).abs().square() @ filters
        for block in np.array_split(starts, -(-len(starts) // 1024))
    ]
    return torch.cat(power).reshape(n_trs, n_frames, per_part, n_mels).mean(2).numpy()


def read_sound(path: str | Path, say: Say = print) -> np.ndarray | None:
    """The sound track that a player would take, as mono float32 at 24 kHz.

    Any rate and channel layout, also one that changes: 5.1 and stereo are mixed down. Samples
    follow each other; where a time stamp is more than 50 ms away from their running count, sound is
    missing (and silent) or told twice (and left out).

    Parameters
    ----------
    say : callable
        Called with a sentence where a choice was made or something is damaged.

    Returns
    -------
    (n_samples,) float32, or None without a track or where none holds a sample

    Raises
    ------
    ValueError
        Where the file has sound and none of its tracks can be decoded.
    """
    with open_movie(path) as container:
        found = [describe(stream) for stream in container.streams.audio]
        tracks = [stream.index for stream in sound_streams(container)]
    damage = None if tracks else "their formats are not known here"
    for track in tracks:
        try:
            sound = _read_track(path, track, say)
        except ValueError as error:
            damage = str(error)
            continue
        if sound is not None:
            return sound
    if found and damage:
        raise ValueError(
            f"{path} has the sound tracks {'; '.join(found)}, and none can be decoded ({damage}): "
            "convert its sound, to AAC for example, or take it away."
        )
    return None


def _read_track(path: str | Path, track: int, say: Say) -> np.ndarray | None:
    """One sound track; None where it holds no sample."""
    parts = []
    with open_movie(path) as container:
        stream = container.streams[track]
        for start, samples in _contiguous(decoded(container, stream, path, say), stream.time_base):
            parts.append((round(start * RATE), samples))
        if parts:
            say_choice(stream, container.streams.audio, path, say)
    n_samples = max((start + len(samples) for start, samples in parts), default=0)
    if n_samples <= 0:
        return None
    sound = _joined(parts, n_samples)
    parts.clear()
    if not (sound.min() > -WILD and sound.max() < WILD):  # NaN compares as False
        is_wild = ~(np.abs(sound) < WILD)
        sound[is_wild] = 0
        say(f"{path}: {is_wild.sum()} samples of its sound are no numbers or too large: silent")
    return sound


def _joined(parts: list[tuple[int, np.ndarray]], n_samples: int) -> np.ndarray:
    """Stretches of sound, each from its first sample on; silence between them."""
    sound = np.zeros(n_samples, np.float32)
    end = 0
    for start, samples in parts:
        skipped = max(0, end - start)
        start += skipped
        sound[start : start + len(samples) - skipped] = samples[skipped:]
        end = max(end, start + len(samples) - skipped)
    return sound


def _contiguous(frames: Iterator[tuple], time_base: Fraction) -> Iterator[tuple[float, np.ndarray]]:
    """Stretches of sound without a gap and in one format: its first second, and mono samples."""
    tolerance = max(GAP, 2 * float(time_base))
    end = 0.0
    start = 0.0
    pieces = [np.zeros(0, np.float32)]
    resampler = None
    form = None
    for seconds, frame in frames:
        of_frame = (frame.format.name, frame.layout.name, frame.sample_rate)
        is_first = resampler is None
        is_gap = seconds is not None and (is_first or abs(seconds - end) > tolerance)
        if is_first or is_gap or of_frame != form:
            if not is_first:
                yield start, np.concatenate([*pieces, *_mono(resampler, None)])
            start = end = seconds if is_gap else end
            pieces = [np.zeros(0, np.float32)]
            form = of_frame
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frame.pts = None
        pieces += _mono(resampler, frame)
        end += frame.samples / frame.sample_rate
    if resampler is not None:
        yield start, np.concatenate([*pieces, *_mono(resampler, None)])


def _mono(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> list[np.ndarray]:
    """Samples that a frame gives, or that are left (None)."""
    return [piece.to_ndarray()[0] for piece in resampler.resample(frame)]


@dataclass(frozen=True)
class AudioProcessor:
    """What is heard in each TR.

    Parameters
    ----------
    kind : 'mel_mean', 'mel', 'encodec_latents' or 'encodec_codes'
        'mel_mean': the TR's mean log-mel spectrum, 128 bands. 'mel': 64 bands x 32 frames, which
        can be turned back into sound. 'encodec_latents': 128 values x 112 frames (at 1.5 s) of the
        EnCodec model, and 'encodec_codes': their names in 8 codebooks, for
        `MultimodalAutoencoder(use_encodec=True)`.
    tr : float
        Repetition time in seconds.
    codec : str
        Folder or hub id of EnCodec's weights.
    mean, sd : (n_features,) arrays
        Of the training TRs, which features are expressed in; `MultimodalDataset` fills them in.
    """

    kind: str = "mel_mean"
    tr: float = 1.5
    codec: str = "facebook/encodec_24khz"
    mean: np.ndarray | None = field(default=None, repr=False, compare=False)
    sd: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, expected one of {', '.join(KINDS)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one TR's features in `MultimodalDataset`."""
        if self.kind in _MEL:
            return (int(np.prod(_MEL[self.kind])),)
        n_frames = encodec.frames_per_tr(self.tr)
        return (8, n_frames) if self.kind == "encodec_codes" else (128 * n_frames,)

    def features(self, sound: np.ndarray | None, n_trs: int) -> np.ndarray:
        """Features of each TR, before standardising: (n_trs, *shape).

        int16 codes, or float32. None is silence.
        """
        sound = np.zeros(1, np.float32) if sound is None else sound
        if self.kind not in _MEL:
            return encodec.encode(
                sound, n_trs, self.tr, self.codec, codes=self.kind == "encodec_codes"
            )
        n_frames, n_mels = _MEL[self.kind]
        return np.log(mel_power(sound, RATE, n_trs, self.tr, n_mels, n_frames) + FLOOR).reshape(
            n_trs, -1
        )

    @property
    def mel_shape(self) -> tuple[int, int] | None:
        """(n_frames, n_mels) of a TR's log-mel spectra; None for EnCodec's features."""
        return _MEL.get(self.kind)

    def log_power(self, features) -> torch.Tensor:
        """Natural logarithm of mel power of (n_trs, *shape) features.

        Features are those that `MultimodalDataset` gives.

        Returns
        -------
        (n_trs, n_frames, n_mels) float32
        """
        features = torch.as_tensor(features).detach().cpu()
        return self._unstandardised(features).float().reshape(len(features), *self.mel_shape)

    def _unstandardised(self, features: torch.Tensor) -> torch.Tensor:
        if self.mean is None or self.kind == "encodec_codes":
            return features
        return features.float() * torch.from_numpy(self.sd) + torch.from_numpy(self.mean)

    def features_to_sound(self, features, n_iter: int = 32, random_state: int = 0) -> np.ndarray:
        """Turn (n_trs, *shape) features into mono sound at 24 kHz.

        Features are in the unit of `MultimodalDataset`.

        Log-mel features by Griffin-Lim (Griffin & Lim 1984, IEEE TASSP 32:236-243), EnCodec's by
        its decoder. 'mel_mean' holds no timing within a TR: the sound then holds its mean spectrum.

        Returns
        -------
        (n_samples,) float32 of n_trs * tr seconds
        """
        features = torch.as_tensor(features).detach().cpu()
        if tuple(features.shape[1:]) != self.shape:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, expected (n_trs, "
                f"{', '.join(map(str, self.shape))})."
            )
        if self.mel_shape is not None:
            sound = self._griffin_lim(
                self.log_power(features), n_iter, torch.Generator().manual_seed(random_state)
            )
        else:
            codes = self.kind == "encodec_codes"
            sound = encodec.decode(self._unstandardised(features), self.tr, self.codec, codes=codes)
        n_samples = round(len(features) * self.tr * RATE)
        return np.pad(sound, (0, max(0, n_samples - len(sound))))[:n_samples]

    def features_to_audio(
        self, features, path: str | Path, n_iter: int = 32, random_state: int = 0
    ) -> None:
        """Write what `features_to_sound` gives as a wav."""
        write_wav(path, self.features_to_sound(features, n_iter, random_state), RATE)

    def _griffin_lim(
        self, log_power: torch.Tensor, n_iter: int, generator: torch.Generator
    ) -> np.ndarray:
        n_frames, n_mels = _MEL[self.kind]
        log_power = log_power.reshape(-1, n_mels).clamp(max=LOUDEST)
        power = (log_power.exp() - FLOOR).clamp(min=0).repeat_interleave(32 // n_frames, dim=0)
        hop = round(self.tr * RATE / 32)
        filters = torch.from_numpy(mel_filters(n_mels))
        spread = (
            filters.T / filters.sum(0).clamp(min=1e-8)[:, None]
        )  # each bin takes its bands' power
        amplitude = (power @ spread.T).sqrt().T * torch.hann_window(N_FFT).sum() / 2
        sound = _griffin_lim(amplitude, hop, n_iter, generator)
        return torch.nn.functional.pad(sound, (hop // 2, 0)).numpy()


def _griffin_lim(
    amplitude: torch.Tensor, hop: int, n_iter: int, generator: torch.Generator
) -> torch.Tensor:
    """A signal whose STFT has the given amplitude (n_bins, n_frames).

    Frame k is centred on sample k * hop.
    """
    window = torch.hann_window(N_FFT)
    settings = {"n_fft": N_FFT, "hop_length": hop}
    phase = torch.polar(
        torch.ones_like(amplitude), 2 * torch.pi * torch.rand(amplitude.shape, generator=generator)
    )
    for _ in range(n_iter):
        sound = torch.istft(amplitude * phase, window=window, **settings)
        spectrum = torch.stft(sound, window=window, return_complex=True, **settings)
        phase = torch.polar(torch.ones_like(amplitude), spectrum.angle())
    return torch.istft(amplitude * phase, window=window, **settings)
