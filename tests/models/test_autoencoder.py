import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from giblet.models import MultimodalAutoencoder, MultimodalDecoder
from giblet.models.summary import layer_table, markdown_table

SMALL = {
    "video_dim": 40,
    "audio_features": 12,
    "text_dim": 16,
    "n_voxels": 30,
    "bottleneck_dim": 8,
    "width": 1 / 64,
}


def small_model(seed: int = 0, **settings) -> MultimodalAutoencoder:
    torch.manual_seed(seed)
    return MultimodalAutoencoder(**(SMALL | settings)).double()


def small_batch(n: int = 6, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = {"fmri": 30, "video": 40, "audio": 12, "text": 16}
    return {
        k: torch.randn(n, v, generator=generator, dtype=torch.float64) for k, v in widths.items()
    }


def forward(model, data):
    return model(data["video"], data["audio"], data["text"])


def loss_of(model, data):
    return model.compute_loss(forward(model, data), *data.values())


@pytest.fixture(scope="module")
def full_size() -> MultimodalAutoencoder:
    with torch.device("meta"):
        return MultimodalAutoencoder()


def test_full_size_parameters(full_size):
    assert full_size.parameter_count() == 1_935_360_498


def test_full_size_shapes(full_size):
    with torch.device("meta"):
        outputs = full_size(torch.empty(2, 259_200), torch.empty(2, 128), torch.empty(2, 1024))
    widths = {
        "fmri_pred": 85_810,
        "bottleneck": 2048,
        "video_recon": 259_200,
        "audio_recon": 128,
        "text_recon": 1024,
    }
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        k: (2, v) for k, v in widths.items()
    }


def test_batchnorm_only_where_the_seed_lists_it_is_smaller(full_size):
    trunk = sum(
        p.numel()
        for m in full_size.decoder.trunk.modules()
        if isinstance(m, nn.BatchNorm1d)
        for p in m.parameters()
    )
    assert full_size.parameter_count() - trunk == 1_935_329_138


def test_memory_estimate_counts_weights_gradients_and_adam(full_size):
    estimate = full_size.memory_estimate(batch_size=32)
    assert (
        estimate["parameters"]
        == estimate["gradients"]
        == estimate["optimizer"] // 2
        == 4 * 1_935_360_498
    )
    assert estimate["total"] == sum(value for name, value in estimate.items() if name != "total")


def test_memory_estimate_counts_what_autograd_keeps():
    """Half the batch keeps half as much; checkpointing keeps less; the input is a lower bound."""
    model = MultimodalAutoencoder(**(SMALL | {"video_dim": 5000}))
    kept = {n: model.memory_estimate(n)["activations"] for n in (16, 32)}
    assert kept[32] == pytest.approx(2 * kept[16], rel=0.02)
    assert kept[32] > 32 * 5000 * 4
    less = MultimodalAutoencoder(**(SMALL | {"video_dim": 5000, "gradient_checkpointing": True}))
    assert less.memory_estimate(32)["activations"] < kept[32]


def test_layer_table_against_arithmetic(full_size):
    rows = layer_table(full_size)
    assert sum(row.parameters for row in rows) == full_size.parameter_count()
    for row in rows:
        pairs = list(zip(row.widths, row.widths[1:], strict=False))
        assert row.flops == sum(2 * n_in * n_out for n_in, n_out in pairs)
        norms = sum(2 * n_out for _, n_out in pairs) if "BatchNorm" in row.kind else 0
        assert row.parameters == sum((n_in + 1) * n_out for n_in, n_out in pairs) + norms


def test_architecture_page_holds_the_computed_table(full_size):
    page = (Path(__file__).parents[2] / "giblet/models/README.md").read_text()
    assert markdown_table(full_size) in page


def test_config_rebuilds_the_model():
    model = small_model(measured_weight=0.5, video_features=48, text_features=20)
    config = model.get_config()
    assert {type(value) for value in config.values()} <= {int, float, bool}
    assert (config["video_output_features"], config["text_output_features"]) == (48, 20)
    twin = MultimodalAutoencoder(**config).double()
    twin.load_state_dict(model.state_dict())
    data = small_batch()
    assert torch.equal(
        forward(twin.eval(), data)["fmri_pred"], forward(model.eval(), data)["fmri_pred"]
    )


