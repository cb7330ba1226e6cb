"""A simulated movie data set with planted truth, written as real files.

Everything that notebooks and tests assert is planted here: which networks follow which part of the
film, and the lag. It is simulated, and is called so wherever it appears.
"""

import json
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
from giblet.data.audio import FLOOR, mel_power
from giblet.data.media import write_movie
from giblet.data.simulation import film
from giblet.files import atomic_folder, check_writable, expanded
from giblet.regions import Regions, seitzman_networks

PLANTED = {
    "Visual": ("pictures",),
    "Auditory": ("sound",),
    "DefaultMode": ("meaning",),
    "DorsalAttention": ("pictures", "sound", "meaning"),
}
LAG_TRS = 3  # where the hemodynamic response to one TR peaks, at TR 1.5 s
VERSION = 1  # raise it when the same arguments no longer give the same files
SIGNAL_SD = 0.5
NOISE_SD = 1.0
INDIVIDUAL_SD = 0.3
BASELINE = 1000
UNITS_PER_SD = 20


def simulate_dataset(
    path: str | Path,
    n_subjects: int = 6,
    run_trs: tuple[int, ...] = (240, 240),
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
        _write_brains(
            folder,
            features,
            n_subjects,
            tr,
            mask_img,
            np.random.default_rng((random_state, 0)),
            progress,
        )
        (folder / "truth.json").write_text(
            json.dumps({"planted": PLANTED, "lag_trs": LAG_TRS} | settings, indent=2)
        )
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
    n_frames = sum(round(n_trs * tr * film.FPS) for n_trs in run_trs)
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
) -> tuple[list, dict]:
    """Return the scenes, and what drives brains in each TR.

    {'pictures': (n_trs, 12), 'sound': (n_trs, 4), 'meaning': (n_trs, 4)}.
    """
    rng = np.random.default_rng(seed)
    n_frames = round(n_trs * tr * film.FPS)
    scenes = film.write_script(n_frames, rng)
    sound = film.record_sound(scenes, rng)
    tr_of_frame = (np.arange(n_frames) / film.FPS / tr).astype(int).clip(max=n_trs - 1)
    light = np.zeros((n_trs, 12))  # mean light in 3 x 4 parts of the picture

    def frames():
        for index, frame in enumerate(film.draw_frames(scenes)):
            parts = frame[::4, ::4].reshape(3, film.HEIGHT // 12, 4, film.WIDTH // 16, 3)
            light[tr_of_frame[index]] += parts.mean((1, 3, 4), dtype=np.float32).ravel()
            bar.update()
            yield frame

    write_movie(path, frames(), film.FPS, sound, film.RATE)
    log_mel = np.log(mel_power(sound, film.RATE, n_trs, tr, n_mels=32, n_frames=1) + FLOOR)
    bands = log_mel.reshape(n_trs, 4, 8).mean(2)  # mean level of 4 parts of the spectrum
    scene_of_frame = np.repeat(np.arange(len(scenes)), [scene.n_frames for scene in scenes])
    meanings = np.array([list(film.MEANINGS).index(scene.meaning) for scene in scenes])
    meaning = np.zeros((n_trs, len(film.MEANINGS)))
    np.add.at(meaning, (tr_of_frame, meanings[scene_of_frame]), 1)
    return scenes, {
        "pictures": light / np.bincount(tr_of_frame)[:, None],
        "sound": bands,
        "meaning": meaning,
    }


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
    features: tuple,
    n_subjects: int,
    tr: float,
    mask_img: nib.Nifti1Image,
    rng: np.random.Generator,
    progress: bool,
) -> None:
    mask = np.asarray(mask_img.dataobj) > 0
    nib.save(mask_img, folder / "mask.nii.gz")
    networks = seitzman_networks(mask_img)
    columns = {}
    for name in (
        "pictures",
        "sound",
        "meaning",
    ):  # BOLD of every feature, run by run, then to mean 0 and SD 1
        bold = np.concatenate([convolve_hrf(run[name] - run[name].mean(0), tr) for run in features])
        columns[name] = (bold - bold.mean(0)) / np.maximum(
            bold.std(0), 1e-9
        )  # what never happens stays 0
    weights = {
        name: rng.standard_normal((bold.shape[1], mask.sum())) for name, bold in columns.items()
    }
    run_lengths = [len(run["sound"]) for run in features]
    for subject in tqdm(
        range(1, n_subjects + 1), "simulated brains", unit="subject", disable=not progress
    ):
        own = {
            name: weight + INDIVIDUAL_SD * rng.standard_normal(weight.shape)
            for name, weight in weights.items()
        }
        bold = SIGNAL_SD * planted_signal(columns, own, networks)
        bold += NOISE_SD * np.concatenate([_noise(n_trs, mask, rng) for n_trs in run_lengths])
        volume = np.zeros((*mask.shape, len(bold)), np.int16)
        volume[mask] = np.round(BASELINE + UNITS_PER_SD * bold.T)
        image = nib.Nifti1Image(volume, mask_img.affine)
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        nib.save(image, folder / f"sub-{subject:02d}.nii.gz")


def planted_signal(columns: dict, weights: dict, networks: Regions) -> np.ndarray:
    """Noise-free responses (n_trs, n_voxels) of SD 1 in the planted networks, 0 elsewhere."""
    n_trs = len(columns["sound"])
    n_voxels = len(networks.labels)
    signal = np.zeros((n_trs, n_voxels))
    for network, sources in PLANTED.items():
        voxels = networks.voxels(network)
        for source in sources:
            response = columns[source] @ weights[source][:, voxels]
            signal[:, voxels] += (
                response / np.maximum(response.std(0), 1e-9) / np.sqrt(len(sources))
            )
    return signal


def _noise(n_trs: int, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Autocorrelated (AR .4) noise of SD about 1.2: (n_trs, n_voxels).

    Half of it is spatially smooth.
    """
    white = rng.standard_normal((n_trs + 20, *mask.shape), dtype=np.float32)
    smooth = gaussian_filter(white, (0, 1, 1, 1))[:, mask]
    noise = (white[:, mask] + smooth / smooth.std()) * np.sqrt(0.5)
    return lfilter([np.sqrt(1 - 0.4**2)], [1, -0.4], noise, axis=0)[20:]
