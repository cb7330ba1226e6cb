"""The EnCodec path with a codec of random weights: times and shapes need no hub."""

import sys

import numpy as np
import pytest
import torch

from giblet.data import AudioProcessor
from giblet.data.audio import RATE, read_sound
from giblet.data.encodec import HOP, frames_per_tr


@pytest.fixture
def sound(rng) -> np.ndarray:
    return (0.1 * rng.standard_normal(round(9 * RATE))).astype(np.float32)


@pytest.mark.parametrize(("tr", "n_frames"), [(1.5, 112), (2.0, 150), (0.71, 53)])
def test_frames_of_a_tr(tr, n_frames):
    assert frames_per_tr(tr) == n_frames


@pytest.mark.parametrize("tr", [1.5, 2.0])
def test_latents_are_those_of_the_whole_sound(codec, sound, tr):
    """TR i starts at frame round(75 * tr * i) of what the encoder gives for the whole sound."""
    transformers = pytest.importorskip("transformers")
    n_trs = int(9 / tr)
    latents = AudioProcessor("encodec_latents", tr, codec).features(sound, n_trs)
    with torch.no_grad():
        model = transformers.EncodecModel.from_pretrained(codec).eval()
        whole = model.encoder(torch.from_numpy(np.pad(sound, (0, 100 * HOP)))[None, None])[
            0
        ].T.numpy()
    n_frames = frames_per_tr(tr)
    for index in range(n_trs):
        start = int(np.floor(75 * tr * index + 0.5))
        expected = whole[start : start + n_frames]
        assert np.allclose(latents[index].reshape(n_frames, 128), expected, atol=1e-4)


def test_codes_are_those_of_the_latents(codec, sound):
    transformers = pytest.importorskip("transformers")
    processor = AudioProcessor("encodec_codes", codec=codec)
    codes = processor.features(sound, 6)
    assert (codes.shape, codes.dtype) == ((6, 8, 112), np.int16)
    assert 0 <= codes.min() < codes.max() < 1024
    latents = AudioProcessor("encodec_latents", codec=codec).features(sound, 6).reshape(6, 112, 128)
    model = transformers.EncodecModel.from_pretrained(codec).eval()
    with torch.no_grad():
        direct = model.quantizer.encode(torch.from_numpy(latents[2].T[None]), 6.0)[:, 0]
    assert np.array_equal(codes[2], direct)


def test_long_sound_is_coded_in_blocks(codec, rng, monkeypatch):
    """Blocks hear enough of the past: latents do not depend on where they are cut."""
    sound = (0.1 * rng.standard_normal(round(24 * RATE))).astype(np.float32)
    whole = AudioProcessor("encodec_latents", codec=codec).features(sound, 16)
    monkeypatch.setattr("giblet.data.encodec.BLOCK", 500)
    blocks = AudioProcessor("encodec_latents", codec=codec).features(sound, 16)
    assert np.abs(blocks - whole).max() < 0.01 * np.abs(whole).max()


@pytest.mark.parametrize("kind", ["encodec_latents", "encodec_codes"])
def test_back_to_sound(codec, sound, tmp_path, kind):
    """The decoder's sound for the same frames, with the frame left out every other TR repeated."""
    transformers = pytest.importorskip("transformers")
    processor = AudioProcessor(kind, codec=codec)
    features = processor.features(sound, 6)
    processor.features_to_audio(features, tmp_path / "a.wav")
    heard = read_sound(tmp_path / "a.wav")
    assert len(heard) == 9 * RATE
    model = transformers.EncodecModel.from_pretrained(codec).eval()
    with torch.no_grad():
        if kind == "encodec_codes":
            first = model.quantizer.decode(torch.from_numpy(features[0]).long()[:, None])
        else:
            first = torch.from_numpy(features[0].reshape(112, 128).T[None])
        direct = model.decoder(first)[0, 0].numpy().clip(-1, 1)
    n = 100 * HOP  # causal: the first TR does not depend on the others
    assert np.allclose(heard[:n], direct[:n], atol=1e-3)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ImportError, match=r"need the package transformers: pip install 'giblet\[encodec\]'"
    ):
        AudioProcessor("encodec_codes").features(np.zeros(RATE, np.float32), 1)


def test_data_set_of_codes_trains(simulated, tiny_video, codec, tmp_path):
    """From movie to cross-entropy: codes and `model_dims` fit the model's EnCodec mode."""
    from giblet.data import MultimodalDataset
    from giblet.models import MultimodalAutoencoder

    audio = AudioProcessor("encodec_codes", codec=codec)
    data = MultimodalDataset(
        simulated,
        video_processor=tiny_video,
        audio_processor=audio,
        cache_dir=tmp_path,
        progress=False,
    )
    batch = data[[0, 1, 2]]
    assert (batch["audio"].shape, batch["audio"].dtype) == ((3, 8, 112), torch.int64)
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=8, width=1 / 64)
    outputs = model(batch["video"], batch["audio"], batch["text"])
    loss, losses = model.compute_loss(
        outputs, *(batch[name] for name in ("fmri", "video", "audio", "text"))
    )
    loss.backward()
    assert losses["audio_recon"] == pytest.approx(np.log(1024), rel=0.1)  # nothing learned yet
    with pytest.raises(ValueError, match="audio holds codes, which have no mean"):
        data.train_mean("audio")
