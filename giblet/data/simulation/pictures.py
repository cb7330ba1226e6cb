"""The pictures of the simulated film."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from giblet.data.simulation.film import ASPECT, COLOURS, FPS, HEIGHT, PLACES, WIDTH, Scene

BANNER = (0.16, 0.245)  # half its width and height, in units of the frame's height
EYES = (25, 25, 35)
SEAM = 0.04  # width in which one quarter turns into the next, in units of the frame's height


def draw_frames(scenes: list[Scene]) -> Iterator[np.ndarray]:
    """Draw the film: (144, 256, 3) uint8 frames, FPS a second."""
    for scene in scenes:
        backdrop = _backdrop(scene)
        for index in range(scene.n_frames):
            frame = backdrop.copy()
            for number in (1, 0):  # the lead in front
                _draw_actor(frame, scene, number, index)
            _draw_banner(frame, scene.place)
            yield frame


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Places of pixels across (1, WIDTH) and down (HEIGHT, 1), in units of the frame's height."""
    across = (np.arange(WIDTH, dtype=np.float32) + 0.5) / HEIGHT
    down = (np.arange(HEIGHT, dtype=np.float32) + 0.5) / HEIGHT
    return across[None], down[:, None]


def _backdrop(scene: Scene) -> np.ndarray:
    across, down = _grid()
    right = 1 / (1 + np.exp((ASPECT / 2 - across) / (SEAM / 4)))
    below = 1 / (1 + np.exp((0.5 - down) / (SEAM / 4)))
    shares = [(1 - below) * (1 - right), (1 - below) * right]
    shares += [below * (1 - right), below * right]
    picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for number, (quarter, share) in enumerate(zip(scene.quarters, shares, strict=True)):
        centre = (ASPECT * (0.25 + 0.5 * (number % 2)), 0.25 + 0.5 * (number // 2))
        x = across - np.float32(centre[0])
        y = down - np.float32(centre[1])
        inside = np.clip(0.5 - _outline(quarter.scenery, x, y) * HEIGHT, 0, 1)
        strength = 1 + (quarter.contrast - 1) * inside
        picture += (share * strength)[..., None] * quarter.colour.astype(np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def _outline(scenery: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of what stands in a quarter, negative inside."""
    if scenery == "sun":
        return np.hypot(x, y) - 0.17
    if scenery == "cloud":
        return (np.hypot(x / 3, y) - 0.12) * np.ones_like(x + y)
    if scenery == "hill":
        return np.hypot(x / 1.6, y - 0.25) - 0.25
    if scenery == "house":
        walls = np.maximum(np.abs(x) - 0.17, np.abs(y - 0.08) - 0.12)
        return np.minimum(walls, np.maximum(0.7 * np.abs(x) - 0.7 * (y + 0.22), y + 0.04))
    return np.ones_like(x + y)


def _draw_banner(frame: np.ndarray, place: int) -> None:
    """The mark of a place, in front of everything."""
    _, (across, down), colour = PLACES[place]
    half_width, half_height = (round(part * HEIGHT) for part in BANNER)
    x = round(across * WIDTH)
    y = round(down * HEIGHT)
    left = max(0, x - half_width)
    frame[y - half_height : y + half_height, left : x + half_width] = colour


def _draw_actor(frame: np.ndarray, scene: Scene, number: int, index: int) -> None:
    actor = scene.actors[number]
    progress = index / scene.n_frames
    seconds = index / FPS
    path = actor.end - actor.start
    centre = actor.start + path * progress * progress * (3 - 2 * progress)
    centre[1] += 0.04 * np.sin(2 * np.pi * (0.7 + 0.4 * number) * seconds)
    pulse = 0.08 * np.sin(2 * np.pi * seconds) if number == 0 else 0
    radius = round(actor.size * (1 + pulse) * HEIGHT)
    kept, added = _stamp(actor.shape, actor.colour, radius, float(np.arctan2(*path[::-1])))
    corner = np.round(centre * HEIGHT).astype(int) - len(kept) // 2
    (x, width), (y, height) = (
        (slice(max(0, start), min(start + len(kept), size)), slice(max(0, -start), size - start))
        for start, size in zip(corner.tolist(), (WIDTH, HEIGHT), strict=True)
    )
    frame[y, x] = (frame[y, x] * kept[height, width] + added[height, width]) >> 7


@lru_cache(256)
def _stamp(shape: str, colour: str, radius: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """What an actor leaves of the picture around its centre, and what it adds: 128 is all.

    (n, n, 1) and (n, n, 3) int16. Its eyes look where it goes, at an angle in radians.
    """
    reach = math.ceil(1.3 * radius)
    across = np.arange(-reach, reach + 1, dtype=np.float32)[None]
    inside = _antialiased(_distance(shape, across, across.T, radius))
    picture = inside * np.float32(COLOURS[colour])
    for side in (-1, 1):
        x = radius * (0.24 * side + 0.12 * math.cos(angle))
        y = radius * (-0.05 + 0.12 * math.sin(angle))
        eye = _antialiased(np.hypot(across - x, across.T - y) - 0.1 * radius)
        picture += eye * (np.float32(EYES) - picture)
        inside = np.maximum(inside, eye)
    return np.int16(128 - np.round(128 * inside)), np.round(128 * picture).astype(np.int16)


def _antialiased(distance: np.ndarray) -> np.ndarray:
    """How much of each pixel lies inside, from its signed distance in pixels: (n, n, 1)."""
    return np.clip(0.5 - distance, 0, 1)[..., None]


def _distance(shape: str, x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """Signed distance to the outline of a shape, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - size
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * size
    if shape == "triangle":
        return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.6 * size
    radius = np.hypot(x, y) + np.float32(1e-6)
    up = -y / radius  # a star: the radius swings five times around, by the cosine of five angles
    swing = up * (5 + up * up * (16 * up * up - 20))
    return radius - size * (np.float32(0.85) + np.float32(0.35) * swing)
