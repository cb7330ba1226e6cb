"""A simulated movie data set with planted truth, written as real files.

Everything that notebooks and tests assert is planted here: which networks follow which part of the
film, and the lag. It is simulated, and is called so wherever it appears.
"""

import json
import math
import os
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import openpyxl
from nilearn.datasets import load_mni152_brain_mask
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.signal import lfilter
from tqdm.auto import tqdm

from giblet.alignment import convolve_hrf
from giblet.data.media import write_movie
from giblet.data.simulation import film
from giblet.data.simulation.pictures import draw_frames
from giblet.data.simulation.sound import RATE, record_sound
from giblet.data.simulation.tuning import (
    CHANNELS,
    MAPS_SHAPE,
    PLANTED,
    Tuning,
    log_power,
    picture_maps,
    tune,
)
from giblet.files import atomic_folder, check_writable, expanded
from giblet.images import voxel_coordinates
from giblet.regions import seitzman_networks

SEEN_EVERY = 2  # frames of the film to one that simulated brains see
LAG_TRS = 3  # where the hemodynamic response to one TR peaks, at TR 1.5 s
VERSION = 3  # raise it when the same arguments no longer give the same files
# Signal of SD 1; of the noise, half of it spatially smooth.
NOISE_SD = 1.6
BASELINE = 1000
UNITS_PER_SD = 20


def simulate_dataset(
    path: str | Path,
    n_subjects: int = 8,
    run_trs: tuple[int, ...] = (420, 420),
    tr: float = 1.5,
    resolution_mm: int = 8,
    n_voxels: int | None = None,
    random_state: int = 0,
    progress: bool = True,
) -> Path:
    """Write a simulated movie data set, or reuse the one that is there.

    Parameters
    ----------
    path : folder to write
        `movie_run-1.mp4`, ... (H.264 and AAC), `annotations.xlsx`, `sub-01.nii.gz`, ... (MNI space,
        runs one after the other), `mask.nii.gz`, `dataset.toml` and `truth.json` (the planted
        networks).
    n_subjects, run_trs, tr, resolution_mm : size of the data set
        `run_trs` is the number of TRs of each run; `tr` is in seconds.
    n_voxels : int, optional
        Exactly so many voxels, those deepest in the MNI152 brain mask or nearest to it; by default
        those within it.
    random_state : int
        The same seed writes the same data.

    Returns
    -------
    Path
        The folder. An existing folder is reused if it was simulated with the same arguments.

    Raises
    ------
    ValueError
        If the folder holds anything else; nothing is overwritten.
    """
    path = expanded(path)
    settings = {"version": VERSION, "n_subjects": n_subjects, "run_trs": list(run_trs), "tr": tr}
    settings |= {"resolution_mm": resolution_mm, "random_state": random_state}
    settings |= {"n_voxels": n_voxels} if n_voxels else {}
    if path.exists() and any(path.iterdir()):
        _check_same(path, settings)
        return path
    with atomic_folder(path) as folder:
        scripts, features = _write_movies(folder, run_trs, tr, random_state, progress)
        _write_annotations(folder / "annotations.xlsx", scripts, run_trs, tr)
        mask_img = _brain_mask(resolution_mm, n_voxels)
        tuning = _write_brains(
            folder,
            features,
            n_subjects,
            tr,
            mask_img,
            random_state,
            progress,
        )
        (folder / "truth.json").write_text(json.dumps(_truth(tuning, features) | settings))
        (folder / "dataset.toml").write_text(_dataset_toml(settings))
    return path


def default_data_dir(progress: bool = True, full_size: bool = False) -> Path:
    """The folder that notebooks work on: $GIBLET_DATA, or a simulated data set.

    The simulated one is kept in the user's cache, or among temporary files for a user who has no
    home or may not write to it.

    With `full_size` the simulated brains have the 85,810 voxels of the full-size model: two
    subjects, one run.
    """
    if "GIBLET_DATA" in os.environ:
        return expanded(os.environ["GIBLET_DATA"])
    cache = _user_cache()
    if not full_size:
        return simulate_dataset(cache / f"simulated-v{VERSION}", progress=progress)
    brains = {"n_subjects": 2, "run_trs": (240,), "resolution_mm": 3, "n_voxels": 85_810}
    return simulate_dataset(cache / f"simulated-full-size-v{VERSION}", **brains, progress=progress)


def _user_cache() -> Path:
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "giblet"
    with suppress(RuntimeError, OSError):
        cache = Path.home() / ".cache" / "giblet"
        check_writable(cache)
        return cache
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"giblet{user}"


