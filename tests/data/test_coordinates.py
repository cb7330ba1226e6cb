from copy import copy

import numpy as np
import pytest
import torch

from giblet.basis import Span
from giblet.data import CoordinateDataset, MultimodalDataset, fit_span
from giblet.models import SpanAutoencoder

FRACTIONS = (0.5, 0.25, 0.25)


@pytest.fixture
def arrays(rng):
    video = rng.integers(0, 256, (200, 90), dtype=np.uint8)
    return {
        "video": video,
        "audio": rng.random((200, 3)),
        "fmri": rng.random((3, 200, 150)),
        "fractions": FRACTIONS,
    }


def splits(arrays, **settings) -> dict[str, MultimodalDataset]:
    return {
        s: MultimodalDataset.from_arrays(**arrays, split=s, average=True, **settings)
        for s in ("train", "val")
    }


@pytest.mark.parametrize("context", [(0, 0), (2, 1)])
def test_coordinates_against_direct_computation(arrays, tmp_path, context):
    """Projection on numpy's own basis of the training rows, what lies outside, and the variance."""
    data = splits(arrays, context=context)
    train = data["train"][list(range(len(data["train"])))]
    span = fit_span(data["train"], tmp_path, progress=False)
    for dataset in data.values():
        rows = list(range(len(dataset)))
        items = dataset[rows]
        batch = CoordinateDataset(dataset, span)[rows]
        for name in ("video", "fmri"):
            values = items[name].double().numpy()
            seen = train[name].double().numpy()
            _, size, basis = np.linalg.svd(seen, full_matrices=False)
            basis = basis[size > 1e-4 * size[0]]
            inside = values @ basis.T @ basis
            vectors = span.vectors(name)
            np.testing.assert_allclose(batch[name].numpy() @ vectors.T, inside, atol=1e-4)
            floor = np.square(values - inside).mean(1) + (
                items["fmri_floor"].numpy() if name == "fmri" else 0
            )
            np.testing.assert_allclose(batch[f"{name}_floor"].numpy(), floor, atol=1e-5)
        assert torch.equal(batch["audio"], items["audio"])
        assert torch.equal(batch["weight"], torch.ones(len(dataset)))


def test_variance_between_subjects_is_what_single_targets_add(arrays):
    """Mean squared error to every subject = to their mean + the floor, whatever is predicted."""
    whole = MultimodalDataset.from_arrays(**arrays, split="train", average=True)
    single = MultimodalDataset.from_arrays(**arrays, split="train").fmri().astype(float)
    items = whole[list(range(len(whole)))]
    prediction = np.random.default_rng(1).standard_normal(single.shape[1:])
    to_mean = np.square(prediction - items["fmri"].double().numpy()).mean(1)
    np.testing.assert_allclose(
        np.square(prediction - single).mean((0, 2)),
        to_mean + items["fmri_floor"].numpy(),
        rtol=1e-5,
    )


def test_few_values_stay_as_they_are(arrays, tmp_path):
    """Where there are no more pixels than training TRs there is nothing to gain."""
    data = splits(arrays | {"video": arrays["video"][:, :40]})
    span = fit_span(data["train"], tmp_path, progress=False)
    assert span.vectors("video") is None
    assert span.report["video"] == {"n_values": 40, "n_coordinates": 40, "explained": 1.0}
    assert (
        span.report["fmri"]["n_coordinates"] == data["train"].n_trs - 1
    )  # z-scored: one direction has no variance


def test_truncation_reports_the_explained_variance(arrays, tmp_path):
    train = splits(arrays)["train"]
    span = fit_span(train, tmp_path, rank=10, progress=False)
    fmri = train.fmri().astype(float)
    centred = np.linalg.svd(fmri, full_matrices=False)
    kept = (centred[0][:, :10] * centred[1][:10]) @ centred[2][:10]
    want = 1 - np.square(fmri - kept).sum() / np.square(fmri - fmri.mean(0)).sum()
    assert span.report["fmri"]["n_coordinates"] == 10
    assert span.report["fmri"]["explained"] == pytest.approx(want, abs=1e-6)
    assert fit_span(train, tmp_path, progress=False).id != span.id


