from dataclasses import replace

import numpy as np
import pytest
import torch

from giblet.analysis.lesion_cost import random_lesions, size_bin
from giblet.analysis.lesions import Brain, Lesion
from giblet.analysis.parts import Parts, part_sweep
from giblet.data import AudioProcessor, MultimodalDataset
from giblet.models import MultimodalAutoencoder


def float64_scores(brain: Brain, bottleneck: torch.Tensor) -> dict[str, float]:
    """R2 of every part from whole reconstructions, as arrays of frames and of bands."""
    test = brain.dataset
    video = test.video_processor
    n_frames, n_mels = test.audio_processor.mel_shape
    with torch.no_grad():
        recon = dict(zip(("video", "audio", "text"), brain.model.decoder(bottleneck), strict=True))
    whole = {}
    for name in ("video", "audio"):
        shown = test.stimulus(name, test.tr_index).double()
        mean = test.train_mean(name).double().expand_as(shown)
        whole[name] = [
            test.without_context(name, x).numpy() for x in (recon[name].double(), shown, mean)
        ]
    frames = [
        x.reshape(test.n_trs, -1, *video.frame_shape)[:, video.n_frames // 2]
        for x in whole["video"]
    ]
    height, width = video.frame_shape[:2]
    mels = np.linspace(*(2595 * np.log10(1 + np.array([40, 10_000]) / 700)), n_mels + 2)[1:-1]
    hz = 700 * (10 ** (mels / 2595) - 1)
    bands = [x.reshape(test.n_trs, n_frames, n_mels) for x in whole["audio"]]
    cut = {
        "left": [x[:, :, : width // 2] for x in frames],
        "right": [x[:, :, width // 2 :] for x in frames],
        "upper": [x[:, : height // 2] for x in frames],
        "lower": [x[:, height // 2 :] for x in frames],
        "below 500 Hz": [x[..., hz < 500] for x in bands],
        "500 Hz to 2 kHz": [x[..., (hz >= 500) & (hz < 2000)] for x in bands],
        "above 2 kHz": [x[..., hz >= 2000] for x in bands],
    }
    return {
        name: 1 - np.square(given - shown).sum() / np.square(shown - mean).sum()
        for name, (given, shown, mean) in cut.items()
    }


def assert_as_float64(brain: Brain, mask: np.ndarray) -> None:
    parts = Parts(brain)
    assert parts.intact == pytest.approx(float64_scores(brain, brain.bottleneck), abs=1e-5)
    lesioned = Lesion(brain, mask).bottleneck
    expected = float64_scores(brain, lesioned)
    assert parts.of_bottleneck(lesioned) == pytest.approx(expected, abs=1e-5)


def test_parts_of_pixels_and_bands(brain, region):
    assert_as_float64(brain, region)


def test_colour_context_and_spectra_in_time(simulated, tiny_video):
    """The middle frame of the TR itself, whose context and spectra are left out."""
    test = MultimodalDataset(
        simulated,
        split="test",
        average=True,
        context=(2, 1),
        video_processor=replace(tiny_video, colour=True),
        audio_processor=AudioProcessor("mel"),
        progress=False,
    )
    torch.manual_seed(0)
    model = MultimodalAutoencoder(**test.model_dims, bottleneck_dim=8, width=1 / 64).eval()
    brain = Brain(model, test, test.fmri())
    assert_as_float64(brain, np.arange(test.fmri().shape[1]) % 3 == 0)


def test_sweep_against_its_lesions_and_its_null(brain, region):
    """Masks of one size share their null, which the seed alone decides."""
    masks = {"half": region, "other half": np.roll(region, 7), "few": np.arange(len(region)) < 9}
    table = part_sweep(brain, masks, n_permute=19, random_state=3)
    assert table.equals(part_sweep(brain, masks, n_permute=19, random_state=3))
    other = part_sweep(brain, masks, n_permute=19, random_state=4)
    assert table["lost"].equals(other["lost"])
    assert not table["low"].equals(other["low"])
    assert table.columns.names[0] == "SIMULATED data"
    intact = float64_scores(brain, brain.bottleneck)
    for name, mask in masks.items():
        lesioned = float64_scores(brain, Lesion(brain, mask).bottleneck)
        lost = {part: intact[part] - lesioned[part] for part in intact}
        assert table["lost"].loc[name].to_dict() == pytest.approx(lost, abs=1e-5)
    assert table["low"].loc["half"].equals(table["low"].loc["other half"])

    rng = np.random.default_rng(3)
    size = size_bin(int(region.sum()), len(region))
    drawn = random_lesions(brain.dataset, size, 19, rng)
    null = [float64_scores(brain, Lesion(brain, one).bottleneck) for one in drawn]
    for part in intact:
        costs = [intact[part] - scores[part] for scores in null]
        low, high = np.quantile(costs, [0.025, 0.975])
        assert table.loc["half", ("low", part)] == pytest.approx(low, abs=1e-5)
        assert table.loc["half", ("high", part)] == pytest.approx(high, abs=1e-5)


def test_film_of_arrays_has_halves_and_features_have_no_parts(rng):
    film = rng.integers(0, 256, (300, 2, 6, 8, 3)).astype(np.uint8)
    audio = rng.standard_normal((300, 5))
    fmri = rng.standard_normal((300, 6))
    found = []
    for video in (film, None):
        test = MultimodalDataset.from_arrays(
            video=video, audio=audio, fmri=fmri, split="test", average=True
        )
        torch.manual_seed(0)
        model = MultimodalAutoencoder(**test.model_dims, bottleneck_dim=4, width=1 / 64).eval()
        found.append(Brain(model, test, test.fmri()))
    assert list(Parts(found[0]).intact) == ["left", "right", "upper", "lower"]
    with pytest.raises(ValueError, match="no film and no log-mel sound, of which parts"):
        Parts(found[1])
