"""Features of a whole data folder, computed once and kept as memory maps."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import av
import nibabel as nib
import numpy as np
from tqdm.auto import tqdm

from giblet.alignment.splits import Splitting, label_trs
from giblet.data.audio import RATE, AudioProcessor, read_sound
from giblet.data.features import (
    BLOCK_TRS,
    STIMULI,
    Features,
    absent,
    mean_response,
    standardisation,
    varies,
    zscored,
)
from giblet.data.fmri import FMRIProcessor, Scan, npy_writer, template_mask
from giblet.data.folder import DataFolder
from giblet.data.movie import Say, stated_seconds
from giblet.data.provenance import fingerprint_file
from giblet.data.segments import in_training, read_segments
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor
from giblet.files import alone, atomic_folder, atomic_path, load_array, open_reserved
from giblet.images import load_mask, load_series

CACHE_VERSION = 6  # raise it when the same settings no longer give the same arrays
# A band of sound that hardly changes in training, as one below the quietest sound, is not blown up:
# its SD counts as .4 dB, here in natural logarithms of power.
QUIETEST_SD = 0.1
UNUSED = 0.02  # of a film, and UNUSED_TRS: what may be left over at its end without a word
UNUSED_TRS = 5
CLOCK = ("tr", "run_trs", "lag_trs", "skip_trs", "text_columns")


@dataclass(frozen=True)
class Processors:
    """What turns the files of each modality into features."""

    video: VideoProcessor
    audio: AudioProcessor
    text: TextProcessor
    fmri: FMRIProcessor


def prepare(
    folder: DataFolder,
    processors: Processors,
    splitting: Splitting,
    cache_dir: Path,
    progress: bool = True,
) -> Path:
    """Prepare every modality of `folder` on the movie's TR grid, or find it in the cache.

    Returns
    -------
    Path
        A folder of the arrays of `Features`, `audio_mean.npy`, `audio_sd.npy`, `embeddings.npy`,
        `mask.nii.gz` and `manifest.json`. It is named by a hash of every setting and source file
        and appears only when it is complete; one that is damaged or came from elsewhere is prepared
        anew. Of several processes one prepares and the others wait for it.

    Raises
    ------
    OSError
        One sentence where the cache cannot be read or written.
    """
    settings = _settings(folder, processors, splitting)
    key = _hash(settings)
    out = cache_dir / key
    if not _is_whole(out, key):
        with alone(out):
            if not _is_whole(out, key):
                for rest in (out, *cache_dir.glob(f".{key}-*")):  # of a process that was killed
                    shutil.rmtree(rest, ignore_errors=True)
                with atomic_folder(out) as temporary:
                    found = _prepare(folder, processors, splitting, temporary, progress)
                    _write_manifest(folder, settings, found, temporary)
                if progress:
                    print("\n".join(found["said"]))
    return out


def _prepare(
    folder: DataFolder, processors: Processors, splitting: Splitting, out: Path, progress: bool
) -> dict[str, list[str]]:
    """Write every array; return what is `present`, the `annotations`, and what has to be `said`."""
    said = list(folder.inferred)
    said_of_sound: list[str] = []
    with ThreadPoolExecutor(1) as pool:  # hears the movie while its pictures are decoded
        sound = pool.submit(_hear, folder, processors.audio, said_of_sound.append)
        covered = _prepare_video(folder, processors.video, out, progress, said.append)
    n_movie = zip(covered, folder.run_trs, strict=True)
    stop = [min(n, n_trs - folder.lag_trs) for n, n_trs in n_movie]
    labels = label_trs(folder.run_trs, folder.skip_trs, stop, folder.tr, splitting)
    train = labels == "train"
    np.save(out / "split.npy", labels)
    np.save(out / "run.npy", np.repeat(np.arange(len(folder.run_trs)), folder.run_trs))
    cropped = ", ".join(str(n - end) for n, end in zip(folder.run_trs, stop, strict=True))
    said.append(
        f"cropped from the end of each run, where movie or lagged BOLD is missing: {cropped} TRs"
    )
    said += _unused_film(folder)
    said += said_of_sound
    _save_audio(sound.result(), processors.audio, train, out)
    annotations = _prepare_text(folder, processors.text, train, out, said.append)
    present = _drop_absent(train, out)
    said += [
        f"{name} is the same in every training TR: trains without it"
        for name in STIMULI
        if name not in present
    ]
    said += [
        f"run {run + 1} is held out as a whole: its BOLD is z-scored by its own mean and SD"
        for run in splitting.test_runs
    ]
    runs = zip(folder.runs, stop, strict=True)
    usable = [slice(run.start, run.start + end) for run, end in runs]
    said += _prepare_fmri(folder, processors.fmri, usable, train, out, progress)
    once = list(dict.fromkeys(said))  # pictures and sound find the same jumps of a film's clock
    return {"said": once, "present": present, "annotations": annotations}


def _write_manifest(folder: DataFolder, settings: dict, found: dict, out: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    versions = {"numpy": np.__version__, "av": av.__version__, "nibabel": nib.__version__}
    manifest = {"settings": settings, "sizes": sizes, "versions": versions, **found}
    manifest["data"] = _facts(folder)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2))


def read_manifest(cache: Path) -> dict:
    """Settings, sizes, versions, annotations, and what was said while preparing."""
    return json.loads((cache / "manifest.json").read_text())


def group_mean(cache: Path, subjects: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean response of some subjects and their variance around it, memory-mapped.

    As `mean_response` gives them.

    Computed once for each choice of subjects and kept in the cache: (n_trs, n_voxels) and (n_trs,),
    float32.
    """
    paths = [cache / f"{name}-{_hash(subjects)}.npy" for name in ("variance", "mean")]
    if not all(path.is_file() for path in paths):  # a cache that is whole may be read-only
        with alone(paths[1]):
            if not all(path.is_file() for path in paths):
                _write_group_mean(cache, subjects, *paths)
    remedy = "delete it, and it is computed again"
    return load_array(paths[1], remedy, "r"), load_array(paths[0], remedy)


