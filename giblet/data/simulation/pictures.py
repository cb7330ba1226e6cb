"""The pictures of the simulated film."""

from collections.abc import Iterator

import numpy as np

from giblet.data.simulation.film import ASPECT, COLOURS, FPS, HEIGHT, PLACES, WIDTH, Scene

BANNER = (0.16, 0.245)  # half its width and height, in units of the frame's height
SEAM = 0.04  # width in which one quarter turns into the next, in units of the frame's height


def draw_frames(scenes: list[Scene]) -> Iterator[np.ndarray]:
    """Draw the film: (144, 256, 3) uint8 frames at 25 a second.

    It is drawn on twos: every picture is the same array twice.
    """
    for scene in scenes:
        backdrop = _backdrop(scene)
        for index in range(0, scene.n_frames, 2):
            frame = backdrop.copy()
            for number in (1, 0):  # the lead in front
                _draw_actor(frame, scene, number, index)
            _draw_banner(frame, scene.place)
            yield from [frame] * min(2, scene.n_frames - index)


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
    size = actor.size * (1 + pulse)
    _draw(frame, actor.shape, COLOURS[actor.colour], centre, size)
    towards = 0.12 * path / (np.hypot(*path) + 1e-6)
    for side in (-1, 1):  # the eyes look where the actor goes
        eye = centre + size * (np.array([0.24 * side, -0.05]) + towards)
        _draw(frame, "circle", (25, 25, 35), eye, 0.1 * size)


def _draw(frame: np.ndarray, shape: str, colour: tuple, centre: np.ndarray, size: float) -> None:
    """Blend an antialiased shape into `frame`, touching only its bounding box."""
    reach = 1.3 * size
    x0, x1 = _pixels(centre[0] - reach, centre[0] + reach, WIDTH)
    y0, y1 = _pixels(centre[1] - reach, centre[1] + reach, HEIGHT)
    x = ((np.arange(x0, x1, dtype=np.float32) + 0.5) / HEIGHT - np.float32(centre[0]))[None]
    y = ((np.arange(y0, y1, dtype=np.float32) + 0.5) / HEIGHT - np.float32(centre[1]))[:, None]
    inside = np.clip(0.5 - _distance(shape, x, y, np.float32(size)) * HEIGHT, 0, 1)
    box = frame.reshape(HEIGHT, -1)[y0:y1, 3 * x0 : 3 * x1]
    change = np.empty(box.shape, np.float32)
    for channel in range(3):
        change[:, channel::3] = inside
    change *= np.tile(np.float32(colour), x1 - x0) - box
    box += change.astype(np.int16).astype(np.uint8)  # wraps to the right sum


def _pixels(start: float, stop: float, size: int) -> tuple[int, int]:
    """Pixels of a row or column of `size` between places in units of the frame's height."""
    return max(0, int(start * HEIGHT)), min(size, int(stop * HEIGHT))


def _distance(shape: str, x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """Signed distance to the outline of a shape, negative inside."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - size
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * size
    if shape == "triangle":
        return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.6 * size
    radius = np.sqrt(x * x + y * y) + np.float32(1e-6)
    up = -y / radius  # a star: the radius swings five times around, by the cosine of five angles
    swing = up * (5 + up * up * (16 * up * up - 20))
    return radius - size * (np.float32(0.85) + np.float32(0.35) * swing)