def test_bottleneck_is_computed_from_the_voxels():
    model = small_model().eval()
    outputs = forward(model, small_batch())
    weight = model.encoder.to_bottleneck.weight
    bias = model.encoder.to_bottleneck.bias
    torch.testing.assert_close(outputs["bottleneck"], outputs["fmri_pred"] @ weight.T + bias)
    decoded = model.decode_fmri(outputs["fmri_pred"])
    torch.testing.assert_close(decoded["video_recon"], outputs["video_recon"])
    torch.testing.assert_close(model.decoder(outputs["bottleneck"])[2], outputs["text_recon"])


def test_loss_against_direct_computation():
    weights = {
        "reconstruction_weight": 2.0,
        "fmri_weight": 3.0,
        "measured_weight": 0.5,
        "audio_weight": 0.25,
    }
    model = small_model(**weights).eval()
    data = small_batch()
    outputs = forward(model, data)
    total, losses = model.compute_loss(outputs, *data.values())

    def recon(out):
        cosine = (
            (out["text_recon"] * data["text"]).sum(1)
            / out["text_recon"].norm(dim=1)
            / data["text"].norm(dim=1)
        )
        return (
            ((out["video_recon"] - data["video"]) ** 2).mean(),
            ((out["audio_recon"] - data["audio"]) ** 2).mean(),
            1 - cosine.mean(),
        )

    video, audio, text = recon(outputs)
    measured = [
        w * term
        for w, term in zip((1, 0.25, 1), recon(model.decode_fmri(data["fmri"])), strict=True)
    ]
    expected = {
        "reconstruction": video + 0.25 * audio + text,
        "fmri": ((outputs["fmri_pred"] - data["fmri"]) ** 2).mean(),
        "video_recon": video,
        "audio_recon": audio,
        "text_recon": text,
        "measured_recon": sum(measured),
    }
    expected["total"] = (
        2 * expected["reconstruction"] + 3 * expected["fmri"] + 0.5 * expected["measured_recon"]
    )
    assert losses == pytest.approx({name: value.item() for name, value in expected.items()})
    assert total.item() == pytest.approx(expected["total"].item())


