import io

import av
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from giblet.analysis.reconstruction import collect, reconstruct, stimulus_batches
from giblet.analysis.tables import identify_source
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.data.audio import RATE, read_sound
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import (
    HEADER,
    embed_side_by_side,
    embed_sounds,
    encode_mp3,
    plot_film_strips,
    plot_identification,
    plot_spectrograms,
    plot_timeline,
    text_table,
    to_frames,
    write_reconstructions,
    write_side_by_side,
)


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    processors = {"video_processor": VideoProcessor(12, 16, frame_skip=4), "audio_processor": AudioProcessor("mel")}
    return {
        split: MultimodalDataset(simulated, split=split, average=True, **processors, progress=False)
        for split in ("test", "all")
    }


@pytest.fixture(scope="module")
def model(data) -> MultimodalAutoencoder:
    torch.manual_seed(0)
    return MultimodalAutoencoder(**data["all"].model_dims, bottleneck_dim=8, width=1 / 64).eval()


@pytest.fixture(scope="module")
def recon(data, model) -> dict:
    recon = {"movie": collect(stimulus_batches(data["test"]))}
    return recon | {name: collect(reconstruct(name, model, data["test"])) for name in ("measured", "mean")}


def of(recon, modality: str) -> dict:
    return {name: values[modality] for name, values in recon.items()}


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.mark.parametrize("frame_skip", [1, 2, 4])
def test_thirty_seconds_last_thirty_seconds(tmp_path, frame_skip):
    """Every TR has its own grey and its own loudness; both are where the clock says, in both films."""
    processor, n_trs = VideoProcessor(height=20, width=32, frame_skip=frame_skip), 20
    levels = torch.linspace(0.1, 0.9, n_trs)
    film = levels[:, None].expand(n_trs, processor.video_dim)
    t = np.arange(round(30 * RATE))
    sound = (0.4 * np.sin(2 * np.pi * 440 * t / RATE) * (t // round(1.5 * RATE) % 2)).astype(np.float32)
    write_side_by_side(tmp_path / "films.mp4", {"movie": film, "measured": 1 - film}, processor, sound)
    with av.open(str(tmp_path / "films.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        assert float(container.streams.video[0].duration * container.streams.video[0].time_base) == pytest.approx(
            30, abs=0.05
        )
    assert frames[0][1].shape == (HEADER + 20, 2 * 32 + 4)
    for time, frame in frames[:: max(1, len(frames) // 50)]:
        level = 255 * levels[min(int(time / 1.5 + 1e-6), n_trs - 1)]
        assert frame[HEADER + 4 : -4, 4:28].mean() == pytest.approx(float(level), abs=3)
        assert frame[HEADER + 4 : -4, 40:64].mean() == pytest.approx(float(255 - level), abs=3)
    heard = read_sound(tmp_path / "films.mp4")
    assert len(heard) / RATE == pytest.approx(30, abs=0.1)
    loud = np.sqrt(np.square(heard[: len(t)]).reshape(20, -1)[:, 2400:-2400].mean(1))
    assert np.all((loud > 0.1) == (np.arange(20) % 2 == 1))


def test_frames_are_clamped_only_here():
    processor = VideoProcessor(height=1, width=3, frame_skip=36)
    frames = to_frames(torch.tensor([[-0.5, 0.5, 1.5]]), processor)
    assert frames.tolist() == [[[0, 128, 255]]]


def test_mp3_is_small_and_holds_the_sound():
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(6 * RATE) / RATE)
    mp3 = encode_mp3(tone)
    assert len(mp3) < 60_000
    with av.open(io.BytesIO(mp3)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(heard[RATE : 2 * RATE]))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_strips_show_every_source(data, recon):
    figure = plot_film_strips(of(recon, "video"), [0, 3], data["test"], "SIMULATED data: film")
    assert {"movie", "measured", "mean", f"TR {data['test'].tr_index[3]}", "SIMULATED data: film"} <= texts(figure)
    shown = figure.axes[1].images[0].get_array()
    frames = to_frames(recon["movie"]["video"][3][None], data["test"].video_processor)
    assert np.array_equal(shown, frames[len(frames) // 2])


def test_spectrograms_share_a_scale(data, recon):
    figure = plot_spectrograms(of(recon, "audio"), data["test"].audio_processor, "SIMULATED data: sound")
    images = [ax.images[0] for ax in figure.axes[:3]]
    assert len({image.get_clim() for image in images}) == 1
    power = data["test"].audio_processor.log_power(recon["movie"]["audio"])
    assert np.allclose(images[0].get_array(), 10 / np.log(10) * power.reshape(-1, 64).T)


def test_words_beside_each_other(data, recon):
    html = text_table(of(recon, "text"), [0, 2], data["test"], "SIMULATED data: words").data
    nearest = data["test"].text_processor.features_to_text(recon["movie"]["text"][[0, 2]])
    assert all(words in html for [(words, _)] in nearest)
    assert "SIMULATED data: words" in html
    assert html.count("<th>") == 4


def test_players_are_embedded(data, recon):
    sounds = {"a <b>": np.zeros(RATE), "c": np.zeros(RATE)}
    html = embed_sounds(sounds).data
    assert html.count("data:audio") == 2
    assert "a &lt;b&gt;" in html
    video = embed_side_by_side(of(recon, "video"), data["test"].video_processor)
    assert video.embed
    assert len(video.data) > 1000


def test_identification_is_drawn_as_it_is(data, model):
    found = {source: identify_source(source, model, data["all"], data["test"], 20) for source in ("measured", "mean")}
    figure = plot_identification(found, "SIMULATED data")
    drawn = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 3]
    assert np.allclose(drawn[0], [found["measured"][name].two_way.mean() for name in ("video", "audio", "text")])
    timeline = plot_timeline({name: x["video"] for name, x in found.items()}, data["test"], "SIMULATED data")
    assert len(timeline.axes) == 2
    rows = data["test"].run == 1
    assert np.allclose(timeline.axes[1].lines[0].get_ydata(), found["measured"]["video"].two_way[rows])
    for drawing in (figure, timeline):
        FigureCanvasAgg(drawing).draw()


def test_everything_is_written(data, model, tmp_path):
    table = write_reconstructions(model, data["all"], data["test"], tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    films = {f"{name}.mp4" for name in ("films", "movie", "ceiling", "predicted", "measured", "shifted", "mean")}
    figures = {f"{name}.png" for name in ("film_strips", "spectrograms", "identification")}
    assert written == films | figures | {"scores.csv", "table.csv", "text.csv"}
    assert table.columns.name == "SIMULATED data"
    assert len((tmp_path / "out/text.csv").read_text().splitlines()) == data["test"].n_trs + 1
