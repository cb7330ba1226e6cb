"""What a data folder holds, from its headers alone: what was found, and what was inferred."""

import numpy as np
import pandas as pd

from giblet.data.folder import DataFolder
from giblet.data.movie import stated_seconds
from giblet.data.segments import read_segments
from giblet.images import load_series

N_SHOWN = 60  # letters of the first words


def describe_folder(folder: DataFolder) -> str:
    """Subjects, runs, films, words, voxels and cleaning of a folder, and what was found out.

    No series and no picture is read, so that it takes seconds; the words are.
    """
    said: list[str] = []
    image = load_series(folder.series[0])
    sizes = " x ".join(f"{size:.3g}" for size in image.header.get_zooms()[:3])
    minutes = sum(folder.run_trs) * folder.tr / 60
    lines = [
        f"{folder.label}{folder.path}: {len(folder.subjects)} subjects, {len(folder.run_trs)} "
        f"runs, {minutes:.1f} min with a TR of {folder.tr:g} s",
        _runs(folder).to_string(),
        f"voxels: {' x '.join(map(str, image.shape[:3]))} of {sizes} mm, {_mask(folder)}",
        f"lag: BOLD is read {folder.lag_trs} TRs ({folder.lag_trs * folder.tr:g} s) after the film",
        f"cleaning: {folder.cleaning}",
        _words(folder, said),
    ]
    lines += [
        f"{name} features: {', '.join(file.name for file in made.files)}"
        for name, made in folder.features.items()
    ]
    found = [*folder.inferred, *said]
    return "\n".join([*filter(None, lines), "", "found out, not given:", *(found or ["nothing"])])


def _runs(folder: DataFolder) -> pd.DataFrame:
    """A row a run: its TRs, its film and how many people it was measured in."""
    rows = []
    for run, n_trs in enumerate(folder.run_trs):
        pieces = [folder.pieces(name) for name in folder.subjects]
        measured = [own[run if len(own) > 1 else 0].path is not None for own in pieces]
        row = {"TRs": n_trs, "seconds": round(n_trs * folder.tr, 1)}
        if folder.movies:
            movie = folder.movies[run if len(folder.movies) > 1 else 0]
            row |= {"film": movie.name, "seconds of film": round(stated_seconds(movie), 1)}
        rows.append(row | {"subjects": int(np.sum(measured))})
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="run"))


def _mask(folder: DataFolder) -> str:
    if not folder.masks:
        return "those of the MNI152 brain and a margin"
    if len(folder.masks) == 1:
        return f"those of {folder.masks[0].name}"
    return f"those common to {len(folder.masks)} brain masks"


def _words(folder: DataFolder, said: list[str]) -> str:
    if not folder.annotations:
        return ""
    segments = read_segments(
        folder.annotations, folder.text_columns, folder.run_trs, folder.tr, said.append
    )
    n_trs = len({tr for segment in segments for tr in range(segment.start, segment.stop)})
    names = ", ".join(file.name for file in folder.annotations)
    first = segments[0].text
    shown = first if len(first) <= N_SHOWN else f"{first[:N_SHOWN]}..."
    return (
        f"words: {len(segments)} segments in {names}, in {n_trs} of {sum(folder.run_trs)} TRs; the "
        f"first is {shown!r} from TR {segments[0].start}"
    )
