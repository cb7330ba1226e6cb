import io

import av
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from giblet.analysis.reconstruction import Reconstruction
from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.data.audio import RATE, mel_frequencies, read_sound
from giblet.data.media import decode_media, write_movie, write_wav
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import (
    HEADER,
    decode_players,
    embed_side_by_side,
    embed_sounds,
    encode_mp3,
    plot_film_strips,
    plot_identification,
    plot_spectrograms,
    plot_timeline,
    text_table,
    to_frames,
    write_side_by_side,
)


@pytest.fixture(scope="module")
def data(simulated) -> dict[str, MultimodalDataset]:
    processors = {
        "video_processor": VideoProcessor(12, 16, frame_skip=4),
        "audio_processor": AudioProcessor("mel"),
    }
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
    sources = ("movie", "measured", "mean")
    return {name: Reconstruction(model, data["test"], name).decoded for name in sources}


def of(recon, modality: str) -> dict:
    return {name: values[modality] for name, values in recon.items()}


def texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.mark.parametrize("frame_skip", [1, 2, 4])
def test_thirty_seconds_last_thirty_seconds(tmp_path, frame_skip):
    """Every TR has its own grey and its own loudness, where the clock says, in both films."""
    processor = VideoProcessor(height=20, width=32, frame_skip=frame_skip)
    n_trs = 20
    levels = torch.linspace(0.1, 0.9, n_trs)
    film = levels[:, None].expand(n_trs, processor.video_dim)
    t = np.arange(round(30 * RATE))
    sound = (0.4 * np.sin(2 * np.pi * 440 * t / RATE) * (t // round(1.5 * RATE) % 2)).astype(
        np.float32
    )
    write_side_by_side(
        tmp_path / "films.mp4", {"movie": film, "measured": 1 - film}, processor, sound
    )
    with av.open(str(tmp_path / "films.mp4")) as container:
        frames = [
            (frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)
        ]
        assert float(
            container.streams.video[0].duration * container.streams.video[0].time_base
        ) == pytest.approx(30, abs=0.05)
    assert frames[0][1].shape == (HEADER + 20, 2 * 32 + 4)
    for time, frame in frames[:: max(1, len(frames) // 50)]:
        level = 255 * levels[min(int(time / 1.5 + 1e-6), n_trs - 1)]
        assert frame[HEADER + 4 : -4, 4:28].mean() == pytest.approx(float(level), abs=3)
        assert frame[HEADER + 4 : -4, 40:64].mean() == pytest.approx(float(255 - level), abs=3)
    heard = read_sound(tmp_path / "films.mp4")
    assert len(heard) / RATE == pytest.approx(30, abs=0.1)
    loud = np.sqrt(np.square(heard[: len(t)]).reshape(20, -1)[:, 2400:-2400].mean(1))
    assert np.all((loud > 0.1) == (np.arange(20) % 2 == 1))


def test_films_in_colour_keep_their_colours(tmp_path):
    processor = VideoProcessor(height=20, width=32, frame_skip=36, colour=True)
    red, green = (
        torch.tensor(colour).repeat(4, 20 * 32) for colour in ([0.8, 0.1, 0.1], [0.1, 0.7, 0.1])
    )
    write_side_by_side(tmp_path / "films.mp4", {"movie": red, "measured": green}, processor)
    with av.open(str(tmp_path / "films.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.allclose(frame[HEADER + 4 : -4, 4:28].mean((0, 1)), [204, 26, 26], atol=15)
    assert np.allclose(frame[HEADER + 4 : -4, 40:64].mean((0, 1)), [26, 178, 26], atol=15)
    name = frame[:HEADER].astype(int)
    assert np.ptp(name, axis=-1).max() < 60
    assert name.max() > 180


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


def tone(seconds: float, amplitude: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def test_a_film_is_measured_by_decoding(tmp_path):
    frames = (np.full((20, 32), 5 * index, np.uint8) for index in range(48))
    write_movie(tmp_path / "film.mp4", frames, fps=24, sound=tone(2), rate=RATE)
    played = decode_media((tmp_path / "film.mp4").read_bytes())
    assert (played.n_frames, played.frame_size) == (48, (32, 20))
    assert played.seconds == pytest.approx(2, abs=0.05)
    assert played.loudness == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.3)


@pytest.mark.parametrize(("amplitude", "decibels"), [(1, -3.01), (0.1, -23.01), (0, -np.inf)])
def test_loudness_of_a_sound(tmp_path, amplitude, decibels):
    write_wav(tmp_path / "sound.wav", tone(1.5, amplitude))
    played = decode_media((tmp_path / "sound.wav").read_bytes())
    assert (played.seconds, played.n_frames, played.frame_size) == (1.5, 0, None)
    assert played.loudness == pytest.approx(decibels, abs=0.02)


def test_sound_that_ends_early_is_less_loud(tmp_path):
    """Half the sound in the same film has half the power."""
    loudness = {}
    for seconds in (1, 2):
        frames = np.zeros((48, 20, 32), np.uint8)
        write_movie(tmp_path / "film.mp4", frames, fps=24, sound=tone(seconds), rate=RATE)
        loudness[seconds] = decode_media((tmp_path / "film.mp4").read_bytes()).loudness
    assert loudness[2] - loudness[1] == pytest.approx(3.01, abs=0.3)


def test_a_film_without_sound_has_no_loudness(tmp_path):
    write_movie(tmp_path / "film.mp4", np.zeros((12, 20, 32), np.uint8), fps=24)
    played = decode_media((tmp_path / "film.mp4").read_bytes())
    assert played.seconds == pytest.approx(0.5, abs=1e-6)
    assert np.isnan(played.loudness)


@pytest.mark.parametrize("data", [b"", b"neither film nor sound"])
def test_what_cannot_be_decoded_is_refused(data):
    with pytest.raises(ValueError, match="not a film or a sound that can be decoded"):
        decode_media(data)


def test_nothing_to_play_is_refused(tmp_path):
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="neither pictures nor sound"):
        decode_media((tmp_path / "empty.wav").read_bytes())
    with pytest.raises(ValueError, match="no film and no sound is embedded"):
        decode_players("<p>words</p>")


def test_strips_show_every_source(data, recon):
    figure = plot_film_strips(of(recon, "video"), [0, 3], data["test"], "SIMULATED data: film")
    assert {
        "movie",
        "measured",
        "mean",
        f"TR {data['test'].tr_index[3]}",
        "SIMULATED data: film",
    } <= texts(figure)
    shown = figure.axes[1].images[0].get_array()
    frames = to_frames(recon["movie"]["video"][3][None], data["test"].video_processor)
    assert np.array_equal(shown, frames[len(frames) // 2])


def test_many_stills_take_two_blocks(data, recon):
    """Each still is that of its own TR and source, under the name of its TR."""
    test = data["test"]
    rows = np.arange(7)
    figure = plot_film_strips(of(recon, "video"), rows, test)
    axes = np.reshape(figure.axes, (2, 3, 4))
    assert figure.get_size_inches()[0] <= 7
    assert not axes[1, 0, 3].images
    assert [ax.get_title() for ax in axes[1, 0]] == [f"TR {x}" for x in test.tr_index[4:7]] + [""]
    for block, row, column in ((0, 1, 3), (1, 2, 0), (1, 1, 2)):
        name = ("movie", "measured", "mean")[row]
        own = recon[name]["video"][4 * block + column]
        frames = to_frames(own[None], test.video_processor)
        shown = axes[block, row, column].images[0].get_array()
        assert np.array_equal(shown, frames[len(frames) // 2])


def test_spectrograms_share_a_scale(data, recon):
    figure = plot_spectrograms(
        of(recon, "audio"), data["test"].audio_processor, "SIMULATED data: sound"
    )
    images = [ax.images[0] for ax in figure.axes[:3]]
    assert len({image.get_clim() for image in images}) == 1
    ticks = figure.axes[0].get_yticks()
    nearest = mel_frequencies(64)[np.round(ticks - 0.5).astype(int)]
    assert np.allclose(nearest, [100, 500, 2_000, 8_000], rtol=0.15)
    assert {"0.1", "0.5", "2", "8", "kHz"} <= texts(figure)
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
    quiet, loud = decode_players(embed_sounds({"quiet": np.zeros(RATE), "loud": tone(2)}))
    assert quiet.loudness == -np.inf
    assert loud.loudness == pytest.approx(-9, abs=1)
    assert loud.seconds == pytest.approx(2, abs=0.1)
    test = data["test"]
    video = embed_side_by_side(of(recon, "video"), test.video_processor)
    assert video.embed
    (played,) = decode_players(video)
    assert played.n_frames == test.n_trs * test.video_processor.n_frames
    assert played.seconds == pytest.approx(test.n_trs * test.tr, abs=0.1)


def test_identification_is_drawn_as_it_is(data, model):
    found = {
        source: Reconstruction(model, data["test"], source).identify(n_permute=20)
        for source in ("measured", "mean")
    }
    figure = plot_identification(found, "SIMULATED data")
    drawn = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 3]
    assert np.allclose(
        drawn[0], [found["measured"][name].two_way.mean() for name in ("video", "audio", "text")]
    )
    timeline = plot_timeline(
        {name: x["video"] for name, x in found.items()}, data["test"], "SIMULATED data"
    )
    assert len(timeline.axes) == 2
    rows = data["test"].run == 1
    assert np.allclose(
        timeline.axes[1].lines[0].get_ydata(), found["measured"]["video"].two_way[rows]
    )
    for drawing in (figure, timeline):
        FigureCanvasAgg(drawing).draw()
