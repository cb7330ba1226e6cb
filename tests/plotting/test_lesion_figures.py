import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from giblet.plotting.lesions import (
    plot_dose_response,
    plot_effects,
    plot_frequency_loss,
    plot_halves,
    plot_sweep,
    plot_unit_region_map,
)
from giblet.plotting.prediction import plot_scores


@pytest.fixture
def sweep(rng) -> pd.DataFrame:
    columns = pd.MultiIndex.from_product([("video", "audio", "text"), ("effect", "z", "p")])
    table = pd.DataFrame(
        rng.random((4, 9)), index=["Visual", "Auditory", "DefaultMode", "Reward"], columns=columns
    )
    table.insert(0, ("", "n_voxels"), 10)
    table["video", "p"] = [0.01, 0.2, 0.04, 0.9]
    return table


def drawn(figure) -> set[str]:
    FigureCanvasAgg(figure).draw()
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def test_sweep_shows_z_and_marks_p(sweep):
    figure = plot_sweep(sweep, "SIMULATED data: costs")
    ax = figure.axes[0]
    assert np.allclose(ax.images[0].get_array()[1], sweep["audio", "z"])
    marked = {text.get_position() for text in ax.texts}
    assert {(0, 0), (2, 0)} <= marked
    assert (1, 0) not in marked
    assert "SIMULATED data: costs (* p < .05)" in drawn(figure)


def test_effects_have_their_height(sweep):
    figure = plot_effects(
        {"measured": sweep, "predicted": -sweep}, "SIMULATED data: lost", ["Visual", "Auditory"]
    )
    heights = [bar.get_height() for bar in figure.axes[0].containers[1]]
    assert np.allclose(heights, sweep["audio", "effect"][:2])
    assert {"measured brain", "predicted brain", "Visual", "video"} <= drawn(figure)


def test_map_and_dose(rng):
    listens = pd.DataFrame(rng.random((20, 3)), columns=["a", "b", "c"])
    figure = plot_unit_region_map(listens, "SIMULATED data: map")
    assert np.allclose(figure.axes[0].images[0].get_array(), listens.T)
    dose = pd.DataFrame({"video": [0.4, 0.1], "text": [0.7, 0.7]}, index=[0, 1])
    figure = plot_dose_response({"Visual": dose, "Auditory": dose}, "SIMULATED data: doses")
    assert np.allclose(figure.axes[1].lines[0].get_ydata(), dose["video"])
    assert {"without Visual", "text", "SIMULATED data: doses"} <= drawn(figure)


def test_scores_in_the_order_of_the_first():
    scores = {"ceiling": pd.Series({"a": 0.9, "b": 0.2}), "model": pd.Series({"a": 0.5, "b": 0.1})}
    figure = plot_scores(scores, "SIMULATED data: r")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    points = [line for line in ax.lines if line.get_label() == "model"]
    assert np.allclose(points[0].get_xdata(), [0.1, 0.5])
    assert "SIMULATED data: r" in drawn(figure)


def test_halves_have_their_height_and_their_interval():
    table = pd.DataFrame(
        {"left": [0.05, 0.5], "right": [0.4, 0.1]}, index=["left Visual", "right Visual"]
    )
    figure = plot_halves(table, "SIMULATED data: halves", table - 0.1, table[::-1] + 0.2)
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0.05, 0.5, 0.4, 0.1]
    ends = np.array([line[:, 1] for bars in ax.collections for line in bars.get_segments()])
    assert np.allclose(ends, [[-0.05, 0.25], [0.4, 0.7], [0.3, 0.6], [0.0, 0.3]])
    assert {"left", "right", "left Visual", "SIMULATED data: halves"} <= drawn(figure)
    assert len(plot_halves(table).axes[0].collections) == 0


def test_loss_by_frequency_is_on_a_log_axis():
    hertz = np.array([100.0, 1_000, 8_000])
    curves = {"high": np.array([0, 0.1, 0.9]), "low": np.array([0.8, 0.1, 0])}
    figure = plot_frequency_loss(curves, hertz, "SIMULATED data: sound")
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert np.array_equal(ax.lines[1].get_xydata(), np.c_[hertz, curves["low"]])
    assert {"high", "0.1", "8", "SIMULATED data: sound"} <= drawn(figure)