def _write_group_mean(cache: Path, subjects: list[int], variance_file: Path, file: Path) -> None:
    features = Features.load(cache)
    variance = []
    with atomic_path(file) as temporary:
        with npy_writer(temporary, features.fmri.shape[1:]) as write:
            for mean, row_variance in mean_response(features, subjects):
                write(mean)
                variance.append(row_variance)
        with atomic_path(variance_file) as other:
            np.save(other, np.concatenate(variance).astype(np.float32))


def _settings(folder: DataFolder, processors: Processors, splitting: Splitting) -> dict:
    """Everything that the arrays depend on."""
    audio = processors.audio
    text = processors.text
    files = _sources(folder)
    for weights in (audio.codec, text.model):
        if weights and os.path.isdir(weights):  # else it is the name of weights on a hub
            files += sorted(Path(weights).glob("**/*"))
    sources = {str(file): _fingerprint(file) for file in files if file.is_file()}
    return {
        "cache_version": CACHE_VERSION,
        **{name: getattr(folder, name) for name in CLOCK},
        "video": asdict(processors.video),
        "audio": {"kind": audio.kind, "tr": audio.tr, "codec": audio.codec},
        "text": {"model": text.model, "n_features": text.n_features},
        "fmri": {"tr": processors.fmri.tr},
        **{name: list(values) for name, values in asdict(splitting).items()},
        "sources": {name.removeprefix(f"{folder.path}/"): value for name, value in sources.items()},
    }


def _sources(folder: DataFolder) -> list[Path]:
    series = chain.from_iterable(folder.subjects.values())
    files = [*folder.movies, *folder.annotations, folder.mask, *series]
    return [file for file in files if file is not None]


def _facts(folder: DataFolder) -> dict:
    """What the data are, wherever they lie: see `MultimodalDataset.provenance`."""
    facts = {name: getattr(folder, name) for name in CLOCK}
    files = _sources(folder)
    facts["files"] = {
        str(file).removeprefix(f"{folder.path}/"): fingerprint_file(file) for file in files
    }
    return facts


def _fingerprint(file: Path) -> str:
    """A file's size, its time and the hash of its first megabyte."""
    stat = file.stat()
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(2**20)).hexdigest()[:16]
    return f"{stat.st_size}-{stat.st_mtime_ns}-{digest}"


