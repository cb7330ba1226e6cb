"""The contract: every code example of the seed document runs, at reduced size.

`seed_examples.md` holds the examples word for word. Each is run after substitutions that only make
it small (`SMALLER`), fill an ellipsis or name the CPU. The two configurations that no Python can
run are corrected, and are shown not to run.
"""

import gc
import re
from pathlib import Path

import pytest
import torch
from torch import distributed, nn, optim

from giblet.data import AudioProcessor, MultimodalDataset, VideoProcessor
from giblet.models import MultimodalAutoencoder

EXAMPLES = dict(
    re.findall(
        r"^## (.+?)\n\n```python\n(.*?)```",
        Path(__file__).with_name("seed_examples.md").read_text(),
        re.M | re.S,
    )
)
IMPOSSIBLE = {"Standard Configuration": 256, "Memory-Optimized Configuration": 128}
VIDEO_DIM = 18 * 9 * 16
N_VOXELS = 120
BATCH = 4
SMALLER = {
    "video_height=90": "video_height=9",
    "video_width=160": "video_width=16",
    "259200": str(VIDEO_DIM),
    "n_voxels=85810": f"n_voxels={N_VOXELS}",
}


def model_arguments(**overrides) -> dict:
    return {"video_height": 9, "video_width": 16, "n_voxels": N_VOXELS, "width": 1 / 32} | overrides


def small(code: str, fill: str = "") -> str:
    """Reduce sizes, fill `Class(...)`, and give every constructor the width dial."""
    for full, reduced in SMALLER.items():
        code = code.replace(full, reduced)
    return re.sub(
        r"(Multimodal(?:Autoencoder|Encoder|Decoder))\(\n", r"\1(\n    width=1 / 32,\n", code
    ).replace("...", fill)


def run(heading: str, code: str | None = None, fill: str = "", **names) -> dict:
    """Run an example with `names` defined; return everything it defined."""
    exec(compile(small(code or EXAMPLES[heading], fill), heading, "exec"), names)
    return names


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"video": VIDEO_DIM, "audio": 128, "text": 1024, "fmri": N_VOXELS}
    return {name: torch.randn(BATCH, width, generator=generator) for name, width in shapes.items()}


@pytest.fixture
def names() -> dict:
    """What the inference examples take for granted."""
    torch.manual_seed(0)
    model = MultimodalAutoencoder(**model_arguments())
    data = batch()
    processors = {"video_processor": VideoProcessor(9, 16), "audio_processor": AudioProcessor()}
    return {"model": model, "torch": torch, "actual_fmri": data["fmri"]} | data | processors


def test_examples_are_all_of_the_seed():
    assert len(EXAMPLES) == 14


def test_multimodal_autoencoder():
    data = batch()
    out = run("MultimodalAutoencoder", actual_fmri=data["fmri"], **data)
    assert out["outputs"]["bottleneck"].shape == (BATCH, 2048)
    assert out["outputs"]["fmri_pred"].shape == (BATCH, N_VOXELS)
    assert out["loss"].item() == pytest.approx(out["losses_dict"]["total"])


def test_multimodal_encoder():
    out = run("MultimodalEncoder", **batch())
    assert out["fmri_pred"].shape == (BATCH, N_VOXELS)
    assert out["bottleneck"].shape == (BATCH, 2048)


def test_multimodal_decoder():
    out = run("MultimodalDecoder", bottleneck=torch.randn(BATCH, 2048))
    assert out["video_recon"].shape == (BATCH, VIDEO_DIM)
    assert out["audio_recon"].shape == (BATCH, 8, 112)
    assert out["audio_recon"].dtype == torch.int64
    assert out["text_recon"].shape == (BATCH, 1024)


