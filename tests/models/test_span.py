"""Span training against the full-size model itself, in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from giblet.basis import Span, fit_basis
from giblet.data import CoordinateDataset, MultimodalDataset, fit_span
from giblet.data.coordinates import project
from giblet.data.features import Features, mean_response
from giblet.models import MultimodalAutoencoder, SpanAutoencoder

N_PIXELS = 400
N_AUDIO = 12
N_TEXT = 16
N_VOXELS = 300
N_SUBJECTS = 5
N_TRAIN = 60
N_TEST = 20
SETTINGS = {"audio_features": N_AUDIO, "text_dim": N_TEXT, "bottleneck_dim": 10, "width": 1 / 64}
SETTINGS |= {"measured_weight": 0.7, "fmri_weight": 2.0, "video_weight": 1.5}


def blocks_of(matrix: np.ndarray, n_columns: int = 64):
    return lambda: (
        matrix[:, start : start + n_columns] for start in range(0, matrix.shape[1], n_columns)
    )


@pytest.fixture(scope="module")
def movie() -> dict[str, np.ndarray]:
    """A film with repeated TRs, and five brains, one of them not measured for ten TRs."""
    rng = np.random.default_rng(0)
    n_trs = N_TRAIN + N_TEST
    video = rng.random((n_trs, N_PIXELS))
    video[10:20] = video[:10]
    shared = video @ rng.standard_normal((N_PIXELS, 8)) @ rng.standard_normal((8, N_VOXELS)) / 20
    fmri = shared + rng.standard_normal((N_SUBJECTS, n_trs, N_VOXELS))
    valid = np.ones((N_SUBJECTS, n_trs), bool)
    valid[3, 25:35] = False
    return {"video": video, "fmri": fmri, "valid": valid} | {
        "audio": rng.standard_normal((n_trs, N_AUDIO)),
        "text": rng.standard_normal((n_trs, N_TEXT)),
    }


@pytest.fixture(scope="module")
def collapsed(movie):
    """Mean response, variance around it and weight of each TR, by the kit's own function."""
    n_trs = N_TRAIN + N_TEST
    none = np.zeros(n_trs)
    features = Features(none, none, none, movie["fmri"], movie["valid"], none, none)
    mean, variance = map(
        np.concatenate, zip(*mean_response(features, range(N_SUBJECTS)), strict=True)
    )
    return {"fmri": mean, "variance": variance, "weight": movie["valid"].mean(0)}


@pytest.fixture(scope="module")
def span(movie, collapsed, tmp_path_factory) -> Span:
    path = tmp_path_factory.mktemp("span")
    report = {"id": "test"}
    for name, matrix in (("video", movie["video"]), ("fmri", collapsed["fmri"])):
        vectors, parts = fit_basis(blocks_of(matrix[:N_TRAIN]))
        np.save(path / f"{name}.npy", np.concatenate(list(vectors)))
        report[name] = {"n_values": matrix.shape[1]} | parts
    return Span(path, report)


def coordinates_of(movie, collapsed, span) -> dict[str, torch.Tensor]:
    """What `core` is trained on."""
    video, video_floor = project(blocks_of(movie["video"])(), span.vectors("video"))
    fmri, fmri_floor = project(blocks_of(collapsed["fmri"])(), span.vectors("fmri"))
    arrays = {"video": video, "fmri": fmri, "audio": movie["audio"], "text": movie["text"]}
    arrays |= {"video_floor": video_floor, "fmri_floor": fmri_floor + collapsed["variance"]}
    return {
        name: torch.from_numpy(array)
        for name, array in (arrays | {"weight": collapsed["weight"]}).items()
    }


def core_loss(core, data, rows):
    batch = {name: array[rows] for name, array in data.items()}
    stimulus = [batch.pop(name) for name in ("video", "audio", "text")]
    return core.compute_loss(core(*stimulus), batch.pop("fmri"), *stimulus, **batch)[0]


