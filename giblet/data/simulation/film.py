"""The script of the simulated film: scenes of pictures, sound and meaning.

What is seen, heard and meant is drawn independently of each other, and so are the four quarters of
the picture and the three voices of the sound: a brain region that follows one part can be told from
one that follows another, and no half of a picture tells the other half.
"""

from dataclasses import dataclass

import numpy as np

FPS = 12.5
HEIGHT = 144
WIDTH = 256
ASPECT = WIDTH / HEIGHT
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
MEANINGS = {
    "friendship": ("greets its friend", "hugs its friend"),
    "danger": ("flees the danger of", "fears the danger of"),
    "search": ("is lost and looks for", "is lost and calls"),
    "rest": ("sleeps calmly beside", "dreams calmly of"),
    "quarrel": ("shouts angrily at", "argues angrily with"),
    "play": ("plays a game with", "wins a game against"),
}
# Ten places, each known by one banner: where it hangs (across and down, in shares of the picture),
# and its colour.
PLACES = (
    ("harbour", (0.09, 0.25), (255, 225, 0)),
    ("market", (0.25, 0.25), (230, 0, 0)),
    ("temple", (0.41, 0.25), (0, 220, 60)),
    ("forest", (0.65, 0.25), (60, 30, 255)),
    ("castle", (0.85, 0.25), (255, 60, 255)),
    ("desert", (0.15, 0.75), (0, 230, 255)),
    ("island", (0.35, 0.75), (255, 110, 0)),
    ("school", (0.59, 0.75), (150, 0, 220)),
    ("station", (0.75, 0.75), (0, 140, 40)),
    ("garden", (0.91, 0.75), (255, 140, 180)),
)
# What may stand in a quarter of the sky and of the ground.
SKIES = ("clear", "sun", "cloud")
GROUNDS = ("meadow", "hill", "house")
SKY_TINT = (0.8, 0.92, 1.0)
GROUND_TINT = (0.95, 1.0, 0.75)
LIGHTS = (0.06, 0.92)  # of full light
CONTRASTS = (0.75, 1.3)  # of what stands in a quarter
SCENES_A_PLACE = 2  # before the film moves on
SCENE_SECONDS = (9, 12)
# Each voice sings one of its notes a scene, in Hz.
VOICES = {"low": (110, 180, 290), "middle": (700, 1000, 1400), "high": (2600, 3900, 5800)}
LEVELS = (0.003, 0.25)  # amplitudes of a voice, of full scale


@dataclass(frozen=True)
class Quarter:
    """One quarter of the backdrop: its colour (0..255), and what stands in it, lighter or darker.

    `contrast` multiplies the colour of what stands there.
    """

    colour: np.ndarray
    scenery: str
    contrast: float


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
    """One shot.

    Pictures are the `place`, an index of PLACES, the `quarters` (left and right sky, left and right
    ground) and `actors`; sound is (frequency in Hz, amplitude) of each voice.
    """

    n_frames: int
    place: int
    quarters: tuple[Quarter, ...]
    actors: tuple[Actor, Actor]
    voices: dict[str, tuple[float, float]]
    meaning: str
    verb: str

    @property
    def narration(self) -> str:
        """The sentence that describes the scene."""
        lead, other = (f"the {actor.colour} {actor.shape}" for actor in self.actors)
        return f"{lead.capitalize()} {self.verb} {other}."


def write_script(n_frames: int, rng: np.random.Generator) -> list[Scene]:
    """Draw scenes of 9 to 12 seconds at random until they fill `n_frames`.

    Places and meanings, and the lights of each quarter at each place, come in rounds, so that all
    of them are shown about as often and no place is brighter than another.
    """
    shortest, longest = (round(seconds * FPS) for seconds in SCENE_SECONDS)
    places = _rounds(range(len(PLACES)), rng)
    meanings = _rounds(MEANINGS, rng)
    lights = [[_pairs(rng) for _ in range(4)] for _ in PLACES]
    scenes = []
    left = n_frames
    while left > 0:
        length = min(int(rng.integers(shortest, longest)), left)
        if left - length < shortest:  # no flash at the end
            length = left
        if len(scenes) % SCENES_A_PLACE == 0:
            place = next(places)
        levels = [next(pairs) for pairs in lights[place]]
        scenes.append(_scene(length, place, levels, next(meanings), rng))
        left -= length
    return scenes


def _rounds(choices, rng: np.random.Generator):
    """Each of the choices once in random order, again and again."""
    choices = list(choices)
    while True:
        for index in rng.permutation(len(choices)):
            yield choices[index]


def _pairs(rng: np.random.Generator):
    """Lights in 0..1, each followed by its opposite."""
    while True:
        light = rng.uniform()
        yield light
        yield 1 - light


def _scene(
    n_frames: int, place: int, levels: list[float], meaning: str, rng: np.random.Generator
) -> Scene:
    kinds = (SKIES, SKIES, GROUNDS, GROUNDS)
    quarters = tuple(_quarter(*pair, rng) for pair in zip(kinds, levels, strict=True))
    colours = rng.choice(list(COLOURS), 2, replace=False)
    sizes = rng.uniform((0.18, 0.12), (0.23, 0.15))
    actors = tuple(
        _actor(str(colour), size, rng) for colour, size in zip(colours, sizes, strict=True)
    )
    voices = {}
    for name, notes in VOICES.items():
        level = np.exp(rng.uniform(*np.log(LEVELS)))
        voices[name] = (float(rng.choice(notes)), float(level))
    verb = str(rng.choice(MEANINGS[meaning]))
    return Scene(n_frames, place, quarters, actors, voices, meaning, verb)


def _quarter(kinds: tuple[str, ...], level: float, rng: np.random.Generator) -> Quarter:
    """Light varies, and its tint only between sky and ground."""
    tint = np.array(SKY_TINT if kinds == SKIES else GROUND_TINT)
    darkest, brightest = LIGHTS
    light = darkest + (brightest - darkest) * level
    return Quarter(255 * light * tint, str(rng.choice(kinds)), float(rng.choice(CONTRASTS)))


def _actor(colour: str, size: float, rng: np.random.Generator) -> Actor:
    """An actor that moves by at most a quarter of the picture's height."""
    start = rng.uniform((0.2, 0.2), (ASPECT - 0.2, 0.8))
    end = start + rng.uniform(-0.25, 0.25, size=2)
    return Actor(str(rng.choice(SHAPES)), colour, size, start, end.clip(0.1, (ASPECT - 0.1, 0.9)))
