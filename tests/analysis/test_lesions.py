import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation

from giblet.analysis.lesion_effects import (
    LesionEffect,
    lesion_effects,
    mean_cost,
    mean_costs,
    random_regions,
    region_null,
    size_bin,
    unit_null,
)
from giblet.analysis.lesions import LesionScores, fill_values, lesion_units, lesion_voxels
from giblet.analysis.regions import Regions, voxel_coordinates
from giblet.analysis.sweeps import (
    decoding_failures,
    dose_response,
    intact_table,
    region_sweep,
    top_trs,
    unit_region_map,
    unit_sweep,
)
from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder


@pytest.fixture(scope="module")
def span_model(simulated, data, tmp_path_factory):
    video = data["test"].video_processor
    train = MultimodalDataset(simulated, average=True, video_processor=video, progress=False)
    torch.manual_seed(0)
    span = fit_span(train, tmp_path_factory.mktemp("bases"), progress=False)
    return SpanAutoencoder(span, **train.model_dims, bottleneck_dim=8, width=1 / 64).eval()


@pytest.fixture(scope="module", params=["direct", "span"])
def scores(request, data, model, span_model) -> LesionScores:
    chosen = model if request.param == "direct" else span_model
    return LesionScores(chosen, data["test"], data["test"].fmri())


@pytest.fixture
def region(scores, rng) -> np.ndarray:
    return rng.random(scores.fmri.shape[1]) < 0.3


def long_way(scores: LesionScores, bottleneck: torch.Tensor) -> dict[str, np.ndarray]:
    """Scores in pixels and float64, from the public decoder."""
    test = scores.dataset
    with torch.no_grad():
        recon = dict(zip(("video", "audio", "text"), scores.model.decoder(bottleneck), strict=True))
    found = {}
    for name, values in recon.items():
        x, y = values.double(), test.stimulus(name, test.tr_index).double()
        if name == "text":
            found[name] = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
        else:
            mean = test.train_mean(name).double()
            found[name] = 1 - (x - y).square().mean(1) / (mean - y).square().mean()
    return {name: values.numpy() for name, values in found.items()}


@pytest.mark.parametrize("fill", ["zero", "mean", "resample"])
@pytest.mark.parametrize("mode", ["without", "only"])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_lesion_through_layer_6_is_the_lesion_of_the_voxels(scores, region, fill, mode, strength):
    """The batch of changes against decoding the lesioned voxels themselves."""
    generator = torch.Generator().manual_seed(0)
    fmri = lesion_voxels(scores.fmri, region, fill, strength, mode, generator=generator)
    with torch.no_grad():
        expected = scores.model.fmri_to_bottleneck(fmri)
    lesioned = scores.lesioned(region, fill=fill, strength=strength, mode=mode)
    assert torch.allclose(lesioned, expected, atol=1e-4)
    swept = scores.of_regions([region, ~region], fill=fill, strength=strength, mode=mode)
    for name, values in long_way(scores, expected).items():
        assert np.allclose(swept[name][0], values, atol=1e-3, equal_nan=True)


def test_voxels_by_hand():
    fmri, region = torch.tensor([[1.0, 2, 3], [5, 6, 7]]), np.array([True, False, False])
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
        name: lambda x, i=i: model.eval().decoder(x)[i].square().mean(1) for i, name in enumerate(("video", "audio"))
    }
    mask = torch.arange(8)[None] // group
    for of_outputs in forward.values():
        with torch.no_grad():
            theirs = FeatureAblation(of_outputs).attribute(bottleneck, baselines=0, feature_mask=mask)
            intact = of_outputs(bottleneck)
            for index in range(int(mask.max()) + 1):
                units = np.flatnonzero(mask[0] == index)
                ours = intact - of_outputs(lesion_units(bottleneck, units))
                assert torch.allclose(theirs[:, units], ours[:, None].expand(-1, len(units)), atol=1e-6)


def test_scores_of_the_intact_brain(scores):
    for name, values in long_way(scores, scores.bottleneck).items():
        assert np.allclose(scores.intact[name][0], values, atol=1e-4, equal_nan=True)
    some = scores.at([0, 4, 2])
    assert np.array_equal(some.intact["audio"], scores.intact["audio"][:, [0, 4, 2]])
    lesion = np.arange(scores.fmri.shape[1]) < 20
    assert torch.allclose(
        some.lesioned(lesion, fill="mean"), scores.lesioned(lesion, fill="mean")[[0, 4, 2]], atol=1e-5
    )


