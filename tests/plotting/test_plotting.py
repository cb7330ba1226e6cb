import base64
import io
from copy import copy

import av
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread

from giblet.analysis.prediction import network_table
from giblet.data import MultimodalDataset, VideoProcessor
from giblet.data.audio import read_sound
from giblet.models import MultimodalAutoencoder
from giblet.plotting.architecture import plot_architecture
from giblet.plotting.data import (
    SPLIT_COLOURS,
    embed_clip,
    plot_lag_curve,
    plot_regions,
    plot_split,
    plot_words,
)
from giblet.plotting.prediction import plot_ablation, plot_network_table, plot_prediction
from giblet.plotting.style import COLOURS
from giblet.plotting.training import LossPlot, plot_history
from giblet.regions import seitzman_networks

HISTORY = [
    {
        "epoch": n,
        "train": {"total": 5.0 - n, "fmri": 1.0 - n / 10},
        "val": {"total": 6.0 - n, "fmri": 1.1, "r": n / 10},
    }
    for n in range(4)
]


@pytest.fixture(scope="module")
def test_split(simulated) -> MultimodalDataset:
    video = VideoProcessor(height=9, width=16, frame_skip=4)
    return MultimodalDataset(
        simulated, split="test", average=True, video_processor=video, progress=False
    )


def texts(figure: Figure) -> str:
    labels = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(label.get_text() for label in labels if isinstance(label.get_text(), str))


def drawn(figure: Figure) -> np.ndarray:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=60)
    png.seek(0)
    return imread(png)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"r": [0.4, 0.02, -0.05], "null_mean": [0.0, 0.01, 0.0], "null_sd": [0.05, 0.04, 0.03]},
        index=["Visual", "Reward", "Salience"],
    )


def test_dots_on_bars(test_split):
    dataset = copy(test_split)
    dataset.planted = {"Visual": ["pictures"]}
    figure = plot_network_table(table(), dataset)
    ax = figure.axes[0]
    assert "SIMULATED data: held-out r by network" in texts(figure)
    dots = sorted(float(x) for line in ax.lines for x in line.get_xdata())
    assert dots == [-0.05, 0.02, 0.4]
    bars = [(patch.get_x(), patch.get_width()) for patch in ax.patches]
    assert bars[2] == pytest.approx((-1.96 * 0.05, 3.92 * 0.05))
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "Salience",
        "Reward",
        "Visual (pictures)",
    ]


def test_ablation_shows_its_numbers():
    frame = pd.DataFrame({"nothing": [0.1, 0.5], "video": [0.1, 0.0]}, index=["Auditory", "Visual"])
    figure = plot_ablation(frame, "SIMULATED data: held-out r")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.50", "0.00", "0.10", "0.10"]
    assert "SIMULATED data: held-out r" in texts(figure)
    assert "SIMULATED" not in texts(plot_ablation(frame))


def test_history_lines():
    figure = plot_history(HISTORY, "SIMULATED data: ")
    drawn = [list(line.get_ydata()) for ax in figure.axes for line in ax.lines]
    assert drawn[:2] == [[5, 4, 3, 2], [6, 5, 4, 3]]
    assert drawn[4] == [0, 0.1, 0.2, 0.3]
    assert "SIMULATED data" in texts(figure)


def test_history_without_validation_trs():
    figure = plot_history([entry | {"val": {}} for entry in HISTORY])
    [loss] = figure.axes[0].lines
    assert list(loss.get_ydata()) == [5, 4, 3, 2]
    assert len(figure.axes[1].lines) == 1


def test_live_plot_grows():
    plot = LossPlot(epochs=4)
    pictures = []
    for n in (1, 4):
        plot(HISTORY[:n])
        pictures.append(bytes(plot.widget.value))
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]


def test_prediction_figure(test_split, simulated):
    """Stills, four views of the surface with the map on them, and the table; each is labelled."""
    whole = MultimodalDataset(
        simulated,
        split="all",
        average=True,
        video_processor=test_split.video_processor,
        progress=False,
    )
    regions = seitzman_networks(whole.mask_img)
    fmri_pred = np.random.default_rng(0).standard_normal((whole.n_trs, len(regions.labels)))
    scores = network_table(fmri_pred, whole, regions, n_permute=50)
    flat = np.zeros(len(regions.labels))
    peaked = np.where(regions.voxels("Visual"), 0.5, 0.0)
    figures = [plot_prediction(r, scores, test_split) for r in (flat, peaked)]
    assert texts(figures[1]).count("SIMULATED data") == 3
    assert len(figures[1].axes) == 6 + 4 + 1 + 1
    still = figures[1].axes[0].images[0].get_array()
    assert np.array_equal(still, test_split[0]["video"].reshape(-1, 9, 16)[0])
    flat, peaked = map(drawn, figures)
    changed = np.abs(flat - peaked).sum(-1) > 0.3
    rows = np.flatnonzero(changed.any(1)) / len(changed)
    assert changed.mean() > 0.002  # the map is drawn ...
    assert 0.2 < rows.min() < rows.max() < 0.55  # ... on the surfaces and nowhere else


