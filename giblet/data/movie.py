"""Opening movies as a player does: which stream, and what the file says about it."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

Say = Callable[[str], None]  # takes a sentence about what was found and done

# No film: a cover, or pictures of single moments.
STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Not the film's own sound.
ABOUT = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.karaoke
    | Disposition.clean_effects
    | Disposition.dub
)
ABOUT_TITLE = re.compile(r"comment|description|described|karaoke|isolated", re.IGNORECASE)


NO_MOVIES = ("tty",)  # FFmpeg draws the letters of a text


@contextmanager
def open_movie(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a movie for reading; whatever cannot be read is a ValueError that names the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: name an existing movie.")
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            if container.format.name in NO_MOVIES:
                raise ValueError(
                    f"{path} is text, expected a movie: name another file in dataset.toml."
                )
            yield container
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be read as a movie ({error.strerror}): convert it, to mp4 for example."
        ) from None


def picture_streams(container: av.container.InputContainer) -> list[VideoStream]:
    """The streams of pictures that can be decoded, in the order in which a player would take them.

    No covers; more than one picture, the default one, the largest, the first: in this order.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & STILL]
    return sorted((one for one in films if one.codec_context is not None), key=_picture_rank)


def _picture_rank(stream: Stream) -> tuple:
    context = stream.codec_context
    is_default = bool(stream.disposition & Disposition.default)
    return stream.frames == 1, not is_default, -context.width * context.height, stream.index


def is_sound_alone(path: str | Path) -> bool:
    """Whether a file has sound and no pictures, covers aside."""
    with open_movie(path) as container:
        pictures = [one for one in container.streams.video if not one.disposition & STILL]
        return not pictures and bool(container.streams.audio)


def sound_streams(container: av.container.InputContainer) -> list[Stream]:
    """The sound tracks that can be decoded, in the order in which a player would take them.

    No commentary or description, the default one, the first: in this order.
    """
    decodable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return sorted(decodable, key=_sound_rank)


def _sound_rank(stream: Stream) -> tuple:
    title = " ".join(stream.metadata.get(name, "") for name in ("title", "handler_name"))
    about = bool(stream.disposition & ABOUT) or bool(ABOUT_TITLE.search(title))
    return about, not stream.disposition & Disposition.default, stream.index


def say_choice(chosen: Stream, streams: Sequence[Stream], path: str | Path, say: Say) -> None:
    """Say which of several streams of a kind was taken."""
    others = [describe(stream) for stream in streams if stream.index != chosen.index]
    if others:
        kind = "picture streams" if chosen.type == "video" else "sound tracks"
        say(
            f"{path} has {len(others) + 1} {kind}: takes {describe(chosen)}, leaves out "
            f"{'; '.join(others)}"
        )


def describe(stream: Stream) -> str:
    """A stream in words: its number, format, language and title."""
    context = stream.codec_context
    words = [f"stream {stream.index}", "not decodable" if context is None else context.name]
    words += [stream.language] if stream.language not in (None, "und") else []
    words += [repr(stream.metadata["title"])] if "title" in stream.metadata else []
    words += [str(flag.name) for flag in Disposition if flag & stream.disposition]
    return f"{words[0]} ({', '.join(words[1:])})"


def cropping(container: av.container.InputContainer, stream: Stream) -> tuple[int, int, int, int]:
    """Columns at the left and right and rows at the top and bottom that are not to be shown.

    PyAV gives them only in its description of a file.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        described = container.dumps_format()
    finally:
        av.logging.set_level(level)
    streams = re.split(r"\n\s*Stream #\d+:", described)[1:]
    found = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", streams[stream.index])
    left, right, top, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
    return left, right, top, bottom


def stated_end(container: av.container.InputContainer, stream: Stream) -> float:
    """Second at which a stream ends, as the file says in words or for the whole; 0 if nowhere."""
    found = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if found:
        hours, minutes, seconds = map(float, found.groups())
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams.video) + len(container.streams.audio) == 1
    return container.duration / av.time_base if alone and container.duration else 0.0


def stated_seconds(path: str | Path) -> float:
    """Length of a movie as its file states it; 0 if it does not."""
    with open_movie(path) as container:
        return (container.duration or 0) / av.time_base


def display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """How a picture is to be turned and mirrored: [[a, b], [c, d]] as FFmpeg has it.

    Column p and row q (downwards) are shown at column a p + c q and row b p + d q.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 2**16
