import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from giblet.analysis.scores import audio_scores, score_trs, text_scores, video_scores
from giblet.data import AudioProcessor, TextProcessor, VideoProcessor


@pytest.mark.parametrize("colour", [False, True])
def test_video_against_scikit_image(rng, colour):
    processor = VideoProcessor(height=12, width=16, frame_skip=12, colour=colour)
    x, y = (torch.from_numpy(rng.random((4, processor.video_dim), np.float32)) for _ in range(2))
    scores = video_scores(x, y, processor)
    for index in range(4):
        a, b = (values[index].numpy().reshape(-1, *processor.frame_shape) for values in (x, y))
        light = (x @ np.float32([0.299, 0.587, 0.114]) if colour else x for x in (a, b))
        ssim = [structural_similarity(*pair, data_range=1.0) for pair in zip(*light, strict=True)]
        assert scores["mse"][index] == pytest.approx(mean_squared_error(a, b), rel=1e-6)
        assert scores["psnr"][index] == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=1.0), rel=1e-6
        )
        assert scores["ssim"][index] == pytest.approx(np.mean(ssim), rel=1e-6)
        assert scores["pixel r"][index] == pytest.approx(
            pearsonr(a.ravel(), b.ravel())[0], rel=1e-6
        )


def test_sound_against_its_definition(rng):
    """3 dB louder everywhere is a distance of 3 dB, and the envelope is that of the power."""
    mean, sd = (rng.standard_normal(2048).astype(np.float32) for _ in range(2))
    processor = AudioProcessor("mel", mean=mean, sd=np.abs(sd) + 1)
    target = torch.from_numpy(rng.standard_normal((3, 2048), np.float32))
    louder = target + torch.from_numpy(np.float32(3 * np.log(10) / 10) / processor.sd)
    scores = audio_scores(louder, target, processor)
    assert scores["lsd"] == pytest.approx([3] * 3, rel=1e-4)
    assert scores["envelope r"] == pytest.approx([1] * 3, rel=1e-5)
    other = torch.from_numpy(rng.standard_normal((3, 2048), np.float32))
    scores = audio_scores(other, target, processor)
    power = [
        np.exp(x.numpy() * processor.sd + processor.mean).reshape(3, 32, 64)
        for x in (other, target)
    ]
    decibels = [10 * np.log10(x.astype(np.float64)) for x in power]
    assert scores["lsd"] == pytest.approx(
        np.sqrt(((decibels[0] - decibels[1]) ** 2).mean(2)).mean(1), rel=1e-4
    )
    loudness = [np.log(x.mean(2)) for x in power]
    expected = [pearsonr(loudness[0][i], loudness[1][i])[0] for i in range(3)]
    assert scores["envelope r"] == pytest.approx(expected, abs=1e-4)
    assert scores["mse"] == pytest.approx(((other - target) ** 2).mean(1).numpy(), rel=1e-5)


def test_codes_are_counted(rng):
    target = torch.from_numpy(rng.integers(0, 1024, (2, 8, 10)))
    recon = target.clone()
    recon[1, :, :5] = (recon[1, :, :5] + 1) % 1024
    assert audio_scores(recon, target, AudioProcessor("encodec_codes"))["codes"].tolist() == [
        1,
        0.5,
    ]


def test_text_rank_by_hand():
    """Three sentences, one of them said twice; the last TR is not annotated."""
    embeddings = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    processor = TextProcessor(annotations=("a", "b", "c", "b"), embeddings=embeddings)
    target = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]])
    recon = torch.tensor([[2.0, 1, 0], [3, 2, 1], [1, 1, 1], [1, 0, 0]])
    scores = text_scores(recon, target, processor)
    assert scores["rank"][:3].tolist() == [1, 2, 2]
    expected = [2 / np.sqrt(5), 2 / np.sqrt(14), 1 / np.sqrt(3)]
    assert scores["cosine"][:3] == pytest.approx(expected, rel=1e-6)
    assert np.isnan(scores["rank"][3])
    assert np.isnan(scores["cosine"][3])


def test_every_tr_is_scored(data, rng):
    test = data["test"]
    batch = test[list(range(test.n_trs))]
    scores = score_trs(iter([{name: batch[name] for name in ("video", "audio", "text")}]), test)
    assert scores.index.tolist() == test.tr_index.tolist()
    assert scores[("video", "mse")].max() == 0
    assert scores[("text", "cosine")].dropna().to_numpy() == pytest.approx(1, abs=1e-5)
    assert scores[("text", "rank")].dropna().max() == 1
