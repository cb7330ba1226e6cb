import numpy as np
import pytest
import torch

from giblet.analysis.ridge_decoding import ridge_decoder
from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.recipe import build_model
from giblet.ridge_start import start_from_ridge
from giblet.training import Trainer, TrainingConfig

N_TRS, N_VOXELS = 300, 320


@pytest.fixture(scope="module")
def world() -> MultimodalDataset:
    """Three modalities that voxels follow, of few directions each."""
    rng = np.random.default_rng(0)
    latents = {name: rng.standard_normal((N_TRS, 3)) for name in ("video", "audio", "text")}
    widths = {"video": 340, "audio": 24, "text": 18}
    stimuli = {}
    fmri = rng.standard_normal((N_TRS, N_VOXELS))
    for name, values in latents.items():
        noise = 0.1 * rng.standard_normal((N_TRS, widths[name]))
        stimuli[name] = values @ rng.standard_normal((3, widths[name])) + noise
        fmri += values @ rng.standard_normal((3, N_VOXELS))
    return MultimodalDataset.from_arrays(**stimuli, fmri=fmri, average=True)


def cut_ridge(data: MultimodalDataset, name: str, fmri: np.ndarray, n: int) -> np.ndarray:
    """Ridge decoding with the decoder's alpha, cut to its `n` largest components, in float64."""
    ridge = ridge_decoder(data, name)
    train = data.select("train", average=True)
    x = train.fmri().astype(np.float64)
    y = train.stimulus(name, train.tr_index).double().numpy()
    own = np.isin(train.tr_index, ridge.train.tr_index)
    x, y = x[own], y[own]
    centred = x - x.mean(0)
    scale = np.trace(centred @ centred.T) / len(x)
    gram = centred.T @ centred + ridge.alpha * scale * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (y - y.mean(0)))
    _, _, directions = np.linalg.svd(centred @ weights, full_matrices=False)
    kept = directions[:n].T @ directions[:n]
    return (fmri - x.mean(0)) @ weights @ kept + y.mean(0)


@pytest.mark.parametrize("direct", [True, False])
def test_the_decoder_is_ridge_decoding(world, direct, tmp_path):
    """In eval mode to float64 rounding, for the model in pixels and the one in the span."""
    settings = world.model_dims | {"width": 1 / 32, "bottleneck_dim": 40}
    model = (
        MultimodalAutoencoder(**settings)
        if direct
        else SpanAutoencoder(fit_span(world, tmp_path, dtype=np.float64), **settings)
    ).double()
    start_from_ridge(model, world)
    test = world.select("test", average=True)
    fmri = test.fmri().astype(np.float64)
    with torch.no_grad():
        outputs = model.eval().decode_fmri(torch.from_numpy(fmri))
    for name in ("video", "audio", "text"):
        want = cut_ridge(world, name, fmri, n=8)  # 512 / 32 units of each modality, in pairs
        got = outputs[f"{name}_recon"].numpy()
        assert np.abs(got - want).max() < 1e-5 * np.abs(want).max(), name
    assert model.started_as == "ridge"


def test_what_is_left_over_can_be_trained(world):
    """Units beside the pairs reach the output with weight 0, and get a gradient."""
    model = MultimodalAutoencoder(**world.model_dims, width=1 / 32, bottleneck_dim=40)
    start_from_ridge(model, world)
    head = model.decoder.text_decoder
    pairs = 16
    assert head.weight[:, :pairs].abs().sum() > 0
    batch = world[list(range(32))]
    loss, *_ = model.train().batch_loss(
        {name: batch[name] for name in batch if name != "subject_id"}
    )
    loss.backward()
    leftover = model.decoder.video_decoder[2].weight
    assert leftover[:, 16:].abs().sum() == 0
    assert leftover.grad[:, 16:].abs().sum() > 0


def test_an_absent_modality_and_a_narrow_model(world):
    text = world.features.text
    data = MultimodalDataset.from_arrays(text=text, fmri=world.features.fmri, average=True)
    model = MultimodalAutoencoder(**data.model_dims, width=1 / 32, bottleneck_dim=40)
    start_from_ridge(model, data)
    assert model.started_as == "ridge"
    narrow = MultimodalAutoencoder(**world.model_dims, width=1 / 512, bottleneck_dim=40)
    with pytest.raises(ValueError, match=r"width is 0\.00195.*, expected one whose layers"):
        start_from_ridge(narrow, world)
    assert narrow.started_as == "random"


def test_too_few_trs_say_so(rng, capsys):
    data = MultimodalDataset.from_arrays(
        text=rng.random((60, 9)), fmri=rng.random((60, 5)), average=True
    )
    model = build_model(data, width=1 / 32, bottleneck_dim=8)
    assert model.started_as == "random"
    assert "The decoder starts at random: ridge regression has" in capsys.readouterr().out


def test_the_decoder_trains_at_its_own_rate(world, tmp_path):
    sizes = world.model_dims | {"width": 1 / 32, "bottleneck_dim": 40, "decoder_rate": 0.25}
    trainer = Trainer(
        MultimodalAutoencoder(**sizes),
        world,
        world.select("val"),
        TrainingConfig(epochs=1, device="cpu"),
    )
    trainer.fit(tmp_path / "run", progress=False)
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates[1] == pytest.approx(0.25 * rates[0])
    n_decoding = sum(p.numel() for p in trainer.optimizer.param_groups[1]["params"])
    decoder = trainer.model.decoder.parameters()
    layer_6 = trainer.model.encoder.to_bottleneck.parameters()
    assert n_decoding == sum(p.numel() for p in [*decoder, *layer_6])
