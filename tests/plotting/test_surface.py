import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_brain_mask

from giblet.plotting.surface import plot_maps, plot_volume, view_map
from giblet.regions import seitzman_networks


def plot_map(values, mask_img, title, threshold, vmax) -> Figure:
    return plot_maps({title: values}, mask_img, threshold, vmax)


@pytest.fixture(scope="module")
def mask_img():
    return load_mni152_brain_mask(resolution=8)


@pytest.fixture(scope="module")
def visual(mask_img) -> np.ndarray:
    return np.where(seitzman_networks(mask_img).voxels("Visual"), 0.5, 0.1)


def picture_of(figure: Figure) -> np.ndarray:
    """(height, width, 4) of 0..255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).astype(int)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is red, left of the colour bar: (height, width)."""
    red, green, blue, _ = np.moveaxis(picture[:, : int(0.9 * picture.shape[1])], -1, 0)
    return red - np.maximum(green, blue) > 80


@pytest.mark.parametrize("plot", [plot_map, plot_volume])
def test_map_shows_what_is_above_the_threshold(mask_img, visual, plot):
    """And nothing hides the page: what is no brain is transparent."""
    figure, nothing = (
        plot(visual, mask_img, "a map", threshold, vmax=0.6) for threshold in (0.2, 0.55)
    )
    above = picture_of(figure)
    assert coloured(above).mean() > 0.002
    assert coloured(picture_of(nothing)).mean() == 0
    texts = {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}
    assert {"a map", "r"} <= texts
    opaque = above[..., 3] > 250
    assert (above[..., 3] == 0).mean() > 0.35
    assert (opaque & (above[..., :3].min(-1) > 250)).mean() < 0.02


def test_rows_share_a_colour_scale(mask_img, visual):
    maps = {"all of it": visual, "a third": visual / 3}
    figure = plot_maps(maps, mask_img, threshold=0.2, vmax=0.6)
    top, bottom = np.array_split(coloured(picture_of(figure)), 2)
    assert top.mean() > 0.002
    assert bottom.mean() == 0


def test_maps_are_small(mask_img, visual, tmp_path):
    three = plot_maps({name: visual for name in "abc"}, mask_img, threshold=0.2, vmax=0.6)
    for figure in (three, plot_volume(visual, mask_img, "a map", 0.2, 0.6)):
        figure.savefig(tmp_path / "map.png")
        assert (tmp_path / "map.png").stat().st_size < 150_000


def test_page_holds_the_map(mask_img, visual, tmp_path):
    page = view_map(visual, mask_img, "SIMULATED data: a map", threshold=0.2, vmax=0.6)
    page.save_as_html(tmp_path / "map.html")
    assert "SIMULATED data: a map" in (tmp_path / "map.html").read_text()
