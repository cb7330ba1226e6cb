"""Networks and ridge regression side by side, against each of them alone."""

import numpy as np
import pytest
import torch
from torch import nn

from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.models.merged import LowRank, side_by_side

SETTINGS = {"width": 1 / 64, "bottleneck_dim": 10}


def data_set(n_voxels: int, **left_out) -> MultimodalDataset:
    rng = np.random.default_rng(0)
    stimuli = {"video": 340, "audio": 24, "text": 18}
    given = {name: rng.standard_normal((200, n)) for name, n in stimuli.items()} | left_out
    return MultimodalDataset.from_arrays(
        **given, fmri=rng.standard_normal((200, n_voxels)), average=True
    )


def networks_of(data: MultimodalDataset, folder, n: int) -> list[MultimodalAutoencoder]:
    """Of random weights and running statistics, in float64; in the span where `folder` is given."""
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        settings = data.model_dims | SETTINGS
        if folder is None:
            model = MultimodalAutoencoder(**settings)
        else:
            model = SpanAutoencoder(fit_span(data, folder, dtype=np.float64), **settings)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.bias)
        found.append(model.double().eval())
    return found


def parts_of(model, rng, n_features: int, n_rows: int) -> LowRank:
    n_voxels = model.n_values["fmri"]
    sizes = (n_features, (n_features, n_rows), (n_rows, n_voxels))
    return LowRank(*(rng.standard_normal(size) for size in sizes))


@pytest.mark.parametrize("span", [False, True])
@pytest.mark.parametrize("n_voxels", [30, 320])
@pytest.mark.parametrize("dtype, error", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_merged_is_the_sum_of_its_parts(span, n_voxels, dtype, error, tmp_path, rng):
    """Two networks' readouts and ridge regression from each stimulus, whatever Layer 5 is in."""
    data = data_set(n_voxels)
    networks = [one.to(dtype) for one in networks_of(data, tmp_path if span else None, 2)]
    encoder = networks[0].core.encoder
    readouts = [parts_of(one, rng, encoder.to_voxels.in_features, 40) for one in networks]
    widths = {"video": encoder.video_input_dim, "audio": 24, "text": 18}
    components = {name: parts_of(networks[0], rng, n, 5) for name, n in widths.items()}
    bias = rng.standard_normal(n_voxels)
    merged = side_by_side(networks, readouts, components, bias)
    batch = data[list(range(20))]
    inputs = {name: batch[name].to(dtype) for name in widths}
    want = np.tile(bias, (20, 1))
    with torch.no_grad():
        for network, solved in zip(networks, readouts, strict=True):
            want += solved(network.encoder.features(**inputs).double().numpy())
        read = dict(inputs, video=networks[0].video_basis.coordinates(inputs["video"]))
        for name, one in components.items():
            want += one(read[name].double().numpy())
        got, bottleneck = merged.encoder(**inputs)
        again = merged.fmri_to_bottleneck(got)
    assert np.abs(got.double().numpy() - want).max() < error * np.abs(want).max()
    assert torch.allclose(bottleneck, again, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("span", [False, True])
def test_layers_6_to_13_are_those_of_the_first(span, tmp_path, rng):
    data = data_set(320)
    networks = networks_of(data, tmp_path if span else None, 2)
    n_features = networks[0].core.encoder.to_voxels.in_features
    readouts = [parts_of(one, rng, n_features, 7) for one in networks]
    merged = side_by_side(networks, readouts, {}, np.zeros(320))
    fmri = torch.from_numpy(rng.standard_normal((5, 320)))
    with torch.no_grad():
        outputs = merged.decode_fmri(fmri)
        for name, value in networks[0].decode_fmri(fmri).items():
            assert torch.equal(outputs[name], value), name
    voxels = torch.arange(4)
    change = torch.from_numpy(rng.standard_normal((5, 4)))
    wanted = networks[0].bottleneck_change(change, voxels)
    assert torch.equal(merged.bottleneck_change(change, voxels), wanted)
    assert merged.get_config()["n_networks"] == 2
    assert merged.get_config()["ridge_units"] == 0


def test_the_full_size_model_of_a_merged_one(tmp_path, rng):
    """`materialize` holds Layer 5 in voxels, and is built again from its configuration."""
    data = data_set(320)
    (network,) = networks_of(data, tmp_path, 1)
    encoder = network.core.encoder
    readout = parts_of(network, rng, encoder.to_voxels.in_features, 7)
    video = parts_of(network, rng, encoder.video_input_dim, 3)
    merged = side_by_side([network], [readout], {"video": video}, rng.standard_normal(320))
    direct = merged.materialize()
    batch = data[list(range(10))]
    inputs = [batch[name].double() for name in ("video", "audio", "text")]
    with torch.no_grad():
        got, want = direct(*inputs), merged(*inputs)
    for name, value in want.items():
        assert torch.allclose(got[name], value, atol=1e-9), name
    again = MultimodalAutoencoder(**direct.get_config()).double()
    again.load_state_dict(direct.state_dict())


def test_absent_modalities(tmp_path, rng):
    """No units are built for a stimulus that is not there."""
    data = data_set(30, video=None, audio=None)
    (network,) = networks_of(data, tmp_path, 1)
    readout = parts_of(network, rng, network.core.encoder.to_voxels.in_features, 6)
    text = parts_of(network, rng, 18, 4)
    merged = side_by_side([network], [readout], {"text": text}, np.zeros(30))
    batch = data[list(range(10))]
    inputs = {name: batch[name].double() for name in ("video", "audio", "text")}
    with torch.no_grad():
        features = network.encoder.features(**inputs).numpy()
        got = merged.encoder(**inputs)[0].numpy()
    assert np.allclose(got, readout(features) + text(inputs["text"].numpy()), atol=1e-9)