def _check_same(path: Path, settings: dict) -> None:
    found = None
    with suppress(FileNotFoundError, ValueError):  # not there, or no TOML
        found = tomllib.loads((path / "dataset.toml").read_text()).get("simulation")
    if found != settings:
        raise ValueError(
            f"{path} holds "
            f"{'a data set simulated with ' + str(found) if found else 'other files'}, expected "
            f"nothing or one simulated with {settings}: choose another folder or remove this one."
        )


def _dataset_toml(settings: dict) -> str:
    runs = range(1, len(settings["run_trs"]) + 1)
    lines = [
        "# SIMULATED data: drawn film, planted brains. See truth.json for what is planted.",
        f"tr = {settings['tr']}",
        f"run_trs = {settings['run_trs']}",
        f"lag_trs = {LAG_TRS}  # TRs by which the BOLD in the files still lags the movie",
        "movies = [" + ", ".join(f'"movie_run-{run}.mp4"' for run in runs) + "]",
        'annotations = "annotations.xlsx"',
        'text_columns = ["Narration"]',
        'fmri = "sub-*.nii.gz"',
        'mask = "mask.nii.gz"',
        "",
        "[simulation]",
        *(f"{name} = {value}" for name, value in settings.items()),
    ]
    return "\n".join(lines) + "\n"


def _write_movies(
    folder: Path, run_trs: tuple[int, ...], tr: float, random_state: int, progress: bool
) -> tuple:
    """Write one movie a run; return each run's scenes, and what was in it TR by TR."""
    n_frames = sum(math.ceil(n_trs * tr * film.FPS) for n_trs in run_trs)
    with (
        tqdm(total=n_frames, desc="simulated film", unit="frame", disable=not progress) as bar,
        ThreadPoolExecutor() as pool,  # encoding one run leaves Python free to draw the other
    ):
        jobs = [
            pool.submit(
                _write_run, folder / f"movie_run-{run}.mp4", n_trs, tr, (random_state, run), bar
            )
            for run, n_trs in enumerate(run_trs, start=1)
        ]
        return tuple(zip(*(job.result() for job in jobs), strict=True))


def _write_run(
    path: Path, n_trs: int, tr: float, seed: tuple[int, int], bar: tqdm
) -> tuple[list[film.Scene], dict[str, np.ndarray]]:
    """Return the scenes, and what drives brains in each TR.

    {'pictures': (n_trs, n_channels, n_pixels), 'sound': (n_trs, n_mels), 'meaning': (n_trs,
    n_meanings), 'place': (n_trs, n_places)}; of the last two, the share of each TR.
    """
    rng = np.random.default_rng(seed)
    n_frames = math.ceil(n_trs * tr * film.FPS)
    scenes = film.write_script(n_frames, rng)
    sound = record_sound(scenes, rng)
    tr_of_frame = (np.arange(n_frames) / film.FPS / tr).astype(int).clip(max=n_trs - 1)
    maps = np.zeros((n_trs, *MAPS_SHAPE), np.float32)

    def frames():
        previous = None
        for index, frame in enumerate(draw_frames(scenes)):
            if index % SEEN_EVERY == 0:
                maps[tr_of_frame[index]] += picture_maps(
                    frame, frame if previous is None else previous
                )
                previous = frame
            bar.update()
            yield frame

    write_movie(path, frames(), film.FPS, sound, RATE)
    maps /= np.bincount(tr_of_frame[::SEEN_EVERY])[:, None, None]
    features = {"pictures": maps, "sound": log_power(sound, n_trs, tr)}
    scene_of_frame = np.repeat(np.arange(len(scenes)), [scene.n_frames for scene in scenes])
    names = list(film.MEANINGS)
    shown = {"meaning": [names.index(scene.meaning) for scene in scenes]}
    shown["place"] = [scene.place for scene in scenes]
    for name, n_kinds in (("meaning", len(names)), ("place", len(film.PLACES))):
        share = np.zeros((n_trs, n_kinds))
        np.add.at(share, (tr_of_frame, np.array(shown[name])[scene_of_frame]), 1)
        features[name] = share / np.bincount(tr_of_frame)[:, None]
    return scenes, features


