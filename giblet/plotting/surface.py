"""Values of voxels as maps: on the cortical surface, in slices, as a page that turns."""

import warnings
from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from nilearn.plotting import plot_glass_brain, plot_stat_map, plot_surf_stat_map, view_img_on_surf
from nilearn.surface import SurfaceImage

from giblet.maps import voxel_image
from giblet.plotting.style import DIVERGING, INK, WIDTH, styled

VIEWS = tuple((hemi, view) for hemi in ("left", "right") for view in ("lateral", "medial"))
SLICES_MM = (-24, -8, 8, 24, 40, 56)  # z of MNI152


@styled
def plot_maps(maps: Mapping[str, np.ndarray], mask_img, threshold: float, vmax: float) -> Figure:
    """Maps of (n_voxels,) values on the cortical surface, from four sides.

    Each map has a row and a title; all share one colour scale.
    """
    height = 1 / len(maps)
    figure = Figure(figsize=(WIDTH, 1.75 * len(maps)))
    for row, (title, values) in enumerate(maps.items(), start=1):
        bottom = 1 - row * height
        image = voxel_image(values, mask_img)
        figure.text(0.5, bottom + 0.91 * height, title, ha="center")
        draw_surface(
            image, figure, bottom + 0.02 * height, 0.82 * height, threshold=threshold, vmax=vmax
        )
    return figure


def draw_surface(
    stat_map, figure: Figure, bottom: float, height: float, threshold: float, vmax: float
) -> None:
    """Draw a volume on fsaverage5 across a figure, with one colour bar.

    Lateral and medial view of each hemisphere.
    """
    mesh = load_fsaverage("fsaverage5")
    sulci = load_fsaverage_data(data_type="sulcal")
    # Two greys, as on a flat map: many more only make the file large.
    for part in sulci.data.parts.values():
        part[:] = np.where(part > 0, 0.6, 0.35)
        part[:2] = 0, 1  # the ends of the grey scale
    surface = SurfaceImage.from_volume(mesh["pial"], stat_map)
    look = {"threshold": threshold, "vmin": -vmax, "vmax": vmax, "cmap": DIVERGING}
    for position, (hemi, view) in enumerate(VIEWS):
        ax = figure.add_axes((0.01 + 0.225 * position, bottom, 0.23, height), projection="3d")
        plot_surf_stat_map(
            surf_mesh=mesh["inflated"],
            stat_map=surface,
            bg_map=sulci,
            hemi=hemi,
            view=view,
            axes=ax,
            figure=figure,
            colorbar=False,
            **look,
        )
        ax.set_box_aspect(ax.get_box_aspect(), zoom=1.5)
        ax.set_title(f"{hemi}, {view}", fontsize="small", y=0.92)
    _colour_bar(figure, vmax, (0.925, bottom + 0.2 * height, 0.012, 0.6 * height))


def _colour_bar(figure: Figure, vmax: float, place: tuple[float, float, float, float]) -> None:
    colours = ScalarMappable(Normalize(-vmax, vmax), DIVERGING)
    ticks = np.linspace(-vmax, vmax, 5)
    bar = figure.colorbar(colours, cax=figure.add_axes(place), ticks=ticks, format="%.2g")
    bar.ax.tick_params(labelsize="small")
    bar.ax.set_title("r")


@styled
def plot_volume(values: np.ndarray, mask_img, title: str, threshold: float, vmax: float) -> Figure:
    """(n_voxels,) values on a glass brain and in slices of the MNI152 brain.

    The glass brain shows the value farthest from 0 along each line of sight. The colour scale is
    that of `plot_maps`, and wider where values lie beyond `vmax`.
    """
    figure = Figure(figsize=(WIDTH, 3.9))
    figure.suptitle(title)
    image = voxel_image(values, mask_img)
    vmax = max(vmax, float(np.nanmax(np.abs(values))))
    look = {"threshold": threshold, "vmax": vmax, "cmap": DIVERGING, "colorbar": False}
    look |= {"figure": figure, "annotate": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask")  # where nothing is above the threshold
        glass = plot_glass_brain(
            image, display_mode="lyrz", plot_abs=False, axes=(0.01, 0.45, 0.89, 0.45), **look
        )
        slices = plot_stat_map(
            image,
            display_mode="z",
            cut_coords=SLICES_MM,
            axes=(0.01, 0.02, 0.89, 0.4),
            **look,
        )
    for display in (glass, slices):
        display.annotate(size=9, color=INK)
    _clear(figure)
    _colour_bar(figure, vmax, (0.925, 0.25, 0.012, 0.5))
    return figure


def _clear(figure: Figure) -> None:
    """Take away the white of nilearn's slices and labels, and the black of its outlines."""
    for ax in figure.axes:
        ax.patch.set_alpha(0)
        for outline in ax.patches:
            outline.set_edgecolor(INK)
        for text in ax.texts:
            text.set_bbox(None)


def view_map(values: np.ndarray, mask_img, title: str, threshold: float, vmax: float):
    """The same map as a page that turns under the mouse: several megabytes.

    Show it, or `.save_as_html(file)`.
    """
    image = voxel_image(values, mask_img)
    return view_img_on_surf(
        image,
        threshold=threshold,
        vmax=vmax,
        symmetric_cmap=True,
        cmap=DIVERGING,
        title=title,
        title_fontsize=14,
    )
