from dataclasses import replace

import numpy as np
import pytest
import torch
from brains import first_voxels, long_way
from captum.attr import FeatureAblation

from giblet.analysis.lesion_cost import random_regions
from giblet.analysis.lesions import Lesion, fill_values, lesion_units, lesion_voxels
from giblet.regions import voxel_coordinates


@pytest.mark.parametrize("fill", ["zero", "mean", "resample"])
@pytest.mark.parametrize("mode", ["without", "only"])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_lesion_through_layer_6_is_the_lesion_of_the_voxels(brain, region, fill, mode, strength):
    """The batch of changes against decoding the lesioned voxels themselves."""
    generator = torch.Generator().manual_seed(0)
    fmri = lesion_voxels(brain.fmri, region, fill, strength, mode, generator=generator)
    with torch.no_grad():
        expected = brain.model.fmri_to_bottleneck(fmri)
    lesion = Lesion(brain, region, fill=fill, strength=strength, mode=mode)
    lesioned = lesion.bottleneck
    assert torch.allclose(lesioned, expected, atol=1e-4)
    swept = brain.of_lesions([lesion, replace(lesion, mask=~region)])
    for name, values in long_way(brain, expected).items():
        assert np.allclose(swept[name][0], values, atol=1e-3, equal_nan=True)


def test_voxels_by_hand():
    fmri = torch.tensor([[1.0, 2, 3], [5, 6, 7]])
    region = np.array([True, False, False])
    assert lesion_voxels(fmri, region).tolist() == [[0, 2, 3], [0, 6, 7]]
    assert lesion_voxels(fmri, region, mode="only").tolist() == [[1, 0, 0], [5, 0, 0]]
    assert lesion_voxels(fmri, region, "mean").tolist() == [[3, 2, 3], [3, 6, 7]]
    assert lesion_voxels(fmri, region, strength=0.5).tolist() == [[0.5, 2, 3], [2.5, 6, 7]]
    assert fmri[0, 0] == 1
    resampled = lesion_voxels(fmri, region, "resample", generator=torch.Generator().manual_seed(0))
    assert set(resampled[:, 0].tolist()) <= {1, 5}
    assert torch.equal(resampled[:, 1:], fmri[:, 1:])


def test_the_seed_example():
    bottleneck = torch.randn(3, 300)
    expected = bottleneck.clone()
    expected[:, 100:200] = 0
    assert torch.equal(lesion_units(bottleneck, slice(100, 200)), expected)
    assert torch.equal(lesion_units(bottleneck, np.arange(100, 200)), expected)


@pytest.mark.parametrize("group", [1, 3])
def test_against_captum(model, rng, group):
    """Ablations of single units and of groups: captum's difference of outputs is ours."""
    bottleneck = torch.from_numpy(rng.standard_normal((5, 8), np.float32))
    forward = {
        name: lambda x, i=i: model.eval().decoder(x)[i].square().mean(1)
        for i, name in enumerate(("video", "audio"))
    }
    mask = torch.arange(8)[None] // group
    for of_outputs in forward.values():
        with torch.no_grad():
            theirs = FeatureAblation(of_outputs).attribute(
                bottleneck, baselines=0, feature_mask=mask
            )
            intact = of_outputs(bottleneck)
            for index in range(int(mask.max()) + 1):
                units = np.flatnonzero(mask[0] == index)
                ours = intact - of_outputs(lesion_units(bottleneck, units))
                assert torch.allclose(
                    theirs[:, units], ours[:, None].expand(-1, len(units)), atol=1e-6
                )


def test_scores_of_the_intact_brain(brain):
    for name, values in long_way(brain, brain.bottleneck).items():
        assert np.allclose(brain.intact[name][0], values, atol=1e-4, equal_nan=True)
    some = brain.at([0, 4, 2])
    assert np.array_equal(some.intact["audio"], brain.intact["audio"][:, [0, 4, 2]])
    lesion = np.arange(brain.fmri.shape[1]) < 20
    assert torch.allclose(
        Lesion(some, lesion, fill="mean").bottleneck,
        Lesion(brain, lesion, fill="mean").bottleneck[[0, 4, 2]],
        atol=1e-5,
    )


def test_no_lesion_is_no_change(brain):
    nothing = np.zeros(brain.fmri.shape[1], bool)
    for mode in ("without", "only"):
        assert torch.equal(Lesion(brain, nothing, mode=mode).bottleneck, brain.bottleneck)
        assert torch.equal(Lesion(brain, mode=mode).bottleneck, brain.bottleneck)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fill": "noise"}, "fill is 'noise', expected one of zero, mean, resample"),
        ({"mode": "all"}, "mode is 'all'"),
    ],
)
def test_bad_arguments(brain, region, arguments, message):
    with pytest.raises(ValueError, match=message):
        lesion_voxels(brain.fmri, region, **arguments)
    with pytest.raises(ValueError, match=message):
        Lesion(brain, region, **arguments)


