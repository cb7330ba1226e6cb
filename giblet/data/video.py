"""Pictures: movie -> the frames of every TR, and features -> mp4."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from giblet.data.media import write_movie

SOURCE_FPS = 25  # frame_skip counts frames of a 25 fps film, whatever the file's own rate
ROUNDING = 1e-6  # seconds; a frame that starts at a sample time is the one taken


@dataclass(frozen=True)
class VideoProcessor:
    """Luminance of the frames within each TR.

    Parameters
    ----------
    height, width : int
        Size to which frames are scaled.
    frame_skip : int
        One frame in `frame_skip` of a 25 fps film is kept: 2 gives 18 frames in a TR of 1.5 s.
    tr : float
        Repetition time in seconds.
    """

    height: int = 90
    width: int = 160
    frame_skip: int = 2
    tr: float = 1.5

    @property
    def n_frames(self) -> int:
        """Frames in one TR: floor(tr * 25 / frame_skip)."""
        return int(self.tr * SOURCE_FPS / self.frame_skip + 1e-9)

    @property
    def video_dim(self) -> int:
        """Values in one TR: n_frames x height x width."""
        return self.n_frames * self.height * self.width

    def sample_times(self, n_trs: int) -> np.ndarray:
        """Seconds at which frames are taken: (n_trs * n_frames,), frame k of TR i at i * tr + k * frame_skip / 25."""
        within = np.arange(self.n_frames) * self.frame_skip / SOURCE_FPS
        return (np.arange(n_trs)[:, None] * self.tr + within).ravel()

    def fill(self, path: str | Path, features: np.ndarray, start: float = 0.0, tick: Callable = lambda n: None) -> int:
        """Write the frames of a movie into `features` (n_trs, video_dim) uint8, in place.

        Parameters
        ----------
        start : float
            Second of the movie at which TR 0 begins.
        tick : callable
            Called with the number of TRs done since the last call.

        Returns
        -------
        int
            TRs the movie covers; `features` beyond them are left alone.
        """
        frames = features.reshape(-1, self.height, self.width)
        times = self.sample_times(len(features)) + start + ROUNDING
        done = 0
        for until, picture in self._pictures(path):
            stop = done + int(np.searchsorted(times[done:], until, side="left"))
            if stop > done:  # the picture on screen at every sample time before the next one
                frames[done:stop] = picture.reformat(self.width, self.height, format="gray").to_ndarray()
                tick(stop // self.n_frames - done // self.n_frames)
            done = stop
            if done == len(times):
                break
        return done // self.n_frames

    @staticmethod
    def _pictures(path: str | Path) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield each decoded frame with the time at which the next one replaces it."""
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no pictures, expected a movie: name another file in dataset.toml.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            previous = None
            for frame in container.decode(stream):
                if previous is not None:
                    yield frame.time, previous
                previous = frame
            if previous is not None:
                yield previous.time + 1 / float(stream.average_rate or SOURCE_FPS), previous

    def features_to_video(self, features, path: str | Path) -> None:
        """Write (n_trs, video_dim) values in 0..1 as an mp4 that lasts n_trs * tr seconds.

        Values outside 0..1 are clamped here and nowhere else.
        """
        features = torch.as_tensor(features)
        if features.ndim != 2 or features.shape[1] != self.video_dim:
            raise ValueError(
                f"features have shape {tuple(features.shape)}, expected (n_trs, {self.video_dim}) for "
                f"{self.n_frames} frames of {self.height} x {self.width}."
            )
        pixels = (features.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        frames = pixels.reshape(-1, self.height, self.width).numpy()
        write_movie(path, frames, self.n_frames / self.tr)
