import io
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from giblet.plotting.style import COLOURS, DIVERGING, INK, LOOK, styled

WHITE, DARK = "#ffffff", "#111111"  # pages of the light and of the dark theme


def luminance(colour) -> float:
    """Relative luminance of WCAG 2.2."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other) -> float:
    """Contrast ratio of WCAG 2.2, from 1 to 21."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def settings() -> dict:
    return {name: matplotlib.rcParams[name] for name in LOOK}


def test_the_look_is_that_of_the_figure_alone():
    before = settings()
    assert before != LOOK
    assert styled(settings)() == LOOK
    assert settings() == before


def test_styled_keeps_name_and_arguments():
    @styled
    def draw(a: int, b: int = 2) -> tuple[int, int]:
        """Something."""
        return a, b

    assert draw(1, b=3) == (1, 3)
    assert (draw.__name__, draw.__doc__) == ("draw", "Something.")


def test_figures_of_several_threads_leave_the_settings_as_they_were():
    """Each has the look from its begin to its end, whoever else draws."""
    before = settings()
    seen = []

    @styled
    def draw() -> None:
        seen.append(settings())
        styled(settings)()  # figures may be made of others
        seen.append(settings())

    threads = [threading.Thread(target=lambda: [draw() for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert all(look == LOOK for look in seen)
    assert settings() == before


def test_contrast_is_that_of_the_standard():
    assert contrast("white", "black") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("page", [WHITE, DARK])
def test_text_and_data_read_on_both_pages(page):
    """Text beyond 4, data beyond the 3 that WCAG asks of graphics."""
    assert contrast(INK, page) > 4
    assert min(contrast(colour, page) for colour in COLOURS) > 3
    assert contrast(DIVERGING(0.5), page) > 3


def test_numbers_read_on_every_colour_of_a_map():
    assert min(contrast("black", DIVERGING(x)) for x in np.linspace(0, 1, 51)) > 4


def test_a_figure_is_transparent_and_all_of_it_is_ink():
    """Also the ticks, which matplotlib makes when it draws."""

    @styled
    def draw() -> Figure:
        figure = Figure()
        ax = figure.subplots()
        ax.set_title("a title")
        ax.set_xlabel("a label")
        return figure

    png = io.BytesIO()
    draw().savefig(png, format="png")
    png.seek(0)
    picture = imread(png)
    shown = picture[..., 3] > 0.99
    assert picture[0, 0, 3] == 0
    assert 0.002 < shown.mean() < 0.1
    assert np.abs(picture[shown][:, :3] - to_rgb(INK)).max() < 0.02
