"""A small drawn film with sound and narration: the stimulus of the simulated data set.

A film is a list of scenes. Pictures, sound and the meaning of the narration are drawn independently
of each other, so that a brain region that follows one of them can be told from one that follows
another; what belongs together in the story is the cast: every shape has its own voice, and pulses
with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FPS = 25
HEIGHT = 144
WIDTH = 256
RATE = 24_000
COLOURS = {
    "red": (235, 80, 70),
    "orange": (250, 160, 60),
    "yellow": (250, 225, 90),
    "green": (110, 220, 120),
    "blue": (110, 170, 255),
    "violet": (200, 130, 250),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star")
VOICES = {
    "circle": (1.0,),
    "square": (1.0, 0, 0.4, 0, 0.25),
    "triangle": (1.0, 0, 0.15),
    "star": (0.7, 0.6, 0.5, 0.4),
}
MEANINGS = {
    "friendship": ("greets its friend", "hugs its friend"),
    "danger": ("flees the danger of", "fears the danger of"),
    "search": ("is lost and looks for", "is lost and calls"),
    "rest": ("sleeps calmly beside", "dreams calmly of"),
}


@dataclass(frozen=True)
class Actor:
    """A shape that moves from `start` to `end`.

    Positions and `size` are in units of the frame's height.
    """

    shape: str
    colour: str
    size: float
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One shot: pictures, sound and meaning.

    Pictures are `sky, ground, actors`; sound is `pitch` in Hz, `loudness` and `wind`.
    """

    n_frames: int
    sky: np.ndarray
    ground: np.ndarray
    actors: tuple[Actor, Actor]
    pitch: float
    loudness: float
    wind: float
    meaning: str
    verb: str

    @property
    def narration(self) -> str:
        """The sentence that describes the scene."""
        lead, other = (f"the {actor.colour} {actor.shape}" for actor in self.actors)
        return f"{lead.capitalize()} {self.verb} {other}."


def write_script(n_frames: int, rng: np.random.Generator) -> list[Scene]:
    """Draw scenes of 3 to 7 seconds at random until they fill `n_frames`."""
    scenes = []
    left = n_frames
    while left > 0:
        length = min(int(rng.integers(3 * FPS, 7 * FPS)), left)
        if left - length < 3 * FPS:  # no flash at the end
            length = left
        scenes.append(_scene(length, rng))
        left -= length
    return scenes


def _scene(n_frames: int, rng: np.random.Generator) -> Scene:
    light = rng.uniform(0.08, 0.75)
    tint = rng.uniform(0.5, 1.0, size=(2, 3))
    meaning = str(rng.choice(list(MEANINGS)))
    shapes = rng.choice(SHAPES, 2)
    colours = rng.choice(list(COLOURS), 2, replace=False)
    actors = tuple(
        Actor(str(shape), str(colour), size, *rng.uniform((0.2, 0.2), (1.58, 0.8), size=(2, 2)))
        for shape, colour, size in zip(
            shapes, colours, rng.uniform((0.14, 0.06), (0.28, 0.14)), strict=True
        )
    )
    return Scene(
        n_frames,
        sky=255 * light * tint[0],
        ground=255 * light * rng.uniform(0.3, 1.0) * tint[1],
        actors=actors,
        pitch=float(np.exp(rng.uniform(np.log(120), np.log(1800)))),
        loudness=float(rng.uniform(0.02, 0.35)),
        wind=float(np.exp(rng.uniform(np.log(0.002), np.log(0.12)))),
        meaning=meaning,
        verb=str(rng.choice(MEANINGS[meaning])),
    )


def draw_frames(scenes: list[Scene]) -> Iterator[np.ndarray]:
    """Draw the film: (144, 256, 3) uint8 frames at 25 a second."""
    for scene in scenes:
        backdrop = _backdrop(scene)
        for index in range(scene.n_frames):
            frame = backdrop.copy()
            for number in (1, 0):  # the lead in front
                _draw_actor(frame, scene, number, index)
            yield frame


