"""What a prepared cache was made of, by which it is named and found again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import av
import nibabel as nib
import numpy as np

from giblet.alignment.splits import Splitting
from giblet.data.audio import AudioProcessor
from giblet.data.cleaning import existing_confounds
from giblet.data.fmri import FMRIProcessor
from giblet.data.folder import DataFolder
from giblet.data.provenance import fingerprint_file
from giblet.data.text import TextProcessor
from giblet.data.video import VideoProcessor

CACHE_VERSION = 7  # raise it when the same settings no longer give the same arrays
CLOCK = ("tr", "run_trs", "lag_trs", "skip_trs", "text_columns")


@dataclass(frozen=True)
class Processors:
    """What turns the files of each modality into features.

    None where there are none, or where their features were made elsewhere.
    """

    video: VideoProcessor | None
    audio: AudioProcessor | None
    text: TextProcessor | None
    fmri: FMRIProcessor

    @classmethod
    def of_folder(
        cls,
        folder: DataFolder,
        video: VideoProcessor | None,
        audio: AudioProcessor | None,
        text: TextProcessor | None,
    ) -> "Processors":
        """Those that a folder has files for, by default of the full-size model."""
        made = folder.features
        heard = folder.movies and "audio" not in made
        seen = folder.movies and "video" not in made
        read = folder.annotations and "text" not in made
        audio = replace(audio or AudioProcessor(), tr=folder.tr, mean=None, sd=None)
        text = replace(text or TextProcessor(), annotations=(), embeddings=None)
        return cls(
            replace(video or VideoProcessor(), tr=folder.tr) if seen else None,
            audio if heard else None,
            text if read else None,
            FMRIProcessor(folder.tr, cleaning=folder.cleaning),
        )


def write_manifest(folder: DataFolder, settings: dict, found: dict, out: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    versions = {"numpy": np.__version__, "av": av.__version__, "nibabel": nib.__version__}
    manifest = {"settings": settings, "sizes": sizes, "versions": versions, **found}
    manifest["data"] = _facts(folder)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2))


def read_manifest(cache: Path) -> dict:
    """Settings, sizes, versions, annotations, and what was said while preparing."""
    return json.loads((cache / "manifest.json").read_text())


def shared_part(
    out: Path, name: str, settings: dict, files: Iterable[str], make: Callable[[], dict]
) -> dict:
    """Files of a cache that depend on few of its settings: those of another cache, or made anew.

    They are linked, so that both caches hold them and the disk does once; either may be deleted.

    Parameters
    ----------
    out : folder that is being prepared, beside the other caches
    settings : dict
        All that the files depend on.
    make : callable
        Writes the files into `out` and returns what is to be recorded of them.

    Returns
    -------
    dict
        What was recorded, and the `key` by which other caches find it.
    """
    key = hash_of_settings(settings)
    for other in sorted(out.parent.glob("[!.]*/manifest.json")):
        try:
            manifest = read_manifest(other.parent)
            record = manifest["parts"][name]
            if record["key"] == key and is_whole(other.parent, other.parent.name):
                for file in files:
                    os.link(other.parent / file, out / file)
                return record
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or on a disk without links
            for file in files:
                (out / file).unlink(missing_ok=True)
    return make() | {"key": key}


def settings_of(folder: DataFolder, processors: Processors, splitting: Splitting) -> dict:
    """Everything that the arrays depend on."""
    audio = processors.audio
    text = processors.text
    files = _sources(folder)
    for weights in (audio and audio.codec, text and text.model):
        if weights and os.path.isdir(weights):  # else it is the name of weights on a hub
            files += sorted(Path(weights).glob("**/*"))
    sources = {str(file): _fingerprint(file) for file in files if file.is_file()}
    return {
        "cache_version": CACHE_VERSION,
        **_clock(folder),
        "video": processors.video and asdict(processors.video),
        "audio": audio and {"kind": audio.kind, "tr": audio.tr, "codec": audio.codec},
        "text": text and {"model": text.model, "n_features": text.n_features},
        "fmri": {"tr": processors.fmri.tr},
        **{name: list(values) for name, values in asdict(splitting).items()},
        "sources": {name.removeprefix(f"{folder.path}/"): value for name, value in sources.items()},
    }


def settings_of_film(settings: dict, folder: DataFolder) -> dict:
    """Of the settings, those that the frames depend on."""
    names = ("cache_version", "tr", "run_trs", "video")
    return {name: settings[name] for name in names} | _of_files(folder.movies)


def settings_of_brains(
    settings: dict, folder: DataFolder, labels: np.ndarray, usable: list[slice]
) -> dict:
    """Of the settings, those that the responses depend on, and the TRs that are read."""
    names = ("cache_version", "tr", "run_trs", "lag_trs", "pieces", "cleaning", "fmri")
    files = [*folder.masks, *folder.series, *_confounds(folder)]
    split = hashlib.sha256("".join(labels).encode()).hexdigest()
    rows = [[run.start, run.stop] for run in usable]
    told = {name: settings[name] for name in names} | _of_files(files)
    return told | {"split": split, "usable": rows}


def _of_files(files: Iterable[Path]) -> dict:
    return {"files": [[str(file), _fingerprint(file)] for file in files]}


def _clock(folder: DataFolder) -> dict:
    """How the files of a folder are read, in plain values."""
    features = {
        name: {"rate": made.rate, "offset": made.offset, "key": made.key}
        for name, made in folder.features.items()
    }
    pieces = {
        name: [[piece.path is not None, piece.trs.start, piece.trs.stop] for piece in pieces]
        for name, pieces in ((name, folder.pieces(name)) for name in folder.subjects)
    }
    told = {name: getattr(folder, name) for name in CLOCK}
    return told | {"cleaning": asdict(folder.cleaning), "features": features, "pieces": pieces}


def _sources(folder: DataFolder) -> list[Path]:
    made = chain.from_iterable(features.files for features in folder.features.values())
    files = [*folder.movies, *folder.annotations, *made, *folder.masks, *folder.series]
    return list(dict.fromkeys([*files, *_confounds(folder)]))


def _confounds(folder: DataFolder) -> list[Path]:
    """The tables of confounds that cleaning reads, and what describes them."""
    if not folder.cleaning.confounds:
        return []
    tables = [existing_confounds(series, folder.cleaning) for series in folder.series]
    files = chain.from_iterable((table, table.with_suffix(".json")) for table in tables)
    return [file for file in files if file.is_file()]


def _facts(folder: DataFolder) -> dict:
    """What the data are, wherever they lie: see `MultimodalDataset.provenance`."""
    files = _sources(folder)
    found = {str(file).removeprefix(f"{folder.path}/"): fingerprint_file(file) for file in files}
    return _clock(folder) | {"files": found}


def _fingerprint(file: Path) -> str:
    """A file's size, its time and the hash of its first megabyte."""
    stat = file.stat()
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(2**20)).hexdigest()[:16]
    return f"{stat.st_size}-{stat.st_mtime_ns}-{digest}"


def hash_of_settings(settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def is_whole(cache: Path, key: str) -> bool:
    """Whether a cache is what its name says, with every file at its full size."""
    try:
        manifest = read_manifest(cache)
        sizes = {name: (cache / name).stat().st_size for name in manifest["sizes"]}
        told = manifest.keys() >= {"data", "annotations", "present", "said"}
        return told and hash_of_settings(manifest["settings"]) == key and sizes == manifest["sizes"]
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename} cannot be read ({error.strerror}): ask its owner for the right, or "
            "choose another cache with --cache-dir (in Python cache_dir)."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