def direct_loss(model, movie, rows, w=SETTINGS):
    """Every subject's own response is a target: nothing of the kit's losses is used."""
    video, audio, text, fmri = (
        torch.from_numpy(movie[name]) for name in ("video", "audio", "text", "fmri")
    )
    valid = torch.from_numpy(movie["valid"])[:, rows]
    group = (fmri[:, rows] * valid[..., None]).sum(0) / valid.sum(0)[:, None]
    outputs = model(video[rows], audio[rows], text[rows])
    total = 0.0
    measured = model.decode_fmri(group)
    for subject in range(N_SUBJECTS):
        for out, weight in ((outputs, 1.0), (measured, w["measured_weight"])):
            errors = w["video_weight"] * (out["video_recon"] - video[rows]).square().mean(1)
            errors = errors + (out["audio_recon"] - audio[rows]).square().mean(1)
            errors = errors + 1 - F.cosine_similarity(out["text_recon"], text[rows])
            total = total + weight * (errors * valid[subject]).mean()
        misses = (outputs["fmri_pred"] - fmri[subject, rows]).square().mean(1)
        total = total + w["fmri_weight"] * (misses * valid[subject]).mean()
    return total / N_SUBJECTS


def new_model(span, seed: int = 0) -> SpanAutoencoder:
    torch.manual_seed(seed)
    return SpanAutoencoder(span, **SETTINGS).double()


def step(model: nn.Module, optimizer, loss_of, number: int) -> float:
    """One update with dropout drawn from the number of the step."""
    torch.manual_seed(number)
    loss = loss_of()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    return loss.item()


def test_trajectory_is_that_of_the_full_size_model(movie, collapsed, span):
    """200 steps of SGD with momentum, weight decay, clipping, BatchNorm and dropout.

    Some TRs are repeated, and a stretch of one subject is not measured.
    """
    data = coordinates_of(movie, collapsed, span)
    model = new_model(span)
    direct = model.materialize()
    optimizers = [
        torch.optim.SGD(m.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01)
        for m in (model.core, direct)
    ]
    draws = torch.Generator().manual_seed(1)
    test = slice(N_TRAIN, None)
    before = {name: value.clone() for name, value in direct.state_dict().items()}
    clipped = 0
    for number in range(200):
        rows = torch.randperm(N_TRAIN, generator=draws)[:16]
        a = step(model.core, optimizers[0], lambda: core_loss(model.core, data, rows), number)  # noqa: B023
        b = step(direct, optimizers[1], lambda: direct_loss(direct, movie, rows), number)  # noqa: B023
        assert a == pytest.approx(b, abs=1e-9)
        clipped += sum(p.grad.square().sum() for p in direct.parameters()).sqrt() > 0.499
    assert clipped > 0  # clipping was at work
    for name, value in model.materialize().state_dict().items():
        torch.testing.assert_close(value, direct.state_dict()[name], rtol=0, atol=1e-9, msg=name)
        assert name.endswith("num_batches_tracked") or (value - before[name]).abs().max() > 1e-4, (
            name
        )
    model.eval(), direct.eval()
    assert core_loss(model.core, data, test).item() == pytest.approx(
        direct_loss(direct, movie, test).item(), abs=1e-9
    )