def test_no_lesion_is_no_change(scores):
    nothing = np.zeros(scores.fmri.shape[1], bool)
    for mode in ("without", "only"):
        assert torch.equal(scores.lesioned(nothing, mode=mode), scores.bottleneck)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"fill": "noise"}, "fill is 'noise', expected one of zero, mean, resample"), ({"mode": "all"}, "mode is 'all'")],
)
def test_bad_arguments(scores, region, arguments, message):
    with pytest.raises(ValueError, match=message):
        lesion_voxels(scores.fmri, region, **arguments)
    with pytest.raises(ValueError, match=message):
        scores.lesioned(region, **arguments)


def test_fill_values():
    reference = torch.tensor([[1.0, 10], [3, 30]])
    assert fill_values(reference, 3, "mean").tolist() == [[2, 20]] * 3
    drawn = fill_values(reference, 50, "resample", torch.Generator().manual_seed(1))
    assert {tuple(row) for row in drawn.tolist()} == {(1, 10), (3, 30)}


def test_random_regions_are_balls(rng):
    coordinates = np.argwhere(np.ones((6, 6, 6))) * 3.0
    for region in random_regions(coordinates, 20, 8, rng):
        assert region.sum() == 20
        inside, outside = coordinates[region], coordinates[~region]
        reach = [
            np.linalg.norm(inside - c, axis=1).max() <= np.linalg.norm(outside - c, axis=1).min() + 1e-9 for c in inside
        ]
        assert any(reach)


def test_effect_by_hand():
    null = np.array([0.0, 0.1, 0.2, 0.3])
    harm = LesionEffect(np.array([1.0, np.nan, 1.0]), np.array([0.75, 0.0, 0.75]), null)
    assert harm.effect == 0.25
    assert harm.p == 2 / 5
    assert harm.z == pytest.approx(0.1 / null.std())
    assert LesionEffect(harm.intact, harm.lesioned, null, mode="only").p == 4 / 5


@pytest.mark.parametrize("mode", ["without", "only"])
def test_effect_of_no_score(mode):
    """Text that no TR has, a null that lacks a draw, and scores that are not finite."""
    nothing, ones = np.full(5, np.nan), np.ones(5)
    null = np.linspace(-1, 1, 49)
    hole = np.where(np.arange(49) == 7, np.nan, null)
    cases = ((nothing, nothing, null), (ones, nothing, null), (ones, 0 * ones, hole))
    for intact, lesioned, draws in (*cases, (ones, -np.inf * ones, null)):
        effect = LesionEffect(intact, lesioned, draws, mode)
        assert np.isnan([effect.p, effect.z]).all()
    assert np.isnan(LesionEffect(ones, nothing, null, mode).effect)
    assert LesionEffect(ones, 0 * ones, hole, mode).effect == 1
    unknown = LesionEffect(-np.inf * ones, -np.inf * ones, null, mode)
    assert np.isnan([unknown.effect, unknown.z, unknown.p]).all()


@pytest.mark.parametrize("mode", ["without", "only"])
def test_effect_by_rounding(rng, mode):
    """Scores in float32 that differ by their last bit, as do those of the null: nothing is lost."""
    intact = rng.uniform(-1, 1, 40).astype(np.float32)
    lesioned = np.nextafter(intact, np.float32(-2))
    for sign in (-1, 1):
        null = rng.uniform(-1, 1, 99) * 1e-8
        effect = LesionEffect(*(intact, lesioned)[::sign], null, mode)
        assert 0 < sign * effect.effect < 1e-7
        assert effect.p == 1
        assert np.isnan(effect.z)


def test_small_costs_are_told_apart():
    """1e-6 lost of a score of .5, in float32, beside a null of a tenth of that."""
    intact = np.full(40, 0.5, np.float32)
    lesioned = intact - np.float32(1e-6)
    harm = LesionEffect(intact, lesioned, np.linspace(-1e-7, 1e-7, 99))
    assert harm.p == 1 / 100
    tiny = LesionEffect(np.full(5, 1e-6), np.zeros(5), np.linspace(-9e-7, 9e-7, 99))
    assert tiny.p == 1 / 100
    assert tiny.z == pytest.approx(1e-6 / np.linspace(-9e-7, 9e-7, 99).std())