def _write_annotations(path: Path, scripts: tuple, run_trs: tuple[int, ...], tr: float) -> None:
    """Write the annotation sheet, with one row per scene.

    TRs are 1-based and inclusive over both runs, seconds count from each run's start.
    """
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(
        [
            "Segment Number",
            "Start Time (s)",
            "End Time (s)",
            f"Start Time (TRs, {tr}s)",
            f"End Time (TRs, {tr}s)",
            "Narration",
        ]
    )
    number = 0
    first_tr = 0
    for scenes, n_trs in zip(scripts, run_trs, strict=True):
        cuts = np.cumsum([0] + [scene.n_frames for scene in scenes]) / film.FPS
        edges = first_tr + np.round(cuts / tr).astype(
            int
        )  # a TR belongs to the scene that holds its middle
        for index, scene in enumerate(scenes):
            number += 1
            tr_range = (int(edges[index]) + 1, int(edges[index + 1]))
            sheet.append(
                [number, float(cuts[index]), float(cuts[index + 1]), *tr_range, scene.narration]
            )
        first_tr += n_trs
    book.save(path)


def _brain_mask(resolution_mm: int, n_voxels: int | None) -> nib.Nifti1Image:
    mask_img = load_mni152_brain_mask(resolution=resolution_mm)
    mask = np.asarray(mask_img.dataobj) > 0
    if n_voxels is not None:
        depth = distance_transform_edt(mask) - distance_transform_edt(~mask)
        deepest = np.argsort(-depth, axis=None, kind="stable")[:n_voxels]
        mask = np.isin(np.arange(mask.size), deepest).reshape(mask.shape)
    return nib.Nifti1Image(mask.astype(np.uint8), mask_img.affine)


def _write_brains(
    folder: Path,
    features: tuple[dict[str, np.ndarray], ...],
    n_subjects: int,
    tr: float,
    mask_img: nib.Nifti1Image,
    random_state: int,
    progress: bool,
) -> dict[str, Tuning]:
    """Write a NIfTI file per subject; return the tuning of the planted networks."""
    mask = np.asarray(mask_img.dataobj) > 0
    nib.save(mask_img, folder / "mask.nii.gz")
    rng = np.random.default_rng((random_state, 0))
    tuning = tune(seitzman_networks(mask_img), voxel_coordinates(mask_img), rng)
    bold = {}
    for name in ("pictures", "sound", "meaning"):
        runs = [run[name] - run[name].mean(0) for run in features]
        convolved = [convolve_hrf(x.reshape(len(x), -1), tr).reshape(x.shape) for x in runs]
        bold[name] = np.concatenate(convolved)
    run_lengths = [len(run["sound"]) for run in features]

    def write(subject: int) -> None:
        own = np.random.default_rng((random_state, 0, subject))
        values = np.concatenate([_noise(n_trs, mask, own) for n_trs in run_lengths])
        values *= NOISE_SD
        for network in tuning.values():
            values[:, network.voxels] += network.of_subject(own).responses(bold)
        volume = np.zeros((*mask.shape, len(values)), np.int16)
        volume[mask] = np.round(BASELINE + UNITS_PER_SD * values.T)
        image = nib.Nifti1Image(volume, mask_img.affine)
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        nib.save(image, folder / f"sub-{subject:02d}.nii.gz")

    subjects = range(1, n_subjects + 1)
    with ThreadPoolExecutor(2) as pool:
        bar = tqdm(pool.map(write, subjects), "simulated brains", n_subjects, disable=not progress)
        list(bar)
    return tuning


def _truth(tuning: dict[str, Tuning], features: tuple[dict[str, np.ndarray], ...]) -> dict:
    """What is planted: networks, places TR by TR, and the tuning of voxels."""
    places = np.concatenate([run["place"].argmax(1) for run in features])
    voxels = {}
    for name, network in tuning.items():
        table = {"voxel": network.voxels.tolist()}
        if "pictures" in network.sources:
            channels = list(CHANNELS)
            table["tuned_to"] = [channels[index] for index in network.channel]
            shares = {"x": network.x / film.ASPECT, "y": network.y, "size": network.size}
            table |= {key: np.round(values, 4).tolist() for key, values in shares.items()}
        if "sound" in network.sources:
            table["hz"] = np.round(network.hz, 1).tolist()
        voxels[name] = table
    return {
        "planted": PLANTED,
        "lag_trs": LAG_TRS,
        "place_names": [name for name, *_ in film.PLACES],
        "place": places.tolist(),
        "voxels": voxels,
    }


def _noise(n_trs: int, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Autocorrelated (AR .4) noise of SD 1: (n_trs, n_voxels) float32.

    Half of it is spatially smooth.
    """
    white = rng.standard_normal((n_trs + 20, *mask.shape), dtype=np.float32)
    smooth = gaussian_filter(white, (0, 1, 1, 1))[:, mask]
    noise = (white[:, mask] + smooth / smooth.std()) * np.float32(np.sqrt(0.5))
    noise = lfilter(np.float32([np.sqrt(1 - 0.4**2)]), np.float32([1, -0.4]), noise, axis=0)[20:]
    return noise / noise.std()
