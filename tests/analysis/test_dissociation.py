import numpy as np
import pytest
import torch
from brains import first_voxels, planted_model

from giblet.analysis.dissociation import (
    decoding_failures,
    dose_response,
    intact_table,
    region_sweep,
    unit_sweep,
)
from giblet.analysis.lesion_cost import size_bin
from giblet.analysis.lesions import Brain, Lesion, lesion_effects
from giblet.regions import Regions, voxel_coordinates


def test_sweep_finds_the_region_that_is_read(data):
    model, regions = planted_model(data)
    test = data["test"]
    brain = Brain(model, test, test.fmri())
    coordinates = voxel_coordinates(test.mask_img)
    table = region_sweep(Lesion(brain), regions, n_permute=30, progress=False)
    assert table.columns.names[0] == "SIMULATED data"
    others = table.drop(index="r0")
    assert (others.xs("effect", axis=1, level=1).abs() < 1e-6).all(axis=None)
    assert (table.loc["r0"].xs("effect", level=1).abs() > 1e-4).all()
    lesion = Lesion(brain, regions.voxels("r0"))
    own = lesion.scores
    assert table.loc["r0", ("audio", "effect")] == pytest.approx(
        np.mean(brain.intact["audio"] - own["audio"], dtype=np.float64), abs=1e-6
    )
    size = size_bin(lesion.n_voxels, len(coordinates))
    null = Lesion(brain, first_voxels(brain, size)).null(30)
    assert table.loc["r0", ("audio", "p")] == lesion_effects(lesion, own, null)["audio"].p


def test_empty_region_has_no_effect(brain, data):
    """The intact brain is no finding and no null: effect, z and p are NaN, in both modes."""
    coordinates = voxel_coordinates(data["test"].mask_img)
    labels = (np.arange(len(coordinates)) >= 20).astype(int)
    regions = Regions(labels, ("small", "rest", "empty"))
    for mode in ("without", "only"):
        table = region_sweep(Lesion(brain, mode=mode), regions, 20, progress=False)
        assert table[("", "n_voxels")].tolist() == [20, len(labels) - 20, 0]
        assert table.loc["empty"].drop(("", "n_voxels")).isna().all()
        assert table.loc["small"].xs("p", level=1).notna().all()
    empty = regions.voxels("empty")
    assert dose_response(Lesion(brain, empty)).isna().all(axis=None)
    for effect in Lesion(brain, empty).effects(n_permute=7).values():
        assert np.isnan([effect.p, effect.z]).all()
    assert np.isnan(Lesion(brain, units=()).null(n_permute=7)["text"]).all()


def test_lesions_that_are_those_of_their_null(brain, data):
    """The whole brain, of which there is one, and lesions of no strength: p is 1, and z is NaN."""
    coordinates = voxel_coordinates(data["test"].mask_img)
    n_voxels = len(coordinates)
    for lesion in ({"fill": "mean"}, {"mode": "only"}):
        whole = Lesion(brain, np.ones(n_voxels, bool), **lesion)
        for effect in whole.effects(20).values():
            assert effect.p == 1
            assert np.isnan(effect.z)
    halves = Regions((np.arange(n_voxels) % 2), ("even", "odd"))
    for table in (
        region_sweep(Lesion(brain, strength=0), halves, 20, progress=False),
        unit_sweep(Lesion(brain), brain.bottleneck.shape[1], n_permute=20),
    ):
        assert (table.xs("p", axis=1, level=1) == 1).all(axis=None)
        assert table.xs("z", axis=1, level=1).isna().all(axis=None)


def test_text_that_no_held_out_tr_has(brain):
    silent = brain.at(range(brain.dataset.n_trs))
    silent.intact = silent.intact | {"text": np.full_like(silent.intact["text"], np.nan)}
    silent.target = silent.target | {"text": torch.zeros_like(silent.target["text"])}
    table = unit_sweep(Lesion(silent), group_size=4, n_permute=9)
    assert table["text"].isna().all(axis=None)
    assert table["audio"].notna().all(axis=None)
    region = np.arange(brain.fmri.shape[1]) < 5
    assert dose_response(Lesion(silent, region))["text"].isna().all()


def test_sweep_of_units(brain):
    table = unit_sweep(Lesion(brain), group_size=4, n_permute=20)
    assert table.index.tolist() == ["0-3", "4-7"]
    after = Lesion(brain, units=range(4, 8)).scores["text"]
    assert table.loc["4-7", ("text", "effect")] == pytest.approx(
        np.nanmean(brain.intact["text"] - after, dtype=np.float64), abs=1e-6
    )


def test_units_are_silenced_in_both_modes(brain):
    """'only' is of voxels: units that are lesioned without any cost what they cost."""
    without, only = (
        unit_sweep(Lesion(brain, mode=mode), group_size=4, n_permute=20)
        for mode in ("without", "only")
    )
    assert only.equals(without)


def test_dose_grows_from_nothing(brain, region):
    table = dose_response(Lesion(brain, region), strengths=(0, 0.5, 1))
    lesioned = Lesion(brain, region).scores["audio"]
    for strength, scores in ((0, brain.intact["audio"]), (1, lesioned)):
        assert table.loc[strength, "audio"] == pytest.approx(scores.mean(dtype=np.float64))


def test_intact_scores_beside_those_of_the_training_mean(brain, data):
    """Text of the mean against its own cosine; a decoder that is worse than the mean is told."""
    table = intact_table({"measured": brain})
    test = data["test"]
    assert table["measured"].to_dict() == pytest.approx(
        {name: np.nanmean(values[0], dtype=np.float64) for name, values in brain.intact.items()}
    )
    mean = test.train_mean("text").double()
    text = test.stimulus("text", test.tr_index).double()
    said = text[text.norm(dim=1) > 0]
    cosine = ((said @ mean) / (said.norm(dim=1) * mean.norm())).mean().item()
    assert table["training mean"].to_dict() == pytest.approx(
        {"video": 0, "audio": 0, "text": cosine}, abs=1e-6
    )
    told = decoding_failures(table)
    failed = [
        name
        for name in test.present
        if table.loc[name, "measured"] <= table.loc[name, "training mean"]
    ]
    assert {"video", "text"} <= set(failed)  # it is not trained
    assert [sentence.split()[0] for sentence in told] == failed
    assert all("no better than by the training mean" in sentence for sentence in told)
    table["measured"] = table["training mean"] + 0.1
    assert decoding_failures(table) == []
    table.loc["audio", "measured"] = np.nan
    assert len(decoding_failures(table)) == 1
