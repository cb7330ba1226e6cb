"""Figures of a data set: the film, its words, the brains, the lag and the split."""

import tempfile
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from IPython.display import Video
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from nilearn.plotting import plot_surf_roi
from nilearn.surface import SurfaceImage

from giblet.data import MultimodalDataset, VideoProcessor
from giblet.data.audio import RATE, read_sound
from giblet.data.media import write_movie
from giblet.maps import voxel_image
from giblet.plotting.media import film_of
from giblet.plotting.style import BESIDE, COLOURS, INK, WIDTH, styled
from giblet.plotting.surface import VIEWS
from giblet.regions import Regions

MOST_WORDS = 3  # stills next to each other with room for their words
SPLIT_COLOURS = {
    "train": COLOURS[0],
    "val": COLOURS[1],
    "test": COLOURS[2],
    "gap": "#79797955",
    "cropped": INK,
}


def embed_clip(movie: str | Path, seconds: float = 12.0, width: int = 256) -> Video:
    """The beginning of a movie with its sound, small, inside the notebook."""
    processor = VideoProcessor(
        height=round(width * 9 / 16), width=width, frame_skip=1, colour=True, tr=seconds
    )
    frames = np.zeros((1, processor.video_dim), np.uint8)
    processor.fill(movie, frames)
    sound = read_sound(movie)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        frames = frames.reshape(-1, *processor.frame_shape)
        write_movie(
            clip, frames, 25, None if sound is None else sound[: round(seconds * RATE)], RATE
        )
        return Video(data=clip.read_bytes(), embed=True, mimetype="video/mp4", width=2 * width)


@styled
def plot_words(dataset: MultimodalDataset, trs: Sequence[int]) -> Figure:
    """Stills of some TRs of the movie, with the annotations nearest to their text.

    The model gets the same frames.
    """
    video = film_of(dataset)
    n_lines = -(-len(trs) // MOST_WORDS)
    figure = Figure(figsize=(WIDTH, 0.3 + 1.95 * n_lines), layout="constrained")
    figure.suptitle(dataset.label.removesuffix(": "))
    axes = figure.subplots(n_lines, -(-len(trs) // n_lines), squeeze=False).ravel()
    for ax in axes[len(trs) :]:
        ax.axis("off")
    for ax, tr in zip(axes, trs, strict=False):
        item = dataset[int(np.flatnonzero(dataset.tr_index == tr)[0])]
        own = dataset.without_context("video", item["video"][None])
        frames = own.numpy().reshape(-1, *video.frame_shape)
        ax.imshow(frames[0], cmap="gray", vmin=0, vmax=1)
        if "text" in dataset.present and dataset.text_processor is not None:
            text = dataset.without_context("text", item["text"][None])
            ((words, _),) = dataset.text_processor.features_to_text(text)[0]
            ax.set_xlabel(_wrapped(words), fontsize="small")
        ax.set_title(f"TR {tr}", fontsize="small")
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def _wrapped(words: str, width: int = 30, n_lines: int = 4) -> str:
    """At most four lines of an annotation."""
    return "\n".join(textwrap.wrap(words, width, max_lines=n_lines, placeholder="…"))


@styled
def plot_regions(regions: Regions, mask_img, names: Sequence[str], title: str = "") -> Figure:
    """Some regions on fsaverage5, a colour each."""
    figure = Figure(figsize=(WIDTH, 2.3))
    mesh = load_fsaverage("fsaverage5")
    sulci = load_fsaverage_data(data_type="sulcal")
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    values = sum((index + 1) * regions.voxels(name) for index, name in enumerate(names))
    volume = voxel_image(values, mask_img)
    surface = SurfaceImage.from_volume(mesh["pial"], volume, interpolation="nearest_most_frequent")
    for part in surface.data.parts.values():
        part[part == 0] = np.nan  # no region: the sulci show
    look = {"cmap": ListedColormap(colours), "vmin": 0.5, "vmax": len(names) + 0.5}
    for position, (hemi, view) in enumerate(VIEWS):
        ax = figure.add_axes((0.01 + 0.245 * position, 0.13, 0.245, 0.72), projection="3d")
        plot_surf_roi(
            surf_mesh=mesh["inflated"],
            roi_map=surface,
            bg_map=sulci,
            hemi=hemi,
            view=view,
            axes=ax,
            figure=figure,
            colorbar=False,
            **look,
        )
        ax.set_box_aspect(ax.get_box_aspect(), zoom=1.5)
        ax.set_title(f"{hemi}, {view}", fontsize="small", y=0.93)
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=handles, loc="lower center", ncols=len(names))
    figure.suptitle(title)
    return figure


@styled
def plot_lag_curve(
    curves: dict[str, np.ndarray], lags: Sequence[int], tr: float, title: str = ""
) -> Figure:
    """Explained variance of regions by lag: `curves` maps a label to (n_lags,)."""
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    ax = figure.subplots()
    for label, curve in curves.items():
        ax.plot(lags, curve, "o-", ms=4, label=label)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xlabel(f"TRs of {tr} s by which BOLD is read after the film")
    ax.set_ylabel("adjusted R²")
    ax.set_title(title)
    ax.legend(**BESIDE)
    return figure


@styled
def plot_split(dataset: MultimodalDataset) -> Figure:
    """Every TR of every run, coloured by its split."""
    labels = dataset.split_labels
    run_trs = np.bincount(dataset.features.run)
    runs = np.split(np.arange(len(labels)), np.cumsum(run_trs)[:-1])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(run_trs)), layout="constrained")
    ax = figure.subplots()
    for row, run in enumerate(runs):
        edges = np.flatnonzero(np.r_[True, labels[run][1:] != labels[run][:-1], True])
        for start, stop in pairwise(edges):
            ax.barh(row, stop - start, left=start, color=SPLIT_COLOURS[labels[run][start]])
    ax.set_yticks(range(len(run_trs)), [f"run {row + 1}" for row in range(len(run_trs))])
    ax.invert_yaxis()
    ax.set_xlabel(f"TR of the run ({dataset.tr} s each)")
    ax.set_title(dataset.label.removesuffix(": "))
    handles = [Patch(color=colour, label=name) for name, colour in SPLIT_COLOURS.items()]
    ax.legend(handles=handles, **BESIDE)
    return figure
