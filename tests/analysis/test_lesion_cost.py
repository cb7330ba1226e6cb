import numpy as np
import pytest

from giblet.analysis.lesion_cost import LesionEffect, mean_cost, random_regions, size_bin


def test_random_regions_are_balls(rng):
    coordinates = np.argwhere(np.ones((6, 6, 6))) * 3.0
    for region in random_regions(coordinates, 20, 8, rng):
        assert region.sum() == 20
        inside = coordinates[region]
        outside = coordinates[~region]
        reach = [
            np.linalg.norm(inside - c, axis=1).max()
            <= np.linalg.norm(outside - c, axis=1).min() + 1e-9
            for c in inside
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
    nothing = np.full(5, np.nan)
    ones = np.ones(5)
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
    costs = mean_cost(intact, lesioned)
    assert costs[0] == 0.25
    assert np.isnan(costs[1])
    assert mean_cost(intact[0], lesioned[0]) == 0.25


def test_size_bins_are_near():
    for size in (1, 7, 100, 5000):
        assert 0.85 <= size_bin(size, 10_000) / size <= 1.15
    assert size_bin(0, 100) == 0
    assert size_bin(990, 995) <= 995