def test_mean_costs_leave_out_trs_without_score():
    intact = np.array([[1.0, 2.0, np.nan]])
    lesioned = np.array([[0.5, 2.0, 1.0], [np.nan, np.nan, 1.0]])
    costs = mean_costs({"text": intact}, {"text": lesioned})["text"]
    assert costs[0] == 0.25
    assert np.isnan(costs[1])
    assert mean_cost(intact[0], lesioned[0]) == 0.25


def test_nulls_are_explicit_lesions(scores, data):
    coordinates = voxel_coordinates(data["test"].mask_img)
    null = region_null(scores, 15, n_permute=6, random_state=3)
    regions = random_regions(coordinates, 15, 6, np.random.default_rng(3))
    for draw, region in enumerate(regions):
        after = long_way(scores, scores.lesioned(region))["audio"]
        assert null["audio"][draw] == pytest.approx(np.mean(scores.intact["audio"][0] - after), abs=1e-4)
    rng = np.random.default_rng(0)
    units = rng.choice(8, 3, replace=False)
    after = long_way(scores, lesion_units(scores.bottleneck, units))["video"]
    found = unit_null(scores, 3, n_permute=4)["video"][0]
    assert found == pytest.approx(np.mean(scores.intact["video"][0] - after), abs=1e-4)


