"""Data sets from arrays: units, what is absent or odd, and what is refused."""

import pickle

import nibabel as nib
import numpy as np
import pytest
import torch

from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder


def arrays(rng, n_subjects: int = 3, n_trs: int = 140):
    video = rng.integers(0, 256, (n_trs, 2, 3), dtype=np.uint8)
    audio = rng.normal(5, 3, (n_trs, 4))
    text = rng.standard_normal((n_trs, 6))
    return {
        "video": video,
        "audio": audio,
        "text": text,
        "fmri": rng.normal(9, 2, (n_subjects, n_trs, 7)),
    }


def test_units(rng):
    given = arrays(rng)
    data = MultimodalDataset.from_arrays(**given, split="all", average=True, runs=[70, 70])
    batch = data[list(range(data.n_trs))]
    train = data.split_labels == "train"
    assert np.allclose(batch["video"], given["video"].reshape(140, -1) / 255)
    sds = {name: given[name][train].std(0) for name in ("audio", "text")}
    sds["text"] = np.sqrt(np.square(sds["text"]).mean())  # an embedding has one unit
    for name, sd in sds.items():
        standard = (given[name] - given[name][train].mean(0)) / sd
        assert np.allclose(batch[name], standard, atol=1e-5)
    z = [
        (run - run[:, fit].mean(1, keepdims=True)) / run[:, fit].std(1, keepdims=True)
        for run, fit in zip(np.split(given["fmri"], 2, axis=1), np.split(train, 2), strict=True)
    ]
    assert np.allclose(batch["fmri"], np.concatenate(z, axis=1).mean(0), atol=1e-5)
    assert data.model_dims == {"video_dim": 6, "audio_features": 4, "text_dim": 6, "n_voxels": 7}


def test_a_run_held_out_is_standardised_by_itself(rng):
    given = arrays(rng)
    settings = {"runs": [80, 60], "test_runs": [1], "average": True}
    test = MultimodalDataset.from_arrays(**given, **settings, split="test")
    assert test.tr_index.tolist() == list(range(80, 140))
    own = given["fmri"][:, 80:]
    expected = (own - own.mean(1, keepdims=True)) / own.std(1, keepdims=True)
    assert np.allclose(test.fmri(), expected.mean(0), atol=1e-5)
    train = MultimodalDataset.from_arrays(**given, **settings)
    assert train.tr_index.max() < 80


def test_one_subject_without_an_axis(rng):
    given = arrays(rng)
    data = MultimodalDataset.from_arrays(given["video"], fmri=given["fmri"][0], subjects=["ann"])
    assert data[0]["subject_id"] == "ann"
    assert data.fmri().shape == (1, data.n_trs, 7)


@pytest.mark.parametrize("absent", ["video", "audio", "text"])
def test_absent_stimulus_is_nothing_and_the_model_trains(rng, absent):
    data = MultimodalDataset.from_arrays(**(arrays(rng) | {absent: None}), context=(1, 0))
    assert absent not in data.present
    batch = data[[0, 5, 9]]
    assert batch[absent].shape == (3, 0)
    assert data[0][absent].shape == (0,)
    assert data.train_mean(absent).shape == (0,)
    model = MultimodalAutoencoder(**data.model_dims, bottleneck_dim=4, width=1 / 128)
    outputs = model(batch["video"], batch["audio"], batch["text"])
    loss, losses = model.compute_loss(
        outputs, *(batch[name] for name in ("fmri", "video", "audio", "text"))
    )
    loss.backward()
    assert losses[f"{absent}_recon"] == 0.0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


