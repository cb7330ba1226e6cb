"""Pictures: movie -> the frames of every TR, and features -> mp4."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from giblet.data.media import first_second, open_movie, write_movie

SOURCE_FPS = 25  # frame_skip counts frames of a 25 fps film, whatever the file's own rate
ROUNDING = 1e-6  # seconds; a frame that starts at a sample time is the one taken


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

    def fill(self, path: str | Path, features: np.ndarray, tick: Callable = lambda n: None) -> int:
        """Write the frames of a movie into `features` (n_trs, video_dim) uint8, in place.

        Frames are placed by their time stamps, whatever the file's rate, constant or not, and
        turned as its display matrix says.

        Parameters
        ----------
        tick : callable
            Called with the number of TRs done since the last call.

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
        for until, picture in _pictures(path):
            stop = done + int(np.searchsorted(times[done:], until, side="left"))
            if stop > done:  # the picture on screen at every sample time before the next one
                frames[done:stop] = self._scaled(picture)
                tick(stop // self.n_frames - done // self.n_frames)
            done = stop
            if done == len(times):
                break
        return done // self.n_frames

    def _scaled(self, picture: av.VideoFrame) -> np.ndarray:
        quarters = round(picture.rotation / 90) % 4  # counter-clockwise
        width, height = (self.height, self.width) if quarters % 2 else (self.width, self.height)
        scaled = picture.reformat(
            width, height, format="rgb24" if self.colour else "gray"
        ).to_ndarray()
        return np.rot90(scaled, quarters)

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


def _pictures(path: str | Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield each decoded frame with the second at which the next one replaces it."""
    with open_movie(path) as container:
        if not container.streams.video:
            raise ValueError(
                f"{path} holds no pictures, expected a movie: name another file in dataset.toml."
            )
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        duration = 1 / float(stream.average_rate or SOURCE_FPS)
        start = first_second(container)
        time = -duration
        previous = None
        for frame in container.decode(stream):
            time = time + duration if frame.time is None else frame.time - start
            if previous is not None:
                yield time, previous
            previous = frame
        if previous is not None:
            yield time + duration, previous
