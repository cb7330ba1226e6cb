"""Sound as EnCodec (24 kHz) latents or codes, and back. Needs the extra `encodec`.

Défossez et al. (2022), High Fidelity Neural Audio Compression, arXiv 2210.13438.
"""

import numpy as np
import torch

HOP = 320  # samples a frame: 75 frames a second at 24 kHz
BANDWIDTH = 6.0  # kbit/s: 8 codebooks
# frames coded at a time, and heard around them
BLOCK = 75 * 60
BEFORE = 75 * 4
AFTER = 75


def frames_per_tr(tr: float) -> int:
    """Whole frames in one TR: 112 at 1.5 s."""
    return int(tr * 75 + 1e-9)


def load_codec(weights: str):
    """The codec of a local folder or a hub id, in evaluation mode."""
    try:
        from transformers import EncodecModel
    except ImportError:
        raise ImportError(
            "EnCodec features need the package transformers: pip install 'giblet[encodec]'."
        ) from None
    return EncodecModel.from_pretrained(weights).eval()


@torch.no_grad()
def encode(sound: np.ndarray, n_trs: int, tr: float, weights: str, codes: bool) -> np.ndarray:
    """Features of every TR of 24 kHz sound, whose frames start at frame round(75 * tr * i).

    Returns
    -------
    (n_trs, n_frames * 128) float32 latents, or (n_trs, 8, n_frames) int16 codes
    """
    codec = load_codec(weights)
    starts = _starts(n_trs, tr)
    n_frames = frames_per_tr(tr)
    n_total = int(starts[-1]) + n_frames
    padded = torch.zeros((n_total + AFTER) * HOP)
    padded[: len(sound)] = torch.from_numpy(np.ascontiguousarray(sound[: len(padded)]))
    blocks = []
    for first in range(
        0, n_total, BLOCK
    ):  # the codec hears the past through convolutions and an LSTM
        before = min(BEFORE, first)
        last = min(first + BLOCK, n_total)
        latents = codec.encoder(padded[None, None, (first - before) * HOP : (last + AFTER) * HOP])
        latents = latents[..., before : before + last - first]
        blocks.append(codec.quantizer.encode(latents, BANDWIDTH)[:, 0] if codes else latents[0])
    frames = torch.cat(blocks, dim=-1)[
        :, torch.from_numpy(starts[:, None] + np.arange(n_frames))
    ].movedim(1, 0)
    if codes:
        return frames.to(torch.int16).numpy()
    return frames.transpose(1, 2).reshape(n_trs, -1).contiguous().numpy()


@torch.no_grad()
def decode(features: torch.Tensor, tr: float, weights: str, codes: bool) -> np.ndarray:
    """Sound (n_samples,) of `encode`'s features.

    The frame left out at the end of a TR repeats the one before.
    """
    codec = load_codec(weights)
    n_trs = len(features)
    n_frames = frames_per_tr(tr)
    starts = _starts(n_trs, tr)
    frame = np.minimum(np.arange(starts[-1] + n_frames), starts[-1] + n_frames - 1)
    row = np.searchsorted(starts, frame, side="right") - 1
    column = np.minimum(frame - starts[row], n_frames - 1)
    if codes:
        latents = codec.quantizer.decode(features.long()[row, :, column].T[:, None])
    else:
        latents = features.float().reshape(n_trs, n_frames, -1)[row, column].T[None]
    return codec.decoder(latents)[0, 0].numpy()


def _starts(n_trs: int, tr: float) -> np.ndarray:
    return np.floor(75 * tr * np.arange(n_trs) + 0.5).astype(np.int64)