def test_bases_are_made_once(simulated, tiny_video, monkeypatch):
    settings = {"average": True, "video_processor": tiny_video, "progress": False}
    train = MultimodalDataset(simulated, split="train", **settings)
    span = fit_span(train, progress=False)
    assert span.path.parent == train.cache
    before = {path: path.stat().st_mtime_ns for path in span.path.iterdir()}
    monkeypatch.setattr(
        "giblet.data.coordinates.fit_basis", lambda *_: pytest.fail("computed twice")
    )
    assert fit_span(MultimodalDataset(simulated, split="train", **settings), progress=False) == span
    assert {path: path.stat().st_mtime_ns for path in span.path.iterdir()} == before
    CoordinateDataset(train, span)
    monkeypatch.setattr("giblet.data.coordinates.project", lambda *_: pytest.fail("computed twice"))
    CoordinateDataset(train, span)


def test_interrupted_basis_leaves_nothing(arrays, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("giblet.data.coordinates.npy_writer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit_span(splits(arrays)["train"], tmp_path, progress=False)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_other_data_are_other_bases(arrays, tmp_path):
    """Every array and every subject counts."""
    other = arrays | {"video": arrays["video"][::-1].copy()}
    fewer = arrays | {"fmri": arrays["fmri"][:2]}
    ids = [
        fit_span(splits(a)["train"], tmp_path, progress=False).id
        for a in (arrays, other, fewer, arrays)
    ]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3


def test_what_cannot_be_is_said(arrays, tmp_path):
    single = MultimodalDataset.from_arrays(**arrays)
    train = splits(arrays)["train"]
    with pytest.raises(ValueError, match="average=True"):
        fit_span(single, tmp_path)
    with pytest.raises(ValueError, match="average=True"):
        CoordinateDataset(single, fit_span(train, tmp_path, progress=False))
    with pytest.raises(ValueError, match="give the folder"):
        fit_span(train)
    with pytest.raises(FileNotFoundError, match="holds no bases"):
        Span.open(tmp_path / "nowhere")


def test_rows_of_another_choice_are_other_bases_and_coordinates(
    arrays, tmp_path, simulated, tiny_video
):
    """A copy with other rows, as of a random split, never finds what was stored for the first."""
    settings = {
        "average": True,
        "video_processor": tiny_video,
        "cache_dir": tmp_path,
        "progress": False,
    }
    for dataset in (splits(arrays)["train"], MultimodalDataset(simulated, **settings)):
        other = copy(dataset)
        other.tr_index = dataset.tr_index[::2]
        other.run = dataset.run[::2]
        first, second = (fit_span(data, tmp_path, progress=False) for data in (dataset, other))
        assert first.id != second.id
        rows = CoordinateDataset(other, second)
        expected = CoordinateDataset(dataset, second)
        assert len(rows.arrays["fmri"]) == len(other)
        torch.testing.assert_close(rows.arrays["fmri"], expected.arrays["fmri"][::2])


def test_span_without_video(arrays, tmp_path):
    """One modality, and more voxels than TRs: the bases of the responses alone."""
    data = splits(arrays | {"video": None})
    span = fit_span(data["train"], tmp_path, progress=False)
    assert span.report["video"] == {"n_values": 0, "n_coordinates": 0, "explained": 1.0}
    items = CoordinateDataset(data["val"], span)[[0, 1, 2]]
    assert items["video"].shape == (3, 0)
    assert items["video_floor"].tolist() == [0, 0, 0]
    model = SpanAutoencoder(span, **data["train"].model_dims, bottleneck_dim=4, width=1 / 64).eval()
    batch = data["val"][[0, 1, 2]]
    stimulus = [batch[name] for name in ("video", "audio", "text")]
    outputs = model(*stimulus)
    direct = model.materialize()(*stimulus)
    for name in ("fmri_pred", "video_recon", "audio_recon", "text_recon"):
        torch.testing.assert_close(outputs[name], direct[name], atol=1e-5, rtol=1e-4)
    assert outputs["video_recon"].shape == (3, 0)
