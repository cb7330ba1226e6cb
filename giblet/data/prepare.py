"""Features of a whole data folder, computed once and kept as memory maps."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.lib.format import open_memmap
from tqdm.auto import tqdm

from giblet.alignment import gap_trs, split_trs
from giblet.data.audio import AudioProcessor, read_sound
from giblet.data.fmri import FMRIProcessor
from giblet.data.folder import DataFolder
from giblet.data.text import TextProcessor, read_segments
from giblet.data.video import VideoProcessor
from giblet.files import atomic_folder

CACHE_VERSION = 1  # raise it when the same settings no longer give the same arrays
VOXEL_BLOCK = 8192


def prepare(
    folder: DataFolder,
    video: VideoProcessor,
    audio: AudioProcessor,
    text: TextProcessor,
    fmri: FMRIProcessor,
    fractions: tuple[float, float, float],
    cache_dir: Path,
    progress: bool = True,
) -> Path:
    """Prepare every modality of `folder` on the movie's TR grid, or find it in the cache.

    Returns
    -------
    Path
        A folder of `video.npy` (n_trs, video_dim) uint8, `audio.npy` and `text.npy` (n_trs, n_features) float32,
        `audio_mean.npy`, `audio_sd.npy`, `fmri.npy` (n_subjects, n_trs, n_voxels) float32, `split.npy` (n_trs,)
        and `manifest.json`. Row i of all of them is TR i of the movie; BOLD has been shifted by the lag. It is
        named by a hash of every setting and source file and appears only when it is complete.
    """
    processors = {"video": video, "audio": audio, "text": text, "fmri": fmri}
    settings = {name: asdict(processor) for name, processor in processors.items()}
    settings["audio"] = {name: settings["audio"][name] for name in ("n_features", "tr")}
    settings |= {"cache_version": CACHE_VERSION, "fractions": fractions, "sources": _sources(folder)}
    settings |= {name: getattr(folder, name) for name in ("tr", "run_trs", "lag_trs", "text_columns")}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    if not (cache_dir / key / "manifest.json").is_file():
        with atomic_folder(cache_dir / key) as out:
            covered = _prepare_video(folder, video, out, progress)
            usable = [min(n, n_trs - folder.lag_trs) for n, n_trs in zip(covered, folder.run_trs, strict=True)]
            train = _prepare_split(folder, usable, fractions, out) == "train"
            _prepare_audio(folder, audio, train, out)
            segments = read_segments(folder.annotations, folder.text_columns)
            np.save(out / "text.npy", text.features(segments, sum(folder.run_trs), train))
            _prepare_fmri(folder, fmri, usable, train, out, progress)
            cropped = dict(zip(map(str, folder.movies), np.subtract(folder.run_trs, usable).tolist(), strict=True))
            manifest = {"settings": settings, "cropped_trs": cropped}
            (out / "manifest.json").write_text(json.dumps(manifest, indent=2))
            if progress:
                ends = ", ".join(map(str, cropped.values()))
                print(f"cropped from the end of each run, where movie or lagged BOLD is missing: {ends} TRs")
    return cache_dir / key


def _sources(folder: DataFolder) -> dict[str, str]:
    """A fingerprint of every source file: its size, its time and the hash of its first megabyte."""
    files = [*folder.movies, folder.annotations, folder.mask, *folder.subjects.values()]
    fingerprints = {}
    for file in files:
        stat = file.stat()
        with file.open("rb") as opened:
            digest = hashlib.sha256(opened.read(2**20)).hexdigest()[:16]
        fingerprints[file.name] = f"{stat.st_size}-{stat.st_mtime_ns}-{digest}"
    return fingerprints


def _runs(folder: DataFolder) -> list[slice]:
    stops = np.cumsum(folder.run_trs).tolist()
    return [slice(stop - n_trs, stop) for stop, n_trs in zip(stops, folder.run_trs, strict=True)]


def _prepare_video(folder: DataFolder, video: VideoProcessor, out: Path, progress: bool) -> list[int]:
    shape = (sum(folder.run_trs), video.video_dim)
    features = open_memmap(out / "video.npy", "w+", np.uint8, shape)
    with tqdm(total=shape[0], desc="movie", unit="TR", disable=not progress) as bar:
        covered = [
            video.fill(movie, features[run], tick=bar.update)
            for movie, run in zip(folder.movies, _runs(folder), strict=True)
        ]
    features.flush()
    return covered


def _prepare_split(folder: DataFolder, usable: list[int], fractions: tuple, out: Path) -> np.ndarray:
    labels = np.full(sum(folder.run_trs), "cropped", dtype="<U7")
    kept = split_trs(usable, fractions, gap_trs(folder.tr))
    for run, block in zip(_runs(folder), np.split(kept, np.cumsum(usable)[:-1]), strict=True):
        labels[run.start : run.start + len(block)] = block
    np.save(out / "split.npy", labels)
    return labels


def _prepare_audio(folder: DataFolder, audio: AudioProcessor, train: np.ndarray, out: Path) -> None:
    runs = zip(folder.movies, folder.run_trs, strict=True)
    features = np.concatenate([audio.features(read_sound(movie), n_trs) for movie, n_trs in runs])
    mean, sd = features[train].mean(0), features[train].std(0)
    sd = np.where(sd > 1e-6, sd, 1).astype(np.float32)  # a silent band stays 0
    for name, array in {"audio": (features - mean) / sd, "audio_mean": mean, "audio_sd": sd}.items():
        np.save(out / f"{name}.npy", array)


def _prepare_fmri(
    folder: DataFolder, fmri: FMRIProcessor, usable: list[int], train: np.ndarray, out: Path, progress: bool
) -> None:
    mask_img = nib.load(folder.mask)
    n_trs, n_voxels = sum(folder.run_trs), int((np.asarray(mask_img.dataobj) > 0).sum())
    aligned = open_memmap(out / "fmri.npy", "w+", np.float32, (len(folder.subjects), n_trs, n_voxels))
    with tqdm(total=len(folder.subjects) * n_trs, desc="brains", unit="TR", disable=not progress) as bar:
        for subject, path in zip(aligned, folder.subjects.values(), strict=True):
            fmri.fill(path, mask_img, subject, bar.update)
            for run, n_usable in zip(_runs(folder), usable, strict=True):
                rows = slice(run.start, run.start + n_usable)
                lagged = slice(rows.start + folder.lag_trs, rows.stop + folder.lag_trs)
                for start in range(0, n_voxels, VOXEL_BLOCK):
                    block = slice(start, start + VOXEL_BLOCK)
                    subject[rows, block] = fmri.standardize(subject[lagged, block], train[rows])
                subject[rows.stop : run.stop] = 0
    aligned.flush()
