"""What each simulated voxel follows: a part of the picture, a band of the sound, or a meaning.

Visual voxels have receptive fields laid out as in the brain: the left hemisphere sees the right
half of the picture, the lower bank sees its upper half, and further forward lies further out.
Auditory voxels have preferred frequencies, low in front and high behind.
"""

from dataclasses import dataclass, replace

import numpy as np

from giblet.data.audio import FLOOR, mel_frequencies, mel_power
from giblet.data.simulation.film import ASPECT, HEIGHT, MEANINGS, WIDTH
from giblet.data.simulation.sound import RATE
from giblet.data.video import LIGHT
from giblet.regions import Regions

PLANTED = {
    "Visual": ("pictures",),
    "Auditory": ("sound",),
    "DefaultMode": ("meaning",),
    "DorsalAttention": ("pictures", "sound", "meaning"),
}
STEP = 4  # pixels of the film to one of the maps that visual voxels see
# What a visual voxel may be tuned to, and how many are.
CHANNELS = {"light": 0.42, "red-green": 0.27, "blue-yellow": 0.27, "motion": 0.04}
MAPS_SHAPE = (len(CHANNELS), (HEIGHT // STEP) * (WIDTH // STEP))
FIELD_SD = 0.05  # of the smallest receptive field, in units of the picture's height
FIELD_GROWTH = 0.07  # by which SDs grow with the distance from the centre of the picture
WIDE_SD = 0.6  # of the fields of voxels that follow everything
OCTAVES = 0.4  # SD of a voxel's tuning to frequency
WIDE_OCTAVES = 3.0
N_MELS = 48
LOWEST_HZ, HIGHEST_HZ = 90, 7000
FIELD_JITTER = 0.03  # SD by which fields differ between subjects, in units of the height
OCTAVE_JITTER = 0.15
WEIGHT_JITTER = 0.3


@dataclass(frozen=True)
class Tuning:
    """Tuning of the voxels of one network.

    Parameters
    ----------
    voxels : (n,) int
        Of the mask.
    sources : tuple of str
        What they follow: 'pictures', 'sound', 'meaning'.
    x, y, size : (n,) float
        Centre and SD of the receptive field in units of the picture's height, from its top left.
    channel : (n,) int
        Of CHANNELS.
    hz, octaves : (n,) float
        Preferred frequency, and SD of the tuning in octaves.
    weights : (n_meanings, n) float
    """

    voxels: np.ndarray
    sources: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    channel: np.ndarray
    hz: np.ndarray
    octaves: np.ndarray
    weights: np.ndarray

    def of_subject(self, rng: np.random.Generator) -> "Tuning":
        """The same voxels in one subject: fields, frequencies and weights differ a little."""
        n = len(self.voxels)
        x, y = (centre + FIELD_JITTER * rng.standard_normal(n) for centre in (self.x, self.y))
        hz = self.hz * 2 ** (OCTAVE_JITTER * rng.standard_normal(n))
        weights = self.weights + WEIGHT_JITTER * rng.standard_normal(self.weights.shape)
        return replace(self, x=x, y=y, hz=hz, weights=weights)

    def responses(self, bold: dict[str, np.ndarray]) -> np.ndarray:
        """Noise-free responses (n_trs, n) of mean 0 and SD 1 to BOLD of every feature."""
        total = np.zeros((len(bold["meaning"]), len(self.voxels)))
        for source in self.sources:
            response = getattr(self, f"_of_{source}")(bold[source])
            response = response - response.mean(0)
            total += response / np.maximum(response.std(0), 1e-9) / np.sqrt(len(self.sources))
        return total

    def _of_pictures(self, maps: np.ndarray) -> np.ndarray:
        """From maps (n_trs, n_channels, n_pixels)."""
        down, across = np.mgrid[: HEIGHT // STEP, : WIDTH // STEP].reshape(2, -1)
        across, down = ((place + 0.5) * STEP / HEIGHT for place in (across, down))
        distance = np.square(across[:, None] - self.x) + np.square(down[:, None] - self.y)
        field = np.exp(-distance / (2 * np.square(self.size)))
        field /= field.sum(0)
        responses = np.zeros((len(maps), len(self.voxels)))
        for channel in np.unique(self.channel):
            voxels = self.channel == channel
            responses[:, voxels] = maps[:, channel] @ field[:, voxels]
        return responses

    def _of_sound(self, log_power: np.ndarray) -> np.ndarray:
        """From log-mel power (n_trs, n_mels)."""
        away = np.log2(mel_frequencies(N_MELS)[:, None] / self.hz) / self.octaves
        weights = np.exp(-np.square(away) / 2)
        return log_power @ (weights / weights.sum(0))

    def _of_meaning(self, meaning: np.ndarray) -> np.ndarray:
        """From the share of each TR that has each meaning (n_trs, n_meanings)."""
        return meaning @ self.weights


def tune(networks: Regions, coordinates: np.ndarray, rng: np.random.Generator) -> dict[str, Tuning]:
    """The tuning of every planted network's voxels, whose coordinates (n_voxels, 3) are in mm."""
    return {
        name: _tuning(np.flatnonzero(networks.voxels(name)), sources, coordinates, rng)
        for name, sources in PLANTED.items()
    }


def _tuning(
    voxels: np.ndarray, sources: tuple[str, ...], coordinates: np.ndarray, rng: np.random.Generator
) -> Tuning:
    n = len(voxels)
    places = coordinates[voxels]
    wide = len(sources) > 1
    x, y = _receptive_fields(places)
    from_centre = np.hypot(x - ASPECT / 2, y - 0.5)
    channel = rng.choice(len(CHANNELS), size=n, p=list(CHANNELS.values()))
    return Tuning(
        voxels,
        sources,
        x,
        y,
        np.full(n, WIDE_SD) if wide else FIELD_SD + FIELD_GROWTH * from_centre,
        channel,
        _preferred_frequencies(places),
        np.full(n, WIDE_OCTAVES if wide else OCTAVES),
        rng.standard_normal((len(MEANINGS), n)),
    )


def _receptive_fields(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the fields of voxels at some places (n, 3) in mm: they tile the picture.

    The voxels of a hemisphere are cut into slabs from the back to the front, of which each sees a
    column of the picture, further out; within a slab the lowest voxel sees the top.
    """
    x = np.zeros(len(places))
    y = np.zeros(len(places))
    for side in (-1, 1):  # the left hemisphere sees the right half
        own = np.flatnonzero(places[:, 0] < 0 if side < 0 else places[:, 0] >= 0)
        n_slabs = max(1, round(np.sqrt(len(own) * ASPECT / 2)))
        from_behind = own[np.lexsort(places[own].T[[0, 2, 1]])]
        for number, slab in enumerate(np.array_split(from_behind, n_slabs)):
            from_below = slab[np.lexsort(places[slab].T[[0, 1, 2]])]
            eccentricity = (number + 0.5) / n_slabs * ASPECT / 2
            x[from_below] = ASPECT / 2 - side * eccentricity
            y[from_below] = (np.arange(len(slab)) + 0.5) / max(1, len(slab))
    return x, y


def _preferred_frequencies(places: np.ndarray) -> np.ndarray:
    """Frequencies in Hz of voxels at some places (n, 3): low in front, high behind."""
    hz = np.zeros(len(places))
    for left in (True, False):
        own = np.flatnonzero((places[:, 0] < 0) == left)
        from_front = own[np.lexsort(places[own].T[[0, 2, 1]])[::-1]]
        share = (np.arange(len(own)) + 0.5) / max(1, len(own))
        hz[from_front] = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** share
    return hz


def picture_maps(frame: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """What visual voxels see of a frame (height, width, 3): (n_channels, n_pixels).

    `previous` is the frame before it, for motion.
    """
    middle = slice(STEP // 2, None, STEP)
    small, before = (x[middle, middle].astype(np.float32) for x in (frame, previous))
    light = small @ LIGHT
    motion = np.abs(light - before @ LIGHT)
    red, green, blue = np.moveaxis(small, -1, 0)
    return np.stack([light, red - green, blue - (red + green) / 2, motion]).reshape(MAPS_SHAPE)


def log_power(sound: np.ndarray, n_trs: int, tr: float) -> np.ndarray:
    """What auditory voxels hear: (n_trs, N_MELS)."""
    power = mel_power(sound, RATE, n_trs, tr, n_mels=N_MELS, n_frames=1)
    return np.log(power + FLOOR).reshape(n_trs, N_MELS)
