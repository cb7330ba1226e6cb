"""How alike a reconstruction is to the movie, TR by TR, in the field's scores."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity
from torch import Tensor

from giblet.data import AudioProcessor, MultimodalDataset, TextProcessor, VideoProcessor
from giblet.data.provenance import check_held_out
from giblet.data.video import LIGHT

SSIM_PIXELS = 7  # side of the window that it compares
DECIBELS = 10 / np.log(10)  # of a natural logarithm of power


def video_scores(
    recon: Tensor, target: Tensor, processor: VideoProcessor | None
) -> dict[str, np.ndarray]:
    """Scores of (n_trs, video_dim) pixels in 0..1, or of features, each (n_trs,).

    Without a processor they are features.

    `mse`; `psnr` in decibels of the full scale 1; `pixel r`, Pearson's r over the pixels of all its
    frames; and `ssim` (Wang et al. 2004, IEEE TIP 13:600-612) of luminance, the mean of the TR's
    frames, of 7 x 7 pixels or more. Of features that are no pixels `mse` alone.
    """
    x, y = (values.double().numpy() for values in (recon, target))
    mse = np.square(x - y).mean(1)
    if processor is None:
        return {"mse": mse}
    with np.errstate(divide="ignore", invalid="ignore"):
        psnr = -10 * np.log10(mse)
        centred = [values - values.mean(1, keepdims=True) for values in (x, y)]
        lengths = [np.sqrt(np.square(values).sum(1)) for values in centred]
        r = (centred[0] * centred[1]).sum(1) / (lengths[0] * lengths[1])
    scores = {"mse": mse, "psnr": psnr, "pixel r": r}
    if min(processor.height, processor.width) >= SSIM_PIXELS:
        frames = [values.numpy().reshape(-1, *processor.frame_shape) for values in (recon, target)]
        if processor.colour:
            frames = [values @ LIGHT for values in frames]
        pairs = zip(*frames, strict=True)
        ssim = [structural_similarity(*pair, data_range=1.0) for pair in pairs]
        scores["ssim"] = np.reshape(ssim, (len(x), -1)).mean(1)
    return scores


def audio_scores(
    recon: Tensor, target: Tensor, processor: AudioProcessor | None
) -> dict[str, np.ndarray]:
    """Scores of the features of (n_trs, ...) sound, each (n_trs,).

    Of codes the share that is the same, `codes`. Of others `mse`, in squared SDs; of log-mel
    spectra also `lsd`, the log-spectral distance in decibels (root mean square over bands, mean
    over frames), and, where a TR has several frames, `envelope r`: the correlation of their
    loudness.
    """
    if recon.ndim > 2:
        return {"codes": (recon == target).double().flatten(1).mean(1).numpy()}
    scores = {"mse": (recon - target).double().square().mean(1).numpy()}
    if processor is None or processor.mel_shape is None:
        return scores
    x, y = (
        processor.log_power(values).double() for values in (recon, target)
    )  # (n_trs, n_frames, n_mels)
    scores["lsd"] = DECIBELS * (x - y).square().mean(2).sqrt().mean(1).numpy()
    if x.shape[1] > 1:
        loudness = [values.exp().mean(2).log() for values in (x, y)]
        a, b = (values - values.mean(1, keepdim=True) for values in loudness)
        scores["envelope r"] = ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).numpy()
    return scores


def text_scores(
    recon: Tensor, target: Tensor, processor: TextProcessor | None
) -> dict[str, np.ndarray]:
    """Scores of (n_trs, width) embeddings, each (n_trs,), NaN where nothing is annotated.

    `cosine`; and `rank` of the annotation that is nearest to the target among all annotations, by
    their cosine with the reconstruction: 1 is best, equals count half, and (n_annotations + 1) / 2
    is chance.
    """
    x, y = (values.double().numpy() for values in (recon, target))
    annotated, (x_unit, y_unit) = np.any(y != 0, axis=1), (_unit(values) for values in (x, y))
    scores = {"cosine": np.where(annotated, (x_unit * y_unit).sum(1), np.nan)}
    if processor is not None and processor.embeddings is not None:
        embeddings = np.unique(processor.embeddings, axis=0).astype(
            np.float64
        )  # a sentence said twice is one
        own = (y_unit @ embeddings.T).argmax(1)
        alike = x_unit @ embeddings.T
        better, same = (
            compare(alike, alike[np.arange(len(x)), own][:, None])
            for compare in (np.greater, np.equal)
        )
        scores["rank"] = np.where(annotated, 0.5 + better.sum(1) + same.sum(1) / 2, np.nan)
    return scores


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def score_trs(batches: Iterator[dict[str, Tensor]], dataset: MultimodalDataset) -> pd.DataFrame:
    """Every score of every TR of a split, from reconstructions in batches.

    Rows are TRs, columns (modality, score).

    Raises
    ------
    ValueError
        If any of the TRs is one of training.
    """
    check_held_out(dataset)
    score: dict[str, Callable] = {"video": video_scores, "audio": audio_scores, "text": text_scores}
    processors = {
        "video": dataset.video_processor,
        "audio": dataset.audio_processor,
        "text": dataset.text_processor,
    }
    tables = []
    start = 0
    for recon in batches:
        rows = dataset.tr_index[start : start + len(recon["text"])]
        target = {
            name: dataset.without_context(name, dataset.stimulus(name, rows))
            for name in dataset.present
        }
        parts = {
            name: score[name](recon[name], target[name], processors[name])
            for name in dataset.present
        }
        tables.append(
            pd.DataFrame(
                {(n, key): value for n, part in parts.items() for key, value in part.items()}
            )
        )
        start += len(rows)
    table = pd.concat(tables, ignore_index=True)
    return table.set_index(pd.Index(dataset.tr_index, name="TR"))
