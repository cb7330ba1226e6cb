"""Features of a whole data folder, computed once and kept as memory maps."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from giblet.alignment.splits import Splitting, label_trs
from giblet.data.arrays import standardised_stimulus
from giblet.data.audio import RATE, AudioProcessor, read_sound
from giblet.data.brains import prepare_brains
from giblet.data.doubts import doubts
from giblet.data.features import (
    STIMULI,
    Features,
    absent,
    mean_response,
    standardisation,
    varies,
)
from giblet.data.fmri import npy_writer
from giblet.data.folder import DataFolder
from giblet.data.manifest import (
    Processors,
    hash_of_settings,
    is_whole,
    settings_of,
    settings_of_brains,
    settings_of_film,
    shared_part,
    write_manifest,
)
from giblet.data.movie import Say, is_sound_alone, stated_seconds
from giblet.data.segments import in_training, read_segments
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor
from giblet.files import alone, atomic_folder, atomic_path, load_array, open_reserved

# A band of sound that hardly changes in training, as one below the quietest sound, is not blown up:
# its SD counts as .4 dB, here in natural logarithms of power.
QUIETEST_SD = 0.1
UNUSED = 0.02  # of a film, and UNUSED_TRS: what may be left over at its end without a word
UNUSED_TRS = 5
ROUNDING = 0.01  # of a TR, by which the stated length of a sound may fall short


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
    settings = settings_of(folder, processors, splitting)
    key = hash_of_settings(settings)
    out = cache_dir / key
    if not is_whole(out, key):
        with alone(out):
            if not is_whole(out, key):
                for rest in (out, *cache_dir.glob(f".{key}-*")):  # of a process that was killed
                    shutil.rmtree(rest, ignore_errors=True)
                with atomic_folder(out) as temporary:
                    found = _prepare(folder, processors, splitting, settings, temporary, progress)
                    write_manifest(folder, settings, found, temporary)
                if progress:
                    print("\n".join(found["said"]))
    return out


def _prepare(
    folder: DataFolder,
    processors: Processors,
    splitting: Splitting,
    settings: dict,
    out: Path,
    progress: bool,
) -> dict[str, list | dict]:
    """Write every array; return what the manifest tells of them.

    This is what is `present`, the `annotations`, what has to be `said`, and the `parts` that other
    caches may share.
    """
    said = list(folder.inferred)
    film, sound, made, covered = _read_stimuli(folder, processors, settings, out, progress, said)
    stop = np.minimum(covered, np.array(folder.run_trs) - folder.lag_trs).tolist()
    labels = label_trs(folder.run_trs, folder.skip_trs, stop, folder.tr, splitting)
    train = labels == "train"
    np.save(out / "split.npy", labels)
    np.save(out / "run.npy", np.repeat(np.arange(len(folder.run_trs)), folder.run_trs))
    said += _said_of_runs(folder, stop, splitting)
    _save_audio(sound, processors.audio, train, out)
    annotations = _prepare_text(folder, processors.text, train, out, said.append)
    for name, features in made.items():
        stored = standardised_stimulus(name, features, train, said.append)
        np.save(out / f"{name}.npy", stored)
    present = _drop_absent(train, out, said)
    runs = zip(folder.runs, stop, strict=True)
    usable = [slice(run.start, run.start + end) for run, end in runs]
    brains = shared_part(
        out,
        "brains",
        settings_of_brains(settings, folder, labels, usable),
        ["fmri.npy", "valid.npy", "mask.nii.gz"],
        lambda: {"said": prepare_brains(folder, processors.fmri, usable, train, out, progress)},
    )
    said += brains["said"]
    said += doubts(Features.load(out), folder.tr, folder.lag_trs)
    once = list(dict.fromkeys(said))  # pictures and sound find the same jumps of a film's clock
    parts = {"film": film, "brains": brains} if "video" in present else {"brains": brains}
    return {"said": once, "present": present, "annotations": annotations, "parts": parts}


def _read_stimuli(
    folder: DataFolder,
    processors: Processors,
    settings: dict,
    out: Path,
    progress: bool,
    said: list[str],
) -> tuple[dict, np.ndarray | None, dict[str, np.ndarray], np.ndarray]:
    """Write the pictures; return what is recorded of them, the sound and features made elsewhere.

    The last are the TRs of each run that all of them cover.
    """
    made, reached = _read_features(folder, said.append)
    said_of_sound: list[str] = []
    with ThreadPoolExecutor(1) as pool:  # hears the movie while its pictures are decoded
        hearing = processors.audio and pool.submit(
            _hear, folder, processors.audio, said_of_sound.append
        )
        film = shared_part(
            out,
            "film",
            settings_of_film(settings, folder),
            ["video.npy"],
            lambda: _prepare_video(folder, processors.video, out, progress),
        )
        sound = hearing and hearing.result()
    said += [*film["said"], *_unused_film(folder), *said_of_sound]
    return film, sound, made, np.min([*reached, film["covered"]], axis=0)


def _said_of_runs(folder: DataFolder, stop: list[int], splitting: Splitting) -> list[str]:
    cropped = ", ".join(str(n - end) for n, end in zip(folder.run_trs, stop, strict=True))
    return [
        f"cropped from the end of each run, where stimulus or lagged BOLD is missing: {cropped} "
        "TRs",
        *(
            f"run {run + 1} is held out as a whole: its BOLD is z-scored by its own mean and SD"
            for run in splitting.test_runs
        ),
    ]


def group_mean(cache: Path, subjects: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean response of some subjects and their variance around it, memory-mapped.

    As `mean_response` gives them.

    Computed once for each choice of subjects and kept in the cache: (n_trs, n_voxels) and (n_trs,),
    float32.
    """
    paths = [cache / f"{name}-{hash_of_settings(subjects)}.npy" for name in ("variance", "mean")]
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