def test_measured_brain_trains_the_decoder():
    """With the other terms off, only Layer 6 and the decoder learn from the measured brain."""
    model = small_model(reconstruction_weight=0.0, fmri_weight=0.0, measured_weight=1.0)
    loss_of(model, small_batch())[0].backward()
    moved = {
        name.split(".")[1]
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert moved == {"to_bottleneck", "trunk", "video_decoder", "audio_decoder", "text_decoder"}


def test_checkpointing_changes_neither_gradients_nor_running_statistics():
    plain = small_model()
    data = small_batch()
    recomputed = small_model(gradient_checkpointing=True)
    recomputed.load_state_dict(copy.deepcopy(plain.state_dict()))
    for model in (plain, recomputed):
        model.train()
        torch.manual_seed(3)
        loss_of(model, data)[0].backward()
    for (name, p), q in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    for (name, p), q in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    assert recomputed.decoder.trunk[0][1].num_batches_tracked == 1


def test_checkpointing_recomputes():
    """The sub-encoders run once more in the backward pass."""
    model = small_model(gradient_checkpointing=True)
    calls = []
    model.encoder.video_encoder[0][0].register_forward_hook(lambda *_: calls.append(1))
    loss, _ = loss_of(model.train(), small_batch())
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2


def test_encodec_codes_are_classified():
    model = small_model(use_encodec=True, n_codebooks=2, audio_frames_per_tr=5)
    data = small_batch()
    data["audio"] = torch.randint(0, 1024, (6, 2, 5), generator=torch.Generator().manual_seed(0))
    outputs = forward(model, data)
    assert outputs["audio_logits"].shape == (6, 2, 5, 1024)
    assert torch.equal(outputs["audio_recon"], outputs["audio_logits"].argmax(-1))
    assert torch.equal(
        model.eval().decoder(outputs["bottleneck"])[1],
        model.decode(outputs["bottleneck"])["audio_recon"],
    )
    _, losses = model.compute_loss(outputs, *data.values())
    log_p = F.log_softmax(outputs["audio_logits"].float(), -1)
    nats = -torch.gather(log_p, -1, data["audio"][..., None]).mean()
    assert losses["audio_recon"] == pytest.approx(nats.item(), rel=1e-5)


def test_encodec_head_is_factored():
    with torch.device("meta"):
        decoder = MultimodalDecoder(use_encodec=True)
    head = sum(p.numel() for p in decoder.audio_decoder[-1].parameters())
    assert head == (1024 + 1) * 8 * 112 * 32 + (32 + 1) * 1024


def test_width_scales_hidden_layers_only():
    with torch.device("meta"):
        half = MultimodalAutoencoder(width=0.5)
    rows = {row.number: row.widths for row in layer_table(half)}
    assert rows["2A"] == (259_200, 2048, 1024, 512)
    assert rows["5"] == (2048, 85_810)
    assert rows["6"] == (85_810, 2048)
    assert rows["8"] == (2048, 4000)
    assert rows["12A"] == (256, 512, 259_200)


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
def test_wrong_input_names_both_shapes(modality):
    data = small_batch()
    expected = data[modality].shape[1]
    data[modality] = data[modality][:, 1:]
    with pytest.raises(
        ValueError,
        match=rf"{modality} has shape \(6, {expected - 1}\), expected \(batch, {expected}\)",
    ):
        forward(small_model(), data)


@pytest.mark.parametrize("modality", ["video", "audio", "text", "fmri"])
def test_wrong_target_names_both_shapes(modality):
    model = small_model()
    data = small_batch()
    outputs = forward(model, data)
    expected = data[modality].shape[1]
    data[modality] = data[modality][:, 1:]
    with pytest.raises(
        ValueError, match=rf"{modality}_target .*\(6, {expected - 1}\) .*\(6, {expected}\)"
    ):
        model.compute_loss(outputs, *data.values())


def test_bfloat16_autocast_keeps_losses_in_float32():
    model = small_model().float()
    data = {name: value.float() for name, value in small_batch().items()}
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses = loss_of(model, data)
    assert loss.dtype == torch.float32
    _, reference = loss_of(small_model().float(), data)
    assert losses["fmri"] == pytest.approx(reference["fmri"], rel=0.05)


WIDTHS = {"video_dim": 12, "audio_features": 6, "text_dim": 5}
MODALITY = dict(zip(WIDTHS, ("video", "audio", "text"), strict=True))


@pytest.mark.parametrize(
    "present", [("video_dim",), ("audio_features",), ("text_dim",), ("video_dim", "text_dim")]
)
def test_modality_of_width_0_is_absent(present):
    widths = {name: width if name in present else 0 for name, width in WIDTHS.items()}
    model = MultimodalAutoencoder(
        **widths, n_voxels=9, bottleneck_dim=4, width=1 / 64, measured_weight=1.0
    )
    absent = [MODALITY[name] for name in WIDTHS if name not in present]
    names = {name.split(".")[1] for name, _ in model.named_parameters()}
    assert not names & {f"{name}_{part}" for name in absent for part in ("encoder", "decoder")}
    assert model.decoder.trunk[-1][0].out_features == len(present) * 8
    stimulus = [torch.rand(7, width) for width in widths.values()]
    outputs = model(*stimulus)
    loss, losses = model.compute_loss(outputs, torch.randn(7, 9), *stimulus)
    for name in absent:
        assert outputs[f"{name}_recon"].shape == (7, 0)
        assert losses[f"{name}_recon"] == 0.0
    assert set(losses) == {"total", "reconstruction", "fmri", "measured_recon"} | {
        f"{n}_recon" for n in MODALITY.values()
    }
    assert losses["reconstruction"] == pytest.approx(
        sum(losses[f"{name}_recon"] for name in MODALITY.values())
    )
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.memory_estimate(7)["total"] > 0
    twin = MultimodalAutoencoder(**model.get_config())
    twin.load_state_dict(model.state_dict())


def test_model_without_any_stimulus():
    with pytest.raises(ValueError, match=r"the widths are \{'video': 0, .*expected one above 0"):
        MultimodalAutoencoder(video_dim=0, audio_features=0, text_dim=0, n_voxels=9)
