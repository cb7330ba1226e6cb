"""The sound of the simulated film."""

from collections.abc import Sequence

import numpy as np

from giblet.data.simulation.film import FPS, Scene

RATE = 24_000
NOISE = 0.001  # amplitude of the hiss below everything
CHORD = (0.8, 0.9, 1.0, 1.12, 1.26)  # tones of a note, of its frequency
BLOCK = 600  # samples
BEATS = {"low": 1.0, "middle": 1.5, "high": 2.0}  # swells of each voice a second


def record_sound(scenes: list[Scene], rng: np.random.Generator) -> np.ndarray:
    """The film's sound: (n_samples,) float32 in -1..1 at 24 kHz.

    Three voices that swell, one tone each a scene, and a steady hiss.
    """
    parts = []
    for scene in scenes:
        n_samples = round(scene.n_frames * RATE / FPS)
        since = np.arange(n_samples, dtype=np.float32) / RATE
        fade = np.minimum(1, np.minimum(since, since[::-1]) / 0.05)  # no clicks at the cuts
        sound = np.zeros(n_samples, np.float32)
        for name, (frequency, level) in scene.voices.items():
            swell = 0.85 + 0.15 * _sines([BEATS[name]], n_samples)
            sound += level * swell * _sines(frequency * np.array(CHORD), n_samples)
        parts.append(fade * sound)
    sound = np.concatenate(parts)
    hiss = NOISE * rng.standard_normal(len(sound), dtype=np.float32)
    return (sound + hiss).clip(-1, 1)


def _sines(frequencies: Sequence[float], n_samples: int) -> np.ndarray:
    """Mean of the sines of some frequencies in Hz: (n_samples,) float32.

    By sin(a + b) = sin a cos b + cos a sin b, with `a` in steps of BLOCK samples and `b` in steps
    of one: far fewer sines than samples.
    """
    turns = 2 * np.pi * np.asarray(frequencies) / RATE
    a = np.outer(BLOCK * np.arange(-(-n_samples // BLOCK)), turns)
    b = np.outer(turns, np.arange(BLOCK))
    sines = np.hstack([np.sin(a), np.cos(a)]) @ np.vstack([np.cos(b), np.sin(b)])
    return (sines.ravel()[:n_samples] / len(turns)).astype(np.float32)