def test_stills_are_in_colour_where_the_model_sees_colour(simulated):
    """A film without pictures has no stills, and the rest of the figure stays."""
    video = VideoProcessor(height=9, width=16, frame_skip=4, colour=True)
    settings = {"average": True, "video_processor": video, "progress": False}
    dataset = MultimodalDataset(simulated, split="test", **settings)
    r = np.zeros(dataset.fmri().shape[1])
    figure = plot_prediction(r, table(), dataset)
    still = figure.axes[0].images[0].get_array()
    assert np.array_equal(still, dataset[0]["video"].reshape(-1, 9, 16, 3)[0])
    assert np.ptp(still, axis=-1).max() > 0.2
    dataset.present = ("audio", "text")
    dark = plot_prediction(r, table(), dataset)
    assert len(dark.axes) == len(figure.axes) - 6
    assert "stills" not in texts(dark)


def test_architecture_names_every_layer():
    model = MultimodalAutoencoder(
        video_dim=40, audio_features=12, text_dim=16, n_voxels=30, bottleneck_dim=8, width=0.1
    )
    shown = texts(plot_architecture(model))
    numbers = ("2A", "2B", "2C", "4", "5", "6", "8", "9", "10", "11", "12A", "12B", "12C")
    assert all(f"Layer {number}" in shown for number in numbers)
    assert f"{model.parameter_count():,} parameters" in shown


def shape_of(clip: bytes, tmp_path) -> tuple[int, int, float]:
    (tmp_path / "clip.mp4").write_bytes(clip)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height, container.duration / av.time_base


def test_embedded_clip(simulated, tmp_path):
    video = embed_clip(simulated / "movie_run-1.mp4", seconds=3.0, width=128)
    width, height, seconds = shape_of(
        base64.b64decode(video.data) if isinstance(video.data, str) else video.data, tmp_path
    )
    assert (width, height) == (128, 72)
    assert seconds == pytest.approx(3.0, abs=0.1)
    assert read_sound(tmp_path / "clip.mp4").std() > 0.001


def test_words_under_stills(test_split):
    trs = test_split.tr_index[[0, 3]]
    figure = plot_words(test_split, trs)
    for ax, index in zip(figure.axes, (0, 3), strict=True):
        item = test_split[index]
        assert np.array_equal(ax.images[0].get_array(), item["video"].reshape(-1, 9, 16)[0])
        ((words, _),) = test_split.text_processor.features_to_text(item["text"][None])[0]
        assert ax.get_xlabel().replace("\n", " ") == words
    assert "SIMULATED data" in texts(figure)


def test_networks_have_their_colours(test_split):
    """Every named network is on the surface in its own colour, and only there."""
    regions = seitzman_networks(test_split.mask_img)
    names = ["Visual", "DefaultMode"]
    both, one = (
        drawn(plot_regions(regions, test_split.mask_img, n, "SIMULATED"))
        for n in (names, names[:1])
    )
    blue, orange = (np.abs(both[..., :3] - to_rgb(colour)).max(-1) < 0.1 for colour in COLOURS[:2])
    assert 0.002 < blue.mean() < 0.2
    assert 0.002 < orange.mean() < 0.3
    assert np.abs(one[..., :3] - to_rgb(COLOURS[1])).max(-1).min() > 0.1


def test_lag_curve_lines():
    figure = plot_lag_curve({"Visual": np.array([0.1, 0.3, 0.2])}, [2, 3, 4], 1.5, "SIMULATED data")
    line = figure.axes[0].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2, 3, 4], [0.1, 0.3, 0.2])
    assert "TRs of 1.5 s" in texts(figure)


def test_split_bars_cover_every_tr(test_split):
    figure = plot_split(test_split)
    bars = [
        (round(bar.get_x()), round(bar.get_width()), bar.get_facecolor())
        for bar in figure.axes[0].patches
    ]
    assert sum(width for _, width, _ in bars) == 126
    test = to_rgba(SPLIT_COLOURS["test"])
    assert sum(width for _, width, colour in bars if colour == test) == test_split.n_trs
    assert "SIMULATED data" in texts(figure)
