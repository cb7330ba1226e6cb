"""Reconstructions to look at, listen to and read, beside the movie and beside what should fail."""

import base64
import io
import re
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from IPython.display import HTML, Audio, Video
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.data.audio import RATE, mel_frequencies
from giblet.data.media import Played, decode_media, write_movie
from giblet.plotting.style import BESIDE, INK, TICKS_HZ, WIDTH, styled

if TYPE_CHECKING:
    from giblet.analysis.identification import Identification

# pixels between films, and above them for their names
GAP = 4
HEADER = 14
MOST_PIXELS = 680  # of what is embedded, as wide as a figure
MOST_STILLS = 5  # next to each other: more are too small to recognise
LABEL_INCHES = 1.0  # left of the stills, for the names of sources


@styled
def plot_film_strips(
    video: Mapping[str, Tensor],
    rows: Sequence[int] | np.ndarray,
    dataset: MultimodalDataset,
    title: str = "",
) -> Figure:
    """One frame of each of some TRs, one row per source.

    More than five TRs take several such blocks, one below the other.

    Parameters
    ----------
    video : {source: (n_trs, video_dim)}
        Of the TRs of `dataset`.
    rows : sequence of int
        Which of them to show.

    Raises
    ------
    ValueError
        If the video of the data set is no film.
    """
    processor = film_of(dataset)
    blocks = np.array_split(np.asarray(rows), -(-len(rows) // MOST_STILLS))
    n_columns = len(blocks[0])
    width = min(2.0, (WIDTH - LABEL_INCHES) / n_columns)
    still = width * processor.height / processor.width
    height = 0.35 + len(blocks) * (0.3 + len(video) * (still + 0.03))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    axes = figure.subplots(len(blocks) * len(video), n_columns, squeeze=False)
    for lines, shown in zip(axes.reshape(len(blocks), len(video), -1), blocks, strict=True):
        for line, (name, values) in zip(lines, video.items(), strict=True):
            _draw_strip(line, dataset.without_context("video", values[shown]), processor)
            line[0].set_ylabel(_wrapped(name), rotation=0, ha="right", va="center")
        for ax, index in zip(lines[0], shown, strict=False):
            ax.set_title(f"TR {dataset.tr_index[index]}", fontsize="small", pad=3)
    figure.suptitle(title)
    return figure


def _draw_strip(line: Sequence[Axes], video: Tensor, processor: VideoProcessor) -> None:
    """The middle frame of each TR of (n_trs, video_dim); axes that are left stay empty."""
    frames = to_frames(video, processor).reshape(len(video), -1, *processor.frame_shape)
    for ax in line:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    for ax, pictures in zip(line, frames, strict=False):
        ax.imshow(pictures[len(pictures) // 2], cmap="gray", vmin=0, vmax=255)


def _wrapped(name: str, width: int = 12) -> str:
    return "\n".join(textwrap.wrap(name, width))


def film_of(dataset: MultimodalDataset) -> VideoProcessor:
    """What turns the data set's video into frames, or one sentence that says why nothing can."""
    if dataset.video_processor is None:
        raise ValueError(
            "the video of this data set is no film: give from_arrays uint8 frames (n_trs, "
            "n_frames, height, width)."
        )
    return dataset.video_processor


def to_frames(values: Tensor, processor: VideoProcessor) -> np.ndarray:
    """(n_trs, video_dim) values as (n_trs * n_frames, *frame_shape) uint8, clamped to 0..1."""
    pixels = (values.detach().float().clamp(0, 1) * 255).round().byte().numpy()
    return pixels.reshape(-1, *processor.frame_shape)


def write_side_by_side(
    path: str | Path,
    video: Mapping[str, Tensor],
    processor: VideoProcessor,
    sound: np.ndarray | None = None,
) -> None:
    """Write films of the same TRs side by side, with their names above.

    The mp4 plays at the film's speed.

    Parameters
    ----------
    video : {name: (n_trs, video_dim)}
    sound : (n_samples,) at 24 kHz, optional
    """
    films = {name: to_frames(values, processor) for name, values in video.items()}
    names = Image.new("L", (len(films) * (processor.width + GAP) - GAP, HEADER))
    for index, name in enumerate(films):
        ImageDraw.Draw(names).text((index * (processor.width + GAP), 0), name, fill=255)
    canvas = np.zeros(
        (HEADER + processor.height, *np.asarray(names).shape[1:], *processor.frame_shape[2:]),
        np.uint8,
    )
    canvas[:HEADER] = np.asarray(names)[(...,) + (None,) * processor.colour]

    def pictures():
        for frames in zip(*films.values(), strict=True):
            for index, frame in enumerate(frames):
                left = index * (processor.width + GAP)
                canvas[HEADER:, left : left + processor.width] = frame
            yield canvas.copy()

    write_movie(path, pictures(), processor.n_frames / processor.tr, sound, RATE)


def embed_side_by_side(
    video: Mapping[str, Tensor], processor: VideoProcessor, sound: np.ndarray | None = None
) -> Video:
    """The same inside a notebook: about 20 KB a second for three films."""
    width = min(MOST_PIXELS, 3 * len(video) * (processor.width + GAP))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "films.mp4"
        write_side_by_side(path, video, processor, sound)
        return Video(data=path.read_bytes(), embed=True, mimetype="video/mp4", width=width)


def encode_mp3(sound: np.ndarray) -> bytes:
    """(n_samples,) of 24 kHz sound in -1..1 as mono MP3, about 2 KB a second."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono")
        samples = (np.asarray(sound, np.float32).clip(-1, 1) * 32_767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def embed_sounds(sounds: Mapping[str, np.ndarray]) -> HTML:
    """Players with names beside them, for (n_samples,) of 24 kHz sound."""
    rows = []
    for name, sound in sounds.items():
        player = Audio(encode_mp3(sound), rate=None)._repr_html_()
        rows.append(f"<tr><td>{escape(name)}</td><td>{player}</td></tr>")
    return HTML(f"<table>{''.join(rows)}</table>")


def decode_players(players: Video | Audio | HTML | str) -> list[Played]:
    """What films and sounds embedded in a notebook decode to: bytes differ from CPU to CPU.

    Parameters
    ----------
    players : Video, Audio, HTML or str
        As from `embed_side_by_side` or `embed_sounds`, or the HTML of a stored output.

    Returns
    -------
    list of Played
        One a player, in their order.

    Raises
    ------
    ValueError
        If nothing is embedded, or what is embedded cannot be decoded.
    """
    html = players if isinstance(players, str) else players._repr_html_()
    encoded = re.findall(r"data:(?:video|audio)/[^;,]+;base64,([A-Za-z0-9+/=\s]+)", html)
    if not encoded:
        raise ValueError("no film and no sound is embedded here: embed with `embed=True`.")
    return [decode_media(base64.b64decode(data)) for data in encoded]


@styled
def plot_spectrograms(
    audio: Mapping[str, Tensor], processor: AudioProcessor, title: str = ""
) -> Figure:
    """Log-mel spectrograms of (n_trs, n_features) of the same TRs, on one colour scale.

    They are drawn one below the other, frequency upwards on the mel scale.
    """
    spectra = {name: processor.log_power(values) for name, values in audio.items()}
    n_trs, _, n_mels = next(iter(spectra.values())).shape
    decibels = {
        name: 10 / np.log(10) * x.reshape(-1, n_mels).T.numpy() for name, x in spectra.items()
    }
    figure = Figure(figsize=(WIDTH, 0.8 + 0.95 * len(audio)), layout="constrained")
    axes = figure.subplots(len(audio), 1, sharex=True, squeeze=False)[:, 0]
    bands = np.interp(TICKS_HZ, mel_frequencies(n_mels), np.arange(n_mels) + 0.5)
    for ax, (name, power) in zip(axes, decibels.items(), strict=True):
        extent = (0, n_trs * processor.tr, 0, n_mels)
        image = ax.imshow(
            power, origin="lower", aspect="auto", vmin=-60, vmax=-10, cmap="magma", extent=extent
        )
        ax.set_yticks(bands, [f"{hertz / 1000:g}" for hertz in TICKS_HZ], fontsize="small")
        ax.set_ylabel(_wrapped(name), rotation=0, ha="right", va="center")
    axes[0].set_title("kHz", loc="left", fontsize="small", x=-0.06)
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB of full scale", pad=0.02, aspect=30)
    figure.suptitle(title)
    return figure


def text_table(
    text: Mapping[str, Tensor], rows: Sequence[int], dataset: MultimodalDataset, title: str = ""
) -> HTML:
    """The annotation nearest to (n_trs, width) embeddings at some TRs.

    `rows` and `dataset` are as in `plot_film_strips`. The table has one column per source.
    """
    if dataset.text_processor is None:
        raise ValueError(
            "the text of this data set is an array: there are no sentences to find the nearest of."
        )
    nearest = {
        name: dataset.text_processor.features_to_text(values[list(rows)])
        for name, values in text.items()
    }
    lines = ["".join(f"<th>{escape(name)}</th>" for name in ("TR", *nearest))]
    for position, index in enumerate(rows):
        best = [found[position][0] for found in nearest.values()]
        cells = "".join(f"<td>{escape(words)} <i>({cosine:.2f})</i></td>" for words, cosine in best)
        lines.append(f"<td>{dataset.tr_index[index]}</td>{cells}")
    return HTML(
        f"<p>{escape(title)}</p><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
    )


@styled
def plot_identification(
    identified: Mapping[str, Mapping[str, "Identification"]], title: str = ""
) -> Figure:
    """Two-way identification of each source and modality with its 95 % interval, beside chance.

    Parameters
    ----------
    identified : {source: {modality: Identification}}
    """
    modalities = list(next(iter(identified.values())))
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    ax = figure.subplots()
    look = {"fmt": "o", "capsize": 3}
    for index, (source, found) in enumerate(identified.items()):
        place = np.arange(len(modalities)) + (index - (len(identified) - 1) / 2) * 0.8 / len(
            identified
        )
        means = np.array([found[name].two_way.mean() for name in modalities])
        low, high = np.array([found[name].interval() for name in modalities]).T
        ax.errorbar(place, means, [means - low, high - means], **look, label=_wrapped(source, 20))
    ax.axhline(0.5, color=INK, lw=0.8, ls="--", zorder=0)
    ax.set_xticks(range(len(modalities)), modalities)
    ax.set_ylim(0.3, 1.02)
    ax.set_ylabel("2-way identification (chance .5)")
    ax.set_title(title)
    ax.legend(**BESIDE)
    return figure


@styled
def plot_timeline(
    identified: Mapping[str, "Identification"], dataset: MultimodalDataset, title: str = ""
) -> Figure:
    """Two-way identification TR by TR, a line a source, with the runs apart."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    runs = np.unique(dataset.run)
    for ax, index in zip(
        figure.subplots(1, len(runs), sharey=True, squeeze=False)[0], runs, strict=True
    ):
        rows = dataset.run == index
        for name, found in identified.items():
            ax.plot(dataset.tr_index[rows], found.two_way[rows], label=name)
        ax.axhline(0.5, color=INK, lw=0.8, ls="--", zorder=0)
        ax.set_xlabel(f"TR (run {index + 1})")
    figure.axes[0].set_ylabel("2-way identification")
    figure.axes[-1].legend(**BESIDE)
    figure.suptitle(title)
    return figure