def planted_model(data) -> tuple[MultimodalAutoencoder, Regions]:
    """A direct model whose bottleneck reads the first tenth of the voxels only."""
    torch.manual_seed(1)
    model = MultimodalAutoencoder(**data["test"].model_dims, bottleneck_dim=8, width=1 / 64).eval()
    n_voxels = data["test"].fmri().shape[1]
    labels = np.minimum(np.arange(n_voxels) * 10 // n_voxels, 9)
    with torch.no_grad():
        model.encoder.to_bottleneck.weight[:, labels > 0] = 0
        model.encoder.to_bottleneck.weight *= 20
    return model, Regions(labels, tuple(f"r{i}" for i in range(10)))


def test_sweep_finds_the_region_that_is_read(data):
    model, regions = planted_model(data)
    test = data["test"]
    scores, coordinates = LesionScores(model, test, test.fmri()), voxel_coordinates(test.mask_img)
    table = region_sweep(scores, regions, n_permute=30, progress=False)
    assert table.columns.names[0] == "SIMULATED data"
    others = table.drop(index="r0")
    assert (others.xs("effect", axis=1, level=1).abs() < 1e-6).all(axis=None)
    assert (table.loc["r0"].xs("effect", level=1).abs() > 1e-4).all()
    own = scores.of_regions([regions.voxels("r0")])
    assert table.loc["r0", ("audio", "effect")] == pytest.approx(
        np.mean(scores.intact["audio"] - own["audio"], dtype=np.float64), abs=1e-6
    )
    null = region_null(scores, size_bin(int(regions.voxels("r0").sum()), len(coordinates)), 30)
    assert table.loc["r0", ("audio", "p")] == lesion_effects(scores, own, null)["audio"].p
    reads = unit_region_map(scores, regions)
    assert (reads["r0"] > 0).all()
    assert (reads.drop(columns="r0") == 0).all(axis=None)
    contribution = scores.fmri[:, regions.voxels("r0")] @ model.encoder.to_bottleneck.weight[:, regions.voxels("r0")].T
    assert np.allclose(reads["r0"], contribution.std(0).detach(), rtol=1e-4)


def test_empty_region_has_no_effect(scores, data):
    """The intact brain is no finding and no null: effect, z and p are NaN, in both modes."""
    coordinates = voxel_coordinates(data["test"].mask_img)
    labels = (np.arange(len(coordinates)) >= 20).astype(int)
    regions = Regions(labels, ("small", "rest", "empty"))
    for mode in ("without", "only"):
        table = region_sweep(scores, regions, 20, progress=False, mode=mode)
        assert table[("", "n_voxels")].tolist() == [20, len(labels) - 20, 0]
        assert table.loc["empty"].drop(("", "n_voxels")).isna().all()
        assert table.loc["small"].xs("p", level=1).notna().all()
    empty = regions.voxels("empty")
    assert dose_response(scores, empty).isna().all(axis=None)
    assert len(top_trs(scores, empty)) == 0
    null = region_null(scores, 0, n_permute=7)
    for effect in lesion_effects(scores, scores.of_regions([empty]), null).values():
        assert np.isnan([effect.p, effect.z]).all()
    assert np.isnan(unit_null(scores, 0, n_permute=7)["text"]).all()


def test_lesions_that_are_those_of_their_null(scores, data):
    """The whole brain, of which there is one, and lesions of no strength: p is 1, and z is NaN."""
    coordinates = voxel_coordinates(data["test"].mask_img)
    n_voxels = len(coordinates)
    for lesion in ({"fill": "mean"}, {"mode": "only"}):
        null = region_null(scores, n_voxels, 20, **lesion)
        lesioned = scores.of_regions([np.ones(n_voxels, bool)], **lesion)
        mode = lesion.get("mode", "without")
        for effect in lesion_effects(scores, lesioned, null, mode).values():
            assert effect.p == 1
            assert np.isnan(effect.z)
    halves = Regions((np.arange(n_voxels) % 2), ("even", "odd"))
    for table in (
        region_sweep(scores, halves, 20, progress=False, strength=0),
        unit_sweep(scores, scores.bottleneck.shape[1], n_permute=20),
    ):
        assert (table.xs("p", axis=1, level=1) == 1).all(axis=None)
        assert table.xs("z", axis=1, level=1).isna().all(axis=None)


def test_text_that_no_held_out_tr_has(scores):
    silent = scores.at(range(scores.dataset.n_trs))
    silent.intact = silent.intact | {"text": np.full_like(silent.intact["text"], np.nan)}
    silent.target = silent.target | {"text": torch.zeros_like(silent.target["text"])}
    table = unit_sweep(silent, group_size=4, n_permute=9)
    assert table["text"].isna().all(axis=None)
    assert table["audio"].notna().all(axis=None)
    region = np.arange(scores.fmri.shape[1]) < 5
    assert dose_response(silent, region)["text"].isna().all()


def test_sweep_of_units(scores):
    table = unit_sweep(scores, group_size=4, n_permute=20)
    assert table.index.tolist() == ["0-3", "4-7"]
    after = scores.of_units([np.arange(4, 8)])["text"]
    assert table.loc["4-7", ("text", "effect")] == pytest.approx(
        np.nanmean(scores.intact["text"] - after, dtype=np.float64), abs=1e-6
    )


def test_dose_grows_from_nothing(scores, region):
    table = dose_response(scores, region, strengths=(0, 0.5, 1))
    assert table.loc[0, "audio"] == pytest.approx(scores.intact["audio"].mean())
    assert table.loc[1, "audio"] == pytest.approx(scores.of_regions([region])["audio"].mean())


def test_top_moments(scores, region):
    rows = top_trs(scores, region, n=3, apart=3)
    response = scores.fmri[:, region].mean(1).numpy()
    assert rows[0] == response.argmax()
    assert np.all(np.diff(response[rows]) <= 0)
    trs = scores.dataset.tr_index[rows]
    assert np.abs(trs[:, None] - trs)[~np.eye(3, dtype=bool)].min() >= 3


def test_size_bins_are_near():
    for size in (1, 7, 100, 5000):
        assert 0.85 <= size_bin(size, 10_000) / size <= 1.15
    assert size_bin(0, 100) == 0
    assert size_bin(990, 995) <= 995


def test_intact_scores_beside_those_of_the_training_mean(scores, data):
    """Text of the mean against its own cosine; a decoder that is worse than the mean is told."""
    table = intact_table({"measured": scores})
    test = data["test"]
    assert table["measured"].to_dict() == pytest.approx(
        {name: np.nanmean(values[0], dtype=np.float64) for name, values in scores.intact.items()}
    )
    mean, text = test.train_mean("text").double(), test.stimulus("text", test.tr_index).double()
    said = text[text.norm(dim=1) > 0]
    cosine = ((said @ mean) / (said.norm(dim=1) * mean.norm())).mean().item()
    assert table["training mean"].to_dict() == pytest.approx({"video": 0, "audio": 0, "text": cosine}, abs=1e-6)
    told = decoding_failures(table)
    failed = [name for name in test.present if table.loc[name, "measured"] <= table.loc[name, "training mean"]]
    assert [sentence.split()[0] for sentence in told] == failed == ["video", "audio", "text"]  # it is not trained
    assert all("no better than by the training mean" in sentence for sentence in told)
    table["measured"] = table["training mean"] + 0.1
    assert decoding_failures(table) == []
    table.loc["audio", "measured"] = np.nan
    assert len(decoding_failures(table)) == 1