def test_interface_is_that_of_the_full_size_model(movie, collapsed, span):
    """Whatever one can ask of the full-size model gives the same numbers."""
    model = new_model(span).eval()
    rows = slice(N_TRAIN, None)
    direct = model.materialize()
    assert type(direct) is MultimodalAutoencoder
    assert not direct.training
    stimulus = [torch.from_numpy(movie[name][rows]) for name in ("video", "audio", "text")]
    fmri = torch.from_numpy(collapsed["fmri"][rows])
    a = model(*stimulus)
    b = direct(*stimulus)
    assert a.keys() == b.keys()
    pairs = [(a[name], b[name]) for name in a]
    pairs += list(zip(model.encoder(*stimulus), direct.encoder(*stimulus), strict=True))
    pairs += list(zip(model.decoder(a["bottleneck"]), direct.decoder(b["bottleneck"]), strict=True))
    pairs += [(model.fmri_to_bottleneck(fmri), direct.fmri_to_bottleneck(fmri))]
    pairs += list(
        zip(model.decode_fmri(fmri).values(), direct.decode_fmri(fmri).values(), strict=True)
    )
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    losses = [m.compute_loss(out, fmri, *stimulus)[1] for m, out in ((model, a), (direct, b))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert model.get_config() == direct.get_config()
    assert MultimodalAutoencoder(**model.get_config()).parameter_count() == direct.parameter_count()
    assert model.parameter_count() == model.core.parameter_count() < direct.parameter_count()


def test_initial_weights_have_the_scale_of_the_full_size_model(span):
    """The variance of each weight matrix is that of a default-initialised one, projected."""
    settings = SETTINGS | {"width": 1, "bottleneck_dim": 512}
    torch.manual_seed(0)
    model = SpanAutoencoder(span, **settings)
    direct = MultimodalAutoencoder(**model.get_config())
    video, fmri = (torch.from_numpy(span.vectors(name)).float() for name in ("video", "fmri"))
    ours = model.core.state_dict()
    theirs = direct.state_dict()
    for name, basis, side in (
        ("encoder.video_encoder.0.0", video, "in"),
        ("encoder.to_bottleneck", fmri, "in"),
        ("encoder.to_voxels", fmri, "out"),
        ("decoder.video_decoder.2", video, "out"),
    ):
        weight = theirs[f"{name}.weight"]
        bias = theirs[f"{name}.bias"]
        weight, bias = (
            (weight @ basis, bias) if side == "in" else (basis.T @ weight, basis.T @ bias)
        )
        assert ours[f"{name}.weight"].std().item() == pytest.approx(
            weight.std().item(), rel=0.03
        ), name
        assert ours[f"{name}.bias"].std().item() == pytest.approx(bias.std().item(), rel=0.3), name


def test_model_of_other_sizes_is_refused(span):
    with pytest.raises(ValueError, match=r"video.*999.*expected.*400"):
        SpanAutoencoder(span, video_dim=999)


def test_bases_follow_the_model(span):
    """`double()` and `deepcopy` take the bases along; checkpoints hold none of them."""
    model = new_model(span)
    twin = copy.deepcopy(model)
    assert twin.encoder.core is twin.core.encoder
    assert twin.encoder.video_basis.vectors.dtype == torch.float64
    assert all("vectors" not in name for name in model.state_dict())
    other = new_model(span, seed=1)
    other.load_state_dict(model.state_dict())
    for a, b in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def arrays(movie):
    video = np.round(movie["video"] * 255).astype(np.uint8)
    fmri = np.where(movie["valid"][..., None], movie["fmri"], np.nan)
    return {
        "video": video,
        "audio": movie["audio"],
        "text": movie["text"],
        "fmri": fmri,
        "fractions": (0.6, 0.2, 0.2),
    }


def test_losses_of_a_data_set_in_coordinates(arrays, tmp_path):
    """Losses of `core` are those of the full-size model on every subject's own responses."""
    data = {
        s: MultimodalDataset.from_arrays(**arrays, split=s, average=True) for s in ("train", "val")
    }
    span = fit_span(data["train"], tmp_path, progress=False)
    torch.manual_seed(0)
    model = SpanAutoencoder(span, **(SETTINGS | data["train"].model_dims)).eval()
    direct = model.materialize().double()
    for split in ("train", "val"):
        coordinates = CoordinateDataset(data[split], span, voxels=True)
        rows = list(range(len(coordinates)))
        batch = coordinates[rows]
        whole = data[split][rows]
        assert torch.equal(batch.pop("voxels"), whole["fmri"])
        assert torch.equal(batch.pop("tr_index"), whole["tr_index"])
        single = MultimodalDataset.from_arrays(**arrays, split=split)
        movie = {name: whole[name].double().numpy() for name in ("video", "audio", "text")}
        movie |= {
            "fmri": np.nan_to_num(single.fmri().astype(float)),
            "valid": np.isfinite(single.fmri()).all(-1),
        }
        got = core_loss(model.core, batch, rows).item()
        assert got == pytest.approx(direct_loss(direct, movie, rows).item(), rel=1e-5)
    assert (batch["video_floor"] > 1e-3).all()  # a held-out frame is not in the span