@pytest.mark.parametrize("heading", IMPOSSIBLE)
def test_configurations(heading):
    with pytest.raises(SyntaxError, match="keyword argument repeated"):
        run(heading)
    head, _, tail = EXAMPLES[heading].rpartition(
        "audio_features="
    )  # the second one means the sub-encoder's width
    corrected = f"{head}audio_output_features={tail}"
    model = run(heading, corrected, MultimodalAutoencoder=MultimodalAutoencoder)["model"]
    assert model.encoder.gradient_checkpointing == (heading == "Memory-Optimized Configuration")
    config = model.get_config()
    assert config["audio_features"] == 128
    assert config["audio_output_features"] == IMPOSSIBLE[heading]
    loss, _ = model.compute_loss(
        model(*list(batch().values())[:3]),
        *(batch()[k] for k in ("fmri", "video", "audio", "text")),
    )
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_multi_gpu_training(tmp_path):
    code = EXAMPLES["Multi-GPU Training"].replace(
        "[local_rank]", "None"
    )  # DDP on the CPU takes no device ids
    code = f"from giblet.models import MultimodalAutoencoder\n{code}".replace(
        "    loss.backward", "    before = weight()\n    loss.backward"
    )
    code = code.replace("dataloader:", "dataloader:\n    video, audio, text, fmri = batch.values()")
    fill = ", ".join(f"{name}={value}" for name, value in model_arguments().items())
    head, loop = code.replace("...", fill).split("# Training loop")
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        names = run("Multi-GPU Training", head, device=torch.device("cpu"), local_rank=0)
        model = names["model"]
        names |= {
            "weight": lambda: model.module.encoder.to_voxels.weight.detach().clone(),
            "dataloader": [batch()],
        }
        names["optimizer"] = optim.SGD(model.parameters(), lr=0.1)
        after = run("Multi-GPU Training", loop, **names)
        assert isinstance(model, nn.parallel.DistributedDataParallel)
        assert not torch.equal(after["before"], names["weight"]())
    finally:
        # The last holder of a group that is destroyed with the GIL held can wait for ever.
        names = after = model = None
        gc.collect()
        distributed.destroy_process_group()


def test_forward_pass_output(names):
    promised = re.findall(r"'(\w+)': torch.Tensor", EXAMPLES["Forward Pass Output"])
    outputs = names["model"](names["video"], names["audio"], names["text"])
    assert sorted(outputs) == sorted(promised)
    run("Forward Pass Output", EXAMPLES["Forward Pass Output"].split("# outputs is")[0], **names)
    widths = {
        "fmri_pred": N_VOXELS,
        "bottleneck": 2048,
        "video_recon": VIDEO_DIM,
        "audio_recon": 128,
        "text_recon": 1024,
    }
    assert {name: output.shape[1] for name, output in outputs.items()} == widths


def test_loss_computation_output(names):
    targets = {f"{name}_target": names[name] for name in ("fmri", "video", "audio", "text")}
    outputs = names["model"](names["video"], names["audio"], names["text"])
    code, promised = EXAMPLES["Loss Computation Output"].split("# losses_dict:")
    out = run("Loss Computation Output", code, outputs=outputs, **targets, **names)
    assert sorted(out["losses_dict"]) == sorted(re.findall(r"'(\w+)': float", promised))
    assert out["loss"].ndim == 0
    assert {type(value) for value in out["losses_dict"].values()} == {float}


def test_basic_training_loop(simulated, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(simulated)
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES["Basic Training Loop"].replace(
        "MultimodalAutoencoder(...)", "MultimodalAutoencoder(**sizes)"
    )
    code = code.replace("model.train()", "start = weight(model)\nmodel.train()")
    n_voxels = MultimodalDataset("data/", progress=False).model_dims["n_voxels"]
    sizes = {"n_voxels": n_voxels, "bottleneck_dim": 16, "width": 1 / 128}
    weight = lambda model: model.encoder.to_voxels.weight.detach().clone()  # noqa: E731
    out = run("Basic Training Loop", code, sizes=sizes, num_epochs=1, device="cpu", weight=weight)
    assert out["batch"]["video"].shape[1] == 259_200
    assert "Epoch 0, Loss: " in capsys.readouterr().out
    assert not torch.equal(out["start"], weight(out["model"]))


def test_predict_brain_activity(names, capsys):
    out = run("Inference: Predict Brain Activity", **names)
    expected = torch.corrcoef(torch.stack([out["fmri_prediction"].ravel(), names["fmri"].ravel()]))[
        0, 1
    ]
    assert capsys.readouterr().out == f"Brain prediction correlation: {expected:.4f}\n"


def test_reconstruct_stimuli(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("Inference: Reconstruct Stimuli", **names)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reconstructed.mp4",
        "reconstructed.wav",
    ]


def test_lesion_simulation(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run("Lesion Simulation", **names)
    assert (tmp_path / "lesioned_stimulus.mp4").stat().st_size > 0
    assert not torch.allclose(out["video_recon"], out["outputs"]["video_recon"])
    lesioned = out["bottleneck_lesioned"]
    assert lesioned[:, 100:200].abs().sum() == 0
    assert torch.equal(lesioned[:, 200:], out["bottleneck"][:, 200:])


def test_checkpoint(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = names["model"]
    optimizer = optim.Adam(model.parameters())
    run("Save Checkpoint", model=model, optimizer=optimizer, epoch=3, loss=0.5, torch=torch)
    loaded = {
        "MultimodalAutoencoder": MultimodalAutoencoder,
        "optim": optim,
        "torch": torch,
        "device": "cpu",
    }
    out = run("Load Checkpoint", **loaded)
    assert out["start_epoch"] == 4
    for name, value in model.state_dict().items():
        assert torch.equal(value, out["model"].state_dict()[name])
