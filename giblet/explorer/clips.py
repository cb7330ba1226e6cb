"""Frames, clips, sounds and sentences that a bottleneck gives, encoded for a browser."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from giblet.analysis.parts import middle_frame
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import encode_mp3, to_frames

CLIP_TRS = 6
N_ITER = 16  # of Griffin-Lim, half as many as for files
BLOCK = 8  # JPEG compresses squares of as many pixels


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """Values of 0..1, clamped, as 0..255."""
    return (frame.clip(0, 1) * 255).astype(np.uint8)


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 picture (height, width[, 3 or 4]) as PNG, as fast as it goes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", compress_level=1)
    return file.getvalue()


def encode_strip(frames: np.ndarray) -> bytes:
    """uint8 frames (n_frames, height, width[, 3]) below each other as one JPEG.

    Each is made as high as a multiple of 8 pixels by its last row, so that none bleeds into the
    next.
    """
    space = ((0, 0), (0, -frames.shape[1] % BLOCK)) + ((0, 0),) * (frames.ndim - 2)
    strip = np.concatenate(np.pad(frames, space, mode="edge"))
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "jpeg", quality=88, subsampling=0)
    return file.getvalue()


class ClipMaker:
    """What the bottlenecks of some held-out TRs look, sound and read like.

    Parameters
    ----------
    model : MultimodalAutoencoder
    dataset : MultimodalDataset with `average=True`

    Attributes
    ----------
    shown : set of str
        The modalities that can be looked at, listened to or read.
    """

    def __init__(self, model: MultimodalAutoencoder, dataset: MultimodalDataset):
        self.model = model
        self.dataset = dataset
        processors = {
            "video": dataset.video_processor,
            "audio": dataset.audio_processor,
            "text": dataset.text_processor,
        }
        self.shown = {name for name in dataset.present if processors[name] is not None}

    def rows(self, row: int) -> np.ndarray:
        """A held-out TR and up to five that follow it in the movie without a gap."""
        within = slice(row, row + CLIP_TRS)
        trs = self.dataset.tr_index[within]
        run = self.dataset.run[within]
        follows = (np.diff(trs) == 1) & (np.diff(run) == 0)
        return row + np.arange(1 + follows.cumprod().sum())

    @torch.inference_mode()
    def middle_frames(self, bottleneck: Tensor) -> np.ndarray:
        """The middle frame that each row gives: (n_rows, *frame_shape)."""
        video = self.dataset.video_processor
        frames = self.model.decode_pixels(bottleneck, middle_frame(self.dataset))
        return frames.float().cpu().numpy().reshape(-1, *video.frame_shape)

    def middle_of_movie(self, row: int) -> np.ndarray:
        """The movie's frame in the middle of a held-out TR: (*frame_shape) uint8."""
        video = self.dataset.video_processor
        stored = self.dataset.features.video[self.dataset.tr_index[row]]
        frame = stored.reshape(-1, *video.frame_shape)[video.n_frames // 2]
        return frame if frame.dtype == np.uint8 else to_uint8(frame)

    def before(self, rows: np.ndarray, intact: Tensor) -> dict:
        """Clip of the movie and of an intact brain, see `_encode`."""
        trs = self.dataset.tr_index[rows]
        seen = self.shown - {"text"}
        movie = {name: self.dataset.stimulus(name, trs) for name in seen}
        return self._encode({"movie": movie, "intact": self._decode(intact)})

    def after(self, intact: Tensor, lesioned: Tensor) -> dict:
        """Clip of a lesioned brain and of its difference from the intact one, see `_encode`."""
        decoded = self._decode(lesioned)
        shown = {"lesioned": decoded}
        if "video" in self.shown:
            difference = 0.5 + decoded["video"] - self._decode(intact)["video"]
            shown["difference"] = {"video": difference}
        return self._encode(shown)

    @torch.inference_mode()
    def _decode(self, bottleneck: Tensor) -> dict[str, Tensor]:
        decoded = self.model.decode(bottleneck)
        seen = self.shown - {"text"}
        return {name: decoded[f"{name}_recon"].cpu() for name in seen}

    def _encode(self, parts: dict[str, dict[str, Tensor]]) -> dict:
        """Strips of frames and MP3 of each part.

        Returns
        -------
        dict
            'strips' and 'sounds' {part: bytes}, and 'fps', 'frame' (height, width) and 'pitch',
            the pixels from one frame of a strip to the next.
        """
        clip: dict = {"strips": {}, "sounds": {}}
        for part, outputs in parts.items():
            own = {name: self.dataset.without_context(name, x) for name, x in outputs.items()}
            if "audio" in own:
                sound = self.dataset.audio_processor.features_to_sound(own["audio"], N_ITER)
                clip["sounds"][part] = encode_mp3(sound)
            if "video" in own:
                frames = to_frames(own["video"], self.dataset.video_processor)
                clip["strips"][part] = encode_strip(frames)
        if "video" in self.shown:
            video = self.dataset.video_processor
            clip["fps"] = video.n_frames / video.tr
            clip["frame"] = [video.height, video.width]
            clip["pitch"] = video.height + -video.height % BLOCK
        return clip

    @torch.inference_mode()
    def sentences(self, row: int, both: Tensor) -> list[dict]:
        """The annotation nearest to the movie's text, and to that of each of two bottlenecks."""
        decoded = self.model.core.decode(both)["text_recon"].float().cpu()
        movie = self.dataset.stimulus("text", self.dataset.tr_index[[row]])
        own = self.dataset.without_context("text", torch.cat([movie, decoded]))
        found = self.dataset.text_processor.features_to_text(own)
        parts = zip(("movie", "intact", "lesioned"), found, strict=True)
        return [
            {"name": name, "sentence": best[0][0], "cosine": float(best[0][1])}
            for name, best in parts
        ]
