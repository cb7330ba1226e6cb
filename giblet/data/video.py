"""Pictures: movie -> the frames of every TR, and features -> mp4."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from giblet.data.decoding import decoded
from giblet.data.media import write_movie
from giblet.data.movie import (
    Say,
    cropping,
    describe,
    display_matrix,
    open_movie,
    picture_streams,
    say_choice,
    stated_end,
)

SOURCE_FPS = 25  # frame_skip counts frames of a 25 fps film, whatever the file's own rate
ROUNDING = 1e-6  # seconds; a frame that starts at a sample time is the one taken
MOST_STILL = 10  # times the longest picture before it: a last one that lasts longer is a cut file

LIGHT = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R BT.601)


@dataclass(frozen=True)
class Picture:
    """A decoded picture and how the file says that it is shown.

    Parameters
    ----------
    frame : av.VideoFrame
    start : float
        Second at which it appears.
    margins : (left, right, top, bottom)
        Columns and rows that are not shown.
    matrix : (2, 2) array
        See `display_matrix`.
    """

    frame: av.VideoFrame
    start: float
    margins: tuple[int, int, int, int]
    matrix: np.ndarray

    def pixels(self, width: int, height: int, form: str, scaler: VideoReformatter) -> np.ndarray:
        """What is shown, scaled: (height, width) 'gray' or (height, width, 3) 'rgb24', uint8.

        `scaler` keeps the tables of a scaling from picture to picture.
        """
        (a, b), (c, d) = self.matrix
        is_turned = abs(b) > abs(a)
        size = (height, width) if is_turned else (width, height)
        visible = self._visible(form)
        scaled = scaler.reformat(visible, *size, format=form, threads=1).to_ndarray()
        if is_turned:
            return np.swapaxes(scaled, 0, 1)[_order(b), _order(c)]
        return scaled[_order(d), _order(a)]

    def _visible(self, form: str) -> av.VideoFrame:
        if not any(self.margins):
            return self.frame
        left, right, top, bottom = self.margins
        columns = slice(left, self.frame.width - right)
        rows = slice(top, self.frame.height - bottom)
        whole = self.frame.to_ndarray(format=form)
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(whole[rows, columns]), format=form)


def _order(scale: float) -> slice:
    """Rows or columns as they are, or mirrored where a display matrix scales by less than 0."""
    return slice(None, None, -1 if scale < 0 else 1)


@dataclass(frozen=True)
class VideoProcessor:
    """The frames within each TR, as luminance or colour.

    Parameters
    ----------
    height, width : int
        Size to which frames are scaled.
    frame_skip : int or float
        One frame in `frame_skip` of a 25 fps film is kept: 2 gives 18 frames in a TR of 1.5 s.
    colour : bool
        Red, green and blue of every pixel instead of its luminance.
    tr : float
        Repetition time in seconds.
    """

    height: int = 90
    width: int = 160
    frame_skip: float = 2
    colour: bool = False
    tr: float = 1.5

    @property
    def n_frames(self) -> int:
        """Frames in one TR: floor(tr * 25 / frame_skip)."""
        return int(self.tr * SOURCE_FPS / self.frame_skip + 1e-9)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(height, width), or (height, width, 3) in colour."""
        return (self.height, self.width, 3) if self.colour else (self.height, self.width)

    @property
    def video_dim(self) -> int:
        """Values in one TR: n_frames x height x width, times 3 in colour."""
        return self.n_frames * int(np.prod(self.frame_shape))

    def sample_times(self, n_trs: int) -> np.ndarray:
        """Seconds at which frames are taken: (n_trs * n_frames,).

        Frame k of TR i is taken at i * tr + k * frame_skip / 25.
        """
        within = np.arange(self.n_frames) * self.frame_skip / SOURCE_FPS
        return (np.arange(n_trs)[:, None] * self.tr + within).ravel()

    def fill(
        self,
        path: str | Path,
        features: np.ndarray,
        tick: Callable = lambda n: None,
        say: Say = print,
    ) -> int:
        """Write the frames of a movie into `features` (n_trs, video_dim) uint8, in place.

        Frames are placed by their time stamps, whatever the file's rate, constant or not, and
        cropped, turned and mirrored as the file says. The last picture lasts as long as the file
        says.

        Parameters
        ----------
        tick : callable
            Called with the number of TRs done since the last call.
        say : callable
            Called with a sentence where a choice was made or something is damaged.

        Returns
        -------
        int
            TRs the movie covers; `features` beyond them are left alone.

        Raises
        ------
        FileNotFoundError, ValueError
            If the file cannot be read or holds no pictures.
        """
        frames = features.reshape(-1, *self.frame_shape)
        times = self.sample_times(len(features)) + ROUNDING
        done = 0
        form = "rgb24" if self.colour else "gray"
        scaler = VideoReformatter()
        for until, picture in _pictures(path, say, times[-1]):
            stop = done + int(np.searchsorted(times[done:], until, side="left"))
            if stop > done:  # the picture on screen at every sample time before the next one
                frames[done:stop] = picture.pixels(self.width, self.height, form, scaler)
                tick(stop // self.n_frames - done // self.n_frames)
            done = stop
        return done // self.n_frames

    def features_to_video(self, features, path: str | Path) -> None:
        """Write (n_trs, video_dim) values in 0..1 as an mp4 that lasts n_trs * tr seconds.

        Values outside 0..1 are clamped, as wherever frames are written or drawn; models and scores
        take them as they are.
        """
        features = torch.as_tensor(features)
        if features.ndim != 2 or features.shape[1] != self.video_dim:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, expected (n_trs, {self.video_dim}) "
                f"for {self.n_frames} frames of {' x '.join(map(str, self.frame_shape))}."
            )
        pixels = (features.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        write_movie(path, pixels.reshape(-1, *self.frame_shape).numpy(), self.n_frames / self.tr)


def _pictures(path: str | Path, say: Say, until: float) -> Iterator[tuple[float, Picture]]:
    """Each picture with the second at which the next one replaces it.

    They are of the stream that a player would show, of the next one where that is empty. The last
    one begins after `until`.
    """
    with open_movie(path) as container:
        found = [describe(stream) for stream in container.streams.video]
        films = [stream.index for stream in picture_streams(container)]
    for index in films:
        n_pictures = 0
        for shown in _stream_pictures(path, index, say, until):
            n_pictures += 1
            yield shown
        if n_pictures:
            return
    held = f"nothing but {'; '.join(found)}" if found else "no pictures"
    raise ValueError(
        f"{path} holds {held}, expected a film that can be decoded: convert it, to mp4 for "
        "example, or name another file in dataset.toml."
    )


def _stream_pictures(
    path: str | Path, index: int, say: Say, until: float
) -> Iterator[tuple[float, Picture]]:
    """The pictures of one stream.

    How they are turned is looked up where their size or rotation changes: the look-up makes a
    circle of references, which keeps a picture in memory for a while.
    """
    with open_movie(path) as container:
        stream = container.streams[index]
        stream.thread_type = "AUTO"
        margins = cropping(container, stream)
        duration = 1 / float(stream.average_rate or SOURCE_FPS)
        longest = duration
        last = None
        form = None
        frames = decoded(container, stream, path, say, until)
        for start, frame in _placed(frames, stream, duration):
            if last is None:
                say_choice(stream, container.streams.video, path, say)
            else:
                longest = max(longest, start - last.start)
                yield start, last
            of_frame = (frame.width, frame.height, frame.rotation)
            if of_frame != form:
                matrix = display_matrix(frame)
                form = of_frame
            last = Picture(frame, start, margins, matrix)
        if last is not None:
            yield _end(last, duration, stated_end(container, stream), longest), last


def _end(last: Picture, usual: float, stated: float, longest: float) -> float:
    """Second at which the last picture is taken away.

    The file says so of the picture or, where not much later, of the stream (`stated`).
    """
    frame = last.frame
    length = float(frame.duration * frame.time_base) if frame.duration else usual
    is_likely = stated <= last.start + MOST_STILL * longest
    return max(last.start + length, stated if is_likely else 0.0)


def _placed(
    frames: Iterator[tuple[float | None, av.VideoFrame]], stream: VideoStream, duration: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with the second at which each appears.

    That is its time stamp, or where this is the running count but for rounding (to milliseconds, in
    Matroska and FLV), the count; without a stamp it follows the frame before.
    """
    tick = float(stream.time_base)
    first = None
    time = -duration
    for seconds, frame in frames:
        time = time + duration if seconds is None else seconds
        first = time if first is None else first
        counted = first + round((time - first) / duration) * duration
        yield (counted if abs(counted - time) <= tick else time), frame