CONSTANTS = {
    "zeros": np.zeros((140, 1)),
    "ones": np.ones((140, 3)),
    "rounding": np.float32(0.1) * (1 + 1e-7 * (np.arange(140)[:, None] % 2)),
    "pixels": np.full((140, 2, 2), 7, np.uint8),
    "codes": np.full((140, 8, 3), 5),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_stimulus_that_does_not_vary_is_absent(rng, kind):
    given = arrays(rng)
    constant = {
        name: CONSTANTS[kind] for name in (("audio",) if kind == "codes" else ("video", "audio"))
    }
    data = MultimodalDataset.from_arrays(**(given | constant), average=True)
    without = MultimodalDataset.from_arrays(**(given | dict.fromkeys(constant)), average=True)
    assert data.present == without.present
    assert data.model_dims == without.model_dims
    assert all(
        torch.equal(data[[0, 3]][name], without[[0, 3]][name])
        for name in ("video", "audio", "text", "fmri")
    )


def test_stimulus_that_varies_in_test_trs_alone_is_absent(rng, capsys):
    given = arrays(rng)
    labels = MultimodalDataset.from_arrays(**given).split_labels
    given["text"][labels == "train"] = 2.0
    data = MultimodalDataset.from_arrays(**given)
    assert "text is the same in every training TR: taken as absent" in capsys.readouterr().out
    assert data.present == ("video", "audio")


def test_feature_that_is_constant_in_training_is_not_divided_by_its_variance(rng):
    given = arrays(rng)
    labels = MultimodalDataset.from_arrays(**given).split_labels
    given["audio"][labels == "train", 1] = 0.3
    data = MultimodalDataset.from_arrays(**given, split="all")
    band = data.features.audio[:, 1]
    assert np.abs(band[labels == "train"]).max() < 1e-6
    assert np.allclose(band[labels == "test"], given["audio"][labels == "test", 1] - 0.3, atol=1e-6)


@pytest.mark.parametrize("name", ["video", "audio", "text"])
@pytest.mark.parametrize("factor", [1e-9, 1e3])
def test_units_of_features_do_not_matter(rng, name, factor):
    given = arrays(rng)
    given[name] = rng.normal(3, 2, (140, 5))
    scaled = given | {name: factor * given[name] + 1e3 * factor}
    one, other = (
        getattr(MultimodalDataset.from_arrays(**x).features, name) for x in (given, scaled)
    )
    assert np.allclose(one, other, atol=1e-5)


OFFSETS = {
    "float64": lambda z: 1e8 + 20 * z,
    "int64": lambda z: np.round(1e8 + 20 * z).astype(np.int64),
    "int32": lambda z: np.round(1e8 + 20 * z).astype(np.int32),
    "farther": lambda z: 1e11 + 20 * z,
}


@pytest.mark.parametrize("kind", OFFSETS)
def test_large_offsets_against_float64(rng, kind):
    """What float32 would round away, and what counts as constant beside 1e8."""
    fmri, audio = (OFFSETS[kind](rng.standard_normal(shape)) for shape in ((2, 140, 7), (140, 5)))
    data = MultimodalDataset.from_arrays(audio=audio.astype(float), fmri=fmri, split="all")
    train = data.split_labels == "train"
    fitted = fmri[:, train].astype(np.float64)
    expected = (fmri - fitted.mean(1, keepdims=True)) / fitted.std(1, keepdims=True)
    assert data.features.fmri.dtype == np.float32
    assert np.allclose(data.features.fmri, expected, atol=1e-5)
    fitted = audio[train].astype(np.float64)
    assert data.present == ("audio",)
    assert np.allclose(
        data.features.audio, (audio - fitted.mean(0)) / fitted.std(0), rtol=1e-5, atol=1e-5
    )


def test_usual_responses_are_taken_as_float32(rng):
    fmri = rng.normal(1000, 20, (2, 140, 7))
    found = MultimodalDataset.from_arrays(fmri=fmri).features.fmri
    assert np.array_equal(
        found, MultimodalDataset.from_arrays(fmri=fmri.astype(np.float32)).features.fmri
    )


def test_responses_of_float32_that_rounding_alone_moves_are_constant(rng):
    fmri = rng.normal(1000, 20, (1, 140, 7))
    fmri[..., 3] = np.nextafter(np.float32(812.4), np.float32(rng.integers(0, 2, 140) * 2000))
    fmri[..., 4] += 1e8
    found = MultimodalDataset.from_arrays(fmri=fmri, split="all").features.fmri
    assert (found[..., 3] == 0).all()
    assert found[..., 4].std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("fmri", [np.ones((2, 140, 7), complex), np.full((140, 7), "a")])
def test_responses_that_are_no_real_numbers(fmri):
    with pytest.raises(ValueError, match=r"fmri holds .* values, expected real numbers: convert"):
        MultimodalDataset.from_arrays(fmri=fmri)


FILMS = {
    (140, 6, 8): (1, (6, 8)),
    (140, 6, 8, 3): (1, (6, 8, 3)),
    (140, 4, 6, 8): (4, (6, 8)),
    (140, 4, 6, 8, 3): (4, (6, 8, 3)),
}


@pytest.mark.parametrize("shape", FILMS)
def test_uint8_frames_are_a_film(rng, shape):
    film = rng.integers(0, 256, shape, dtype=np.uint8)
    data = MultimodalDataset.from_arrays(**(arrays(rng) | {"video": film}), tr=2.0)
    n_frames, frame_shape = FILMS[shape]
    processor = data.video_processor
    assert (processor.n_frames, processor.frame_shape, processor.tr) == (n_frames, frame_shape, 2.0)
    assert processor.video_dim == data.model_dims["video_dim"]
    assert torch.equal(
        data[0]["video"], torch.from_numpy(film[data.tr_index[0]].ravel() / np.float32(255))
    )


@pytest.mark.parametrize(
    "video", [np.random.default_rng(0).random((140, 4, 6, 8)), np.zeros((140, 5), np.uint8)]
)
def test_other_video_is_no_film(rng, video):
    assert MultimodalDataset.from_arrays(**(arrays(rng) | {"video": video})).video_processor is None


def test_other_splits_are_selected_without_a_copy(rng):
    data = MultimodalDataset.from_arrays(**arrays(rng))
    for split in ("val", "test", "all"):
        part = data.select(split, average=True)
        again = MultimodalDataset.from_arrays(
            **arrays(np.random.default_rng(0)), split=split, average=True
        )
        assert part.features is data.features
        assert torch.equal(part[[0, -1]]["fmri"], again[[0, -1]]["fmri"])
        assert part.tr_index.tolist() == again.tr_index.tolist()
    assert (data.split, data.average) == ("train", False)


def test_places_of_voxels(rng):
    mask_img = nib.Nifti1Image(np.ones((7, 1, 1), np.uint8), 4 * np.eye(4))
    given = arrays(rng)
    data = MultimodalDataset.from_arrays(**given, mask_img=mask_img, regions=list("aabbccd"))
    assert data.coordinates[:, 0].tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert data.region_names == tuple("aabbccd")
    centres = rng.random((7, 3))
    assert np.array_equal(
        MultimodalDataset.from_arrays(**given, coordinates=centres).coordinates, centres
    )
    assert MultimodalDataset.from_arrays(**given).coordinates is None
    for change in (
        {"regions": "ab"},
        {"coordinates": centres[:5]},
        {"mask_img": mask_img.slicer[:3]},
    ):
        with pytest.raises(
            ValueError, match=rf"{next(iter(change))} has \d voxels, fmri has 7: expected the same"
        ):
            MultimodalDataset.from_arrays(**given, **change)


def test_brains_alone_are_a_data_set_without_a_model(rng):
    data = MultimodalDataset.from_arrays(fmri=arrays(rng)["fmri"])
    assert data.present == ()
    with pytest.raises(ValueError, match="expected one above 0: a model needs a stimulus"):
        MultimodalAutoencoder(**data.model_dims)


def test_context_widens_stimuli_and_their_means(rng):
    given = arrays(rng)
    plain, wide = (MultimodalDataset.from_arrays(**given, context=c) for c in ((0, 0), (2, 1)))
    assert wide.model_dims == {"video_dim": 24, "audio_features": 16, "text_dim": 24, "n_voxels": 7}
    assert wide[0]["text"].shape == (24,)
    assert wide.train_mean("text").shape == (24,)
    assert plain.train_mean("text").shape == (6,)


def test_integer_sound_is_codes(rng):
    codes = rng.integers(0, 1024, (140, 8, 112))
    data = MultimodalDataset.from_arrays(**(arrays(rng) | {"audio": codes}))
    assert torch.equal(data[[3]]["audio"][0], torch.from_numpy(codes[data.tr_index[3]]))
    assert data.model_dims["use_encodec"] is True


def test_trs_of_nan_were_not_measured(rng):
    given = arrays(rng)
    given["fmri"][1, 100:110] = np.nan
    data = MultimodalDataset.from_arrays(**given, split="all")
    assert len(data) == 3 * 140 - 10
    assert np.isnan(data.fmri()[1, 100:110]).all()
    mean = MultimodalDataset.from_arrays(**given, split="all", average=True)
    assert np.allclose(mean.fmri(), np.nanmean(data.fmri(), axis=0), atol=1e-6)
    given["fmri"][:, 100:110] = np.nan
    assert MultimodalDataset.from_arrays(**given, split="all", average=True).n_trs == 130


def test_data_set_travels_to_workers(rng, simulated, tiny_video):
    """As a path where there is one: a copy of the film would defeat the memory map."""
    for average in (False, True):
        data = MultimodalDataset(
            simulated, average=average, video_processor=tiny_video, progress=False
        )
        sent = pickle.dumps(data)
        assert len(sent) < data.features.fmri.nbytes / 4
        assert all(
            torch.equal(pickle.loads(sent)[3][name], data[3][name]) for name in ("video", "fmri")
        )
    data = MultimodalDataset.from_arrays(**arrays(rng))
    assert torch.equal(pickle.loads(pickle.dumps(data))[3]["fmri"], data[3]["fmri"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"runs": [70, 60]},
            r"runs are \[70, 60\], expected numbers of TRs that sum to the 140 of fmri",
        ),
        ({"text": np.zeros((139, 2))}, "text has 139 TRs, fmri has 140: expected the same"),
        ({"subjects": ["a"]}, r"subjects are \['a'\], expected a name for each of 3 series"),
        ({"context": (1, -1)}, r"context is \(1, -1\), expected TRs \(before, after\), 0 or more"),
        ({"text": np.full((140, 2), np.nan)}, "text holds values that are not finite"),
        ({"runs": [110, 30]}, "run 2 has 30 TRs, too few for 3 blocks with gaps of 17"),
    ],
)
def test_bad_arrays(rng, change, message):
    with pytest.raises(ValueError, match=message):
        MultimodalDataset.from_arrays(**(arrays(rng) | change))


def test_nan_in_some_voxels(rng):
    given = arrays(rng)
    given["fmri"][0, 3, 2] = np.nan
    with pytest.raises(
        ValueError,
        match="NaN in some voxels of a TR and not in others, expected in all or none: leave",
    ):
        MultimodalDataset.from_arrays(**given)


def test_some_of_the_people(rng):
    """As if the arrays held them alone, but of the same movie."""
    given = arrays(rng)
    whole = MultimodalDataset.from_arrays(**given, average=True)
    n_subjects = len(whole.subjects)
    some = whole.of_subjects(whole.subjects[1:])
    alone = MultimodalDataset.from_arrays(**given | {"fmri": given["fmri"][1:]}, average=True)
    assert np.array_equal(some.fmri(), alone.fmri())
    assert some.subjects == whole.subjects[1:]
    assert len(some.of_subjects("all").subjects) == n_subjects
    assert some.provenance["files"] == whole.provenance["files"]
    assert np.shares_memory(some.features.fmri, whole.features.fmri)
    with pytest.raises(ValueError, match="subjects are \\['nobody'\\]"):
        whole.of_subjects(["nobody"])