def _movies(folder: DataFolder) -> list[tuple[Path, list[slice]]]:
    """Each movie with the runs it holds."""
    if len(folder.movies) == 1:
        return [(folder.movies[0], folder.runs)]
    if not folder.movies:
        return []
    return [(movie, [run]) for movie, run in zip(folder.movies, folder.runs, strict=True)]


def _read_features(folder: DataFolder, say: Say) -> tuple[dict[str, np.ndarray], list[list[int]]]:
    """Features made elsewhere, and the TRs of each run that each of them covers."""
    read = {
        name: files.read(folder.run_trs, folder.tr, say) for name, files in folder.features.items()
    }
    return (
        {name: features for name, (features, _) in read.items()},
        [covered for _, covered in read.values()],
    )


def _prepare_video(
    folder: DataFolder, video: VideoProcessor | None, out: Path, progress: bool
) -> dict[str, list]:
    """Write the features; return the TRs of each run `covered` by its movie, and what is `said`."""
    if video is None:
        np.save(out / "video.npy", absent(sum(folder.run_trs)))
        return {"covered": list(folder.run_trs), "said": []}
    shape = (sum(folder.run_trs), video.video_dim)
    features = open_reserved(out / "video.npy", np.uint8, shape)
    covered: list[int] = []
    said: list[str] = []
    with tqdm(total=shape[0], desc="movie", unit="TR", disable=not progress) as bar:
        for movie, runs in _movies(folder):
            start = runs[0].start
            frames = features[start : runs[-1].stop]
            stop = start + _fill(video, movie, frames, bar.update, said.append)
            _check_reaches(movie, runs, stop, folder.tr)
            covered += [min(stop, run.stop) - run.start for run in runs]
    features.flush()
    return {"covered": covered, "said": said}


def _fill(video: VideoProcessor, movie: Path, frames: np.ndarray, tick: Callable, say: Say) -> int:
    """Write the frames of a movie, none of sound alone; return the TRs that it covers."""
    if not is_sound_alone(movie):
        return video.fill(movie, frames, tick, say)
    say(f"{movie} is sound without pictures")
    n_trs = min(len(frames), int(stated_seconds(movie) / video.tr + ROUNDING))
    tick(n_trs)
    return n_trs


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


def _save_audio(
    features: np.ndarray | None, audio: AudioProcessor | None, train: np.ndarray, out: Path
) -> None:
    if features is None or audio is None:
        np.save(out / "audio.npy", absent(len(train)))
        return
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
    text: TextProcessor | None,
    train: np.ndarray,
    out: Path,
    say: Callable[[str], object],
) -> list[str]:
    """Write the features; return the annotations."""
    if text is None:
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


def _drop_absent(train: np.ndarray, out: Path, said: list[str]) -> list[str]:
    """Replace what does not vary over the training TRs by nothing; return the names of the rest."""
    present = []
    for name in STIMULI:
        features = np.load(out / f"{name}.npy", mmap_mode="r")
        if varies(features, train):
            present.append(name)
            continue
        del features
        said.append(f"{name} is the same in every training TR: trains without it")
        (out / f"{name}.npy").unlink()  # which another cache may hold as well
        np.save(out / f"{name}.npy", absent(len(train)))
    return present