def _draw_actor(frame: np.ndarray, scene: Scene, number: int, index: int) -> None:
    actor = scene.actors[number]
    progress = index / scene.n_frames
    seconds = index / FPS
    path = actor.end - actor.start
    centre = actor.start + path * progress * progress * (3 - 2 * progress)
    centre[1] += 0.04 * np.sin(2 * np.pi * (0.7 + 0.4 * number) * seconds)
    size = actor.size * (
        1 + (0.08 * np.sin(2 * np.pi * _beat(scene) * seconds) if number == 0 else 0)
    )
    _draw(frame, actor.shape, COLOURS[actor.colour], centre, size)
    for side in (-1, 1):  # the eyes look where the actor goes
        eye = centre + size * (
            np.array([0.24 * side, -0.05]) + 0.12 * path / (np.hypot(*path) + 1e-6)
        )
        _draw(frame, "circle", (25, 25, 35), eye, 0.1 * size)


def _beat(scene: Scene) -> float:
    """Beats a second of the lead's voice and of its pulse."""
    return 1.0 + SHAPES.index(scene.actors[0].shape) / 2


def _backdrop(scene: Scene) -> np.ndarray:
    height = np.linspace(0, 1, HEIGHT)[:, None]
    rows = np.where(
        height < 0.78, scene.sky * (1.15 - 0.5 * height), scene.ground * (0.6 + 0.4 * height)
    )
    return np.repeat(rows[:, None].clip(0, 255).astype(np.uint8), WIDTH, axis=1)


def _draw(frame: np.ndarray, shape: str, colour: tuple, centre: np.ndarray, size: float) -> None:
    """Blend an antialiased shape into `frame`, touching only its bounding box."""
    reach = 1.3 * size
    x0, x1 = (int(np.clip((centre[0] + side * reach) * HEIGHT, 0, WIDTH)) for side in (-1, 1))
    y0, y1 = (int(np.clip((centre[1] + side * reach) * HEIGHT, 0, HEIGHT)) for side in (-1, 1))
    x = ((np.arange(x0, x1, dtype=np.float32) + 0.5) / HEIGHT - np.float32(centre[0]))[None]
    y = ((np.arange(y0, y1, dtype=np.float32) + 0.5) / HEIGHT - np.float32(centre[1]))[:, None]
    inside = np.clip(0.5 - _distance(shape, x, y, np.float32(size)) * HEIGHT, 0, 1)[..., None]
    box = frame[y0:y1, x0:x1]
    box += (
        (inside * (np.array(colour, np.float32) - box)).astype(np.int16).astype(np.uint8)
    )  # wraps to the right sum


def _distance(shape: str, x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """Signed distance to the outline of a shape, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - size
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * size
    if shape == "triangle":
        return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.6 * size
    angle = np.arctan2(x, -y)  # a star: the radius swings five times around
    return np.hypot(x, y) - size * (0.85 + 0.35 * np.cos(5 * angle))


def record_sound(scenes: list[Scene], rng: np.random.Generator) -> np.ndarray:
    """The film's sound: (n_samples,) float32 in -1..1 at 24 kHz.

    Each scene has one voice, and wind.
    """
    parts = []
    for scene in scenes:
        n_samples = scene.n_frames * RATE // FPS
        seconds = np.arange(n_samples) / RATE
        weights = np.array(VOICES[scene.actors[0].shape])
        phases = 2 * np.pi * scene.pitch * np.outer(np.arange(1, len(weights) + 1), seconds)
        voice = weights @ np.sin(phases) / np.abs(weights).sum()
        swell = 0.7 + 0.3 * np.sin(2 * np.pi * _beat(scene) * seconds)
        fade = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.02)  # no clicks at the cuts
        parts.append(
            fade * (scene.loudness * swell * voice + scene.wind * rng.standard_normal(n_samples))
        )
    return np.concatenate(parts).astype(np.float32).clip(-1, 1)