def _hash(settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _is_whole(cache: Path, key: str) -> bool:
    """Whether a cache is what its name says, with every file at its full size."""
    try:
        manifest = read_manifest(cache)
        sizes = {name: (cache / name).stat().st_size for name in manifest["sizes"]}
        told = manifest.keys() >= {"data", "annotations", "present", "said"}
        return told and _hash(manifest["settings"]) == key and sizes == manifest["sizes"]
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename} cannot be read ({error.strerror}): ask its owner for the right, or "
            "choose another cache with --cache-dir (in Python cache_dir)."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _movies(folder: DataFolder) -> list[tuple[Path, list[slice]]]:
    """Each movie with the runs it holds."""
    if len(folder.movies) == 1:
        return [(folder.movies[0], folder.runs)]
    return [(movie, [run]) for movie, run in zip(folder.movies, folder.runs, strict=True)]


def _prepare_video(
    folder: DataFolder, video: VideoProcessor, out: Path, progress: bool, say: Say
) -> list[int]:
    """Write the features; return the TRs of each run that its movie covers."""
    shape = (sum(folder.run_trs), video.video_dim)
    features = open_reserved(out / "video.npy", np.uint8, shape)
    covered = []
    with tqdm(total=shape[0], desc="movie", unit="TR", disable=not progress) as bar:
        for movie, runs in _movies(folder):
            start = runs[0].start
            stop = start + video.fill(movie, features[start : runs[-1].stop], bar.update, say)
            _check_reaches(movie, runs, stop, folder.tr)
            covered += [min(stop, run.stop) - run.start for run in runs]
    features.flush()
    return covered


def _check_reaches(movie: Path, runs: list[slice], stop: int, tr: float) -> None:
    """Refuse a movie that ends before its last run begins."""
    start = runs[0].start
    missing = [number for number, run in enumerate(runs, start=1) if run.start >= stop]
    if missing:
        begins = (runs[missing[0] - 1].start - start) * tr
        raise ValueError(
            f"{movie} ends after {(stop - start) * tr:g} s, before run {missing[0]} of {len(runs)} "
            f"begins at {begins:g} s, expected film of every run: name one movie a run in movies, "
            "or correct run_trs or tr."
        )


def _unused_film(folder: DataFolder) -> list[str]:
    """Say which movies go on long after their runs, as they do where tr or run_trs is wrong."""
    said = []
    for movie, runs in _movies(folder):
        n_trs = sum(run.stop - run.start for run in runs)
        seconds = stated_seconds(movie)
        surplus = seconds - n_trs * folder.tr
        if surplus > max(UNUSED_TRS * folder.tr, UNUSED * seconds):
            said.append(
                f"{movie} lasts {seconds:.1f} s, but its {n_trs} TRs of {folder.tr:g} s end after "
                f"{n_trs * folder.tr:.1f} s: {surplus:.1f} s of film are left out, so make sure of "
                "tr and run_trs"
            )
    return said


def _hear(folder: DataFolder, audio: AudioProcessor, say: Say) -> np.ndarray:
    """Features of the sound, before they are standardised; say which movies have none."""
    features = []
    for movie, runs in _movies(folder):
        sound = read_sound(movie, say)
        if sound is None:
            say(f"{movie} has no sound: it counts as silent")
        for run in runs:
            start, stop = (
                round((edge - runs[0].start) * folder.tr * RATE) for edge in (run.start, run.stop)
            )
            features.append(
                audio.features(None if sound is None else sound[start:stop], run.stop - run.start)
            )
    return np.concatenate(features)


def _save_audio(features: np.ndarray, audio: AudioProcessor, train: np.ndarray, out: Path) -> None:
    if features.dtype == np.int16:  # codes are names, not amounts
        np.save(out / "audio.npy", features)
        return
    mean, sd = standardisation(features, train)
    if audio.mel_shape is not None:
        sd = np.maximum(sd, QUIETEST_SD)
    for name, array in {
        "audio": (features - mean) / sd,
        "audio_mean": mean,
        "audio_sd": sd,
    }.items():
        np.save(out / f"{name}.npy", array.astype(np.float32))


def _prepare_text(
    folder: DataFolder,
    text: TextProcessor,
    train: np.ndarray,
    out: Path,
    say: Callable[[str], object],
) -> list[str]:
    """Write the features; return the annotations."""
    if not folder.annotations:
        np.save(out / "text.npy", absent(len(train)))
        return []
    names = ", ".join(map(str, folder.annotations))
    segments = read_segments(
        folder.annotations, folder.text_columns, folder.run_trs, folder.tr, say
    )
    if not in_training(segments, train).any():
        raise ValueError(
            f"{names} has no row that touches a training TR, expected one or more: annotate the "
            "training TRs, or leave out annotations."
        )
    embeddings = text.embed(segments, train)
    wordless = int((~embeddings.any(axis=1)).sum())
    if wordless:
        say(f"{names}: embedded annotations without words as 0 ({wordless})")
    np.save(out / "embeddings.npy", embeddings)
    np.save(out / "text.npy", text.features(segments, embeddings, len(train)))
    return [segment.text for segment in segments]