def test_fill_values():
    reference = torch.tensor([[1.0, 10], [3, 30]])
    assert fill_values(reference, 3, "mean").tolist() == [[2, 20]] * 3
    drawn = fill_values(reference, 50, "resample", torch.Generator().manual_seed(1))
    assert {tuple(row) for row in drawn.tolist()} == {(1, 10), (3, 30)}


def test_nulls_are_explicit_lesions(brain, data):
    coordinates = voxel_coordinates(data["test"].mask_img)
    null = Lesion(brain, first_voxels(brain, 15)).null(6, random_state=3)
    regions = random_regions(coordinates, 15, 6, np.random.default_rng(3))
    for draw, region in enumerate(regions):
        after = long_way(brain, Lesion(brain, region).bottleneck)["audio"]
        assert null["audio"][draw] == pytest.approx(
            np.mean(brain.intact["audio"][0] - after), abs=1e-4
        )
    rng = np.random.default_rng(0)
    units = rng.choice(8, 3, replace=False)
    after = long_way(brain, lesion_units(brain.bottleneck, units))["video"]
    found = Lesion(brain, units=range(3)).null(n_permute=4)["video"][0]
    assert found == pytest.approx(np.mean(brain.intact["video"][0] - after), abs=1e-4)


def test_lesion_of_voxels_and_of_units(brain, region):
    """Units are silenced in the bottleneck of the lesioned brain; the table holds its scores."""
    lesion = Lesion(brain, region, units=range(2, 5), fill="mean")
    with torch.no_grad():
        fmri = lesion_voxels(brain.fmri, region, "mean")
        voxels = brain.model.fmri_to_bottleneck(fmri)
    expected = lesion_units(voxels, slice(2, 5), "mean", reference=brain.bottleneck)
    assert torch.allclose(lesion.bottleneck, expected, atol=1e-4)
    for name, values in long_way(brain, expected).items():
        assert np.allclose(lesion.scores[name], values, atol=1e-3, equal_nan=True)
    with torch.no_grad():
        video = brain.model.decoder(expected)[0]
    assert torch.allclose(lesion.video, video, atol=1e-4)
    table = lesion.table(n_permute=9)
    assert table.columns.tolist() == ["intact", "lesioned", "lost", "z", "p"]
    assert table.columns.name == "SIMULATED data"
    assert np.allclose(table["intact"] - table["lesioned"], table["lost"], atol=1e-6)
    effects = lesion.effects(n_permute=9)
    assert table["p"].to_dict() == {name: effect.p for name, effect in effects.items()}


@pytest.mark.parametrize(
    "units", [range(2, 5), [2, 3, 4], np.arange(2, 5), np.isin(np.arange(8), [2, 3, 4])]
)
def test_units_of_any_kind_of_sequence(brain, units):
    lesion = Lesion(brain, units=units)
    assert lesion.n_units == 3
    assert torch.equal(lesion.bottleneck, lesion_units(brain.bottleneck, slice(2, 5)))
    swept = brain.of_lesions([lesion])
    for name, values in lesion.scores.items():
        assert np.allclose(swept[name][0], values, atol=1e-6, equal_nan=True)


def test_lesion_of_nothing_has_no_null(brain):
    nothing = np.zeros(brain.fmri.shape[1], bool)
    for lesion in (Lesion(brain), Lesion(brain, nothing), Lesion(brain, units=range(0))):
        null = lesion.null(n_permute=4)
        assert set(null) == set(brain.names)
        assert all(values.shape == (4,) for values in null.values())
        assert all(np.isnan(values).all() for values in null.values())
        assert lesion.table(n_permute=4)[["z", "p"]].isna().all(axis=None)
        for name, values in lesion.scores.items():
            assert np.allclose(values, brain.intact[name][0], atol=1e-6, equal_nan=True)


def test_null_of_voxels_and_units_draws_both(brain, region, data):
    coordinates = voxel_coordinates(data["test"].mask_img)
    lesion = Lesion(brain, region, units=range(3), mode="only", fill="mean", strength=0.5)
    null = lesion.null(n_permute=2, random_state=5)
    rng = np.random.default_rng(5)
    masks = random_regions(coordinates, int(region.sum()), 2, rng)
    for draw, mask in enumerate(masks):
        units = rng.choice(8, 3, replace=False)
        drawn = replace(lesion, mask=mask, units=units)
        for name, after in long_way(brain, drawn.bottleneck).items():
            cost = np.nanmean(brain.intact[name][0] - after)
            assert null[name][draw] == pytest.approx(cost, abs=1e-4)


def test_picture_of_a_lesion_has_four_rows(brain, region):
    figure = Lesion(brain, region).plot(n_stills=3)
    assert len(figure.axes) == 4 * 3
    assert figure.get_suptitle().startswith("SIMULATED data")