def _drop_absent(train: np.ndarray, out: Path) -> list[str]:
    """Replace what does not vary over the training TRs by nothing; return the names of the rest."""
    present = []
    for name in STIMULI:
        features = np.load(out / f"{name}.npy", mmap_mode="r")
        if varies(features, train):
            present.append(name)
            continue
        del features
        np.save(out / f"{name}.npy", absent(len(train)))
    return present


def _prepare_fmri(
    folder: DataFolder,
    fmri: FMRIProcessor,
    usable: list[slice],
    train: np.ndarray,
    out: Path,
    progress: bool,
) -> list[str]:
    """Read every subject once, find the shared mask, then z-score into it.

    The copy that is read into holds the template's voxels.
    """
    first = load_series(next(iter(folder.subjects.values()))[0])
    mask_img = template_mask(first) if folder.mask is None else load_mask(folder.mask)
    lagged = np.zeros(len(train), bool)  # training TRs in the file's own TRs
    lagged[folder.lag_trs :] = train[: len(train) - folder.lag_trs]
    scans = {}
    with tqdm(
        total=len(folder.subjects) * len(train), desc="brains", unit="TR", disable=not progress
    ) as bar:
        for number, (name, files) in enumerate(folder.subjects.items()):
            raw = out / f"{number}.raw.npy"  # names may hold slashes, or differ only by case
            scans[name] = fmri.scan(files, mask_img, folder.runs, lagged, raw, bar.update)
    shared = np.all([scan.voxels for scan in scans.values()], axis=0)
    if not shared.any():
        worst = min(scans, key=lambda name: scans[name].voxels.sum())
        raise ValueError(
            f"no voxel is finite and varies in every subject, {_shown(folder.subjects[worst])} has "
            f"{scans[worst].voxels.sum()}: mend the mask or leave the subject out."
        )
    mask = np.zeros(mask_img.shape, np.uint8)
    mask[np.asarray(mask_img.dataobj) > 0] = shared
    nib.save(nib.Nifti1Image(mask, mask_img.affine), out / "mask.nii.gz")
    _standardize(scans, shared, usable, folder, out)
    said = [f"{shared.sum()} of {len(shared)} voxels are finite and vary in every subject"]
    for name, scan in scans.items():
        said += scan.sentences(_shown(folder.subjects[name]))
    return said


def _shown(files: tuple[Path, ...]) -> str:
    return " with ".join([str(files[0]), *(file.name for file in files[1:])])


def _standardize(
    scans: dict[str, Scan], shared: np.ndarray, usable: list[slice], folder: DataFolder, out: Path
) -> None:
    """Write `fmri.npy` and `valid.npy`; rows without BOLD are 0."""
    n_trs = sum(folder.run_trs)
    columns = np.flatnonzero(shared)
    valid = np.zeros((len(scans), n_trs), bool)
    with npy_writer(out / "fmri.npy", (len(scans), n_trs, len(columns))) as write:
        for number, scan in enumerate(scans.values()):
            trs = valid[number]
            raw = np.load(out / f"{number}.raw.npy", mmap_mode="r")
            for index, (run, rows) in enumerate(zip(folder.runs, usable, strict=True)):
                mean = scan.mean[index, columns]
                sd = scan.sd[index, columns]
                trs[rows] = scan.trs[rows.start + folder.lag_trs : rows.stop + folder.lag_trs]
                for start in range(rows.start, rows.stop, BLOCK_TRS):
                    stop = min(start + BLOCK_TRS, rows.stop)
                    bold = raw[start + folder.lag_trs : stop + folder.lag_trs][:, columns]
                    write(zscored(bold, mean, sd, trs[start:stop]))
                write(np.zeros((run.stop - rows.stop, len(columns)), np.float32))
            del raw
            (out / f"{number}.raw.npy").unlink()
    np.save(out / "valid.npy", valid)
