import numpy as np
import pytest

from giblet.analysis.identification import Identification, identify, pairwise_accuracy


def by_loop(similarity, tr_index, run, exclusion):
    """The same for the diagonal, one pair at a time."""
    two_way = []
    counts = []
    for i in range(len(run)):
        others = [
            j
            for j in range(len(run))
            if run[j] != run[i] or abs(tr_index[j] - tr_index[i]) >= exclusion
        ]
        wins = [
            (similarity[i, j] < similarity[i, i]) + 0.5 * (similarity[i, j] == similarity[i, i])
            for j in others
        ]
        two_way.append(np.mean(wins))
        counts.append(len(others))
    return two_way, counts


def test_against_a_loop_with_ties(rng):
    similarity = rng.integers(0, 6, (40, 40)).astype(np.float32)
    run = np.repeat([0, 1], 20)
    tr_index = np.r_[5:25, 60:80]
    accuracy, counts = pairwise_accuracy(similarity, tr_index, run, exclusion=4, block_rows=7)
    two_way, expected = by_loop(similarity, tr_index, run, 4)
    assert np.allclose(np.diag(accuracy), two_way)
    assert counts.tolist() == expected


def test_exclusion_without_distractors(rng):
    with pytest.raises(
        ValueError, match="exclusion is 30 TRs, which leaves some of 20 TRs no distractor"
    ):
        pairwise_accuracy(rng.random((20, 20)), np.arange(20), np.zeros(20), 30)


def whole_runs(rng, n_features: int = 30):
    """Two runs of 120 TRs, the last 40 of each held out; features that drift as a film does."""
    run = np.repeat([0, 1], 120)
    tr_index = np.arange(240)
    held_out = np.tile(np.arange(120) >= 80, 2)
    film = np.repeat(rng.standard_normal((60, n_features)), 4, axis=0)
    return film, run, held_out, tr_index


def test_noise_is_at_chance(rng):
    """Slow noise of no relation: .5 within its interval, p above .05, in nearly all of 40 films."""
    inside = []
    p = []
    means = []
    for _ in range(40):
        film, run, held_out, tr_index = whole_runs(rng)
        noise = np.repeat(rng.standard_normal((60, 30)), 4, axis=0)
        found = identify(
            noise @ film[held_out].T, run, held_out, tr_index, exclusion=10, n_permute=200
        )
        low, high = found.interval(block_trs=10)
        inside.append(low < 0.5 < high)
        p.append(found.p)
        means.append(found.two_way.mean())
    assert np.mean(inside) >= 0.85
    assert np.mean(np.array(p) < 0.05) <= 0.13
    assert np.mean(means) == pytest.approx(0.5, abs=0.02)


def test_what_is_there_is_found(rng):
    film, run, held_out, tr_index = whole_runs(rng)
    found = identify(film @ film[held_out].T, run, held_out, tr_index, exclusion=10, n_permute=500)
    assert found.two_way.mean() > 0.99
    assert found.p == 1 / 501
    assert found.top(1)[0] > 0.95
    assert found.interval(10)[0] > 0.98


def test_top_k_by_hand():
    found = Identification(
        np.ones(3),
        np.array([1.0, 2.5, 6.0]),
        np.array([9, 9, 19]),
        *(np.arange(3),) * 2,
        np.ones(1),
    )
    share, chance = found.top(5)
    assert share == pytest.approx(2 / 3)
    assert chance == pytest.approx((0.5 + 0.5 + 0.25) / 3)


def test_null_is_made_of_other_windows(rng):
    """Explicit windows of each run, at least the exclusion away."""
    film, run, held_out, tr_index = whole_runs(rng)
    recon = film + rng.standard_normal(film.shape)
    similarity = recon @ film[held_out].T
    found = identify(similarity, run, held_out, tr_index, exclusion=10, n_permute=4000)
    accuracy, _ = pairwise_accuracy(similarity, tr_index[held_out], run[held_out], 10)
    means = []
    for index in (0, 1):
        rows = np.flatnonzero(run == index)
        columns = np.arange(40) + 40 * index
        means.append(
            [accuracy[rows[s : s + 40], columns].mean() for s in range(81) if abs(s - 80) >= 10]
        )
    assert found.null.mean() == pytest.approx(np.mean(means), abs=0.005)
    assert found.null.min() >= (min(means[0]) + min(means[1])) / 2 - 1e-6
    assert found.null.max() <= (max(means[0]) + max(means[1])) / 2 + 1e-6


def split_of_two_runs():
    """Two runs of 93 TRs, the last 14 of each held out."""
    run = np.repeat([0, 1], 93)
    tr_index = np.arange(186)
    held_out = np.isin(tr_index, [*range(79, 93), *range(172, 186)])
    return run, held_out, tr_index


def test_reconstructions_that_are_the_same_at_all_times():
    run, held_out, tr_index = split_of_two_runs()
    for seed in range(40):
        one = np.random.default_rng(seed).standard_normal((1, held_out.sum()))
        found = identify(np.repeat(one, 186, axis=0), run, held_out, tr_index, 18, n_permute=200)
        assert found.p == 1
        low, high = found.interval()
        assert low < found.two_way.mean() < high


def test_the_mean_is_alike_to_nothing():
    run, held_out, tr_index = split_of_two_runs()
    found = identify(np.zeros((186, 28), np.float32), run, held_out, tr_index, 18, n_permute=50)
    assert found.p == 1
    assert found.interval() == (0.5, 0.5)
    assert np.all(found.two_way == 0.5)


def test_p_of_a_constant_in_either_precision():
    share = np.full(28, np.float32(0.484))
    null = np.full(200, 0.484)
    found = Identification(share, 1 + share, np.ones(28), np.arange(28), np.zeros(28), null)
    assert found.p == 1
    assert found.interval() == pytest.approx((0.484, 0.484), abs=1e-6)


def test_trs_of_the_same_text_tie_but_for_rounding(rng):
    """As many reconstructions as TRs, none of which is annotated: their features are all one."""
    run, held_out, tr_index = split_of_two_runs()
    recon = rng.standard_normal((186, 300)).astype(np.float32)
    target = np.tile(rng.standard_normal(300).astype(np.float32), (28, 1))
    noise = rng.uniform(-2e-7, 2e-7, (186, 28)) * np.abs(recon @ target.T).max()
    for similarity in (recon @ target.T, (recon @ target.T + noise).astype(np.float32)):
        found = identify(similarity, run, held_out, tr_index, 18, n_permute=200)
        assert np.all(found.two_way == 0.5)
        assert found.p == 1


def test_some_trs_of_the_same_text_tie_but_for_rounding(rng):
    """Rounding moves nothing where three quarters of the TRs share one sentence."""
    run, held_out, tr_index = split_of_two_runs()
    exact = rng.integers(-50, 50, (186, 28)) / 50
    exact[:, rng.permutation(28)[:21]] = exact[:, :1]
    rounded = (exact + rng.uniform(-1e-7, 1e-7, exact.shape)).astype(np.float32)
    settings = (run, held_out, tr_index, 18, 200)
    found = identify(rounded, *settings)
    expected = identify(exact, *settings)
    two_way, _ = by_loop(exact[held_out], tr_index[held_out], run[held_out], 18)
    assert np.allclose(expected.two_way, two_way, atol=1e-12)
    assert np.array_equal(found.two_way, expected.two_way)
    assert np.array_equal(found.null, expected.null)
    assert found.p == expected.p


def test_a_share_that_is_not_annotated_gives_no_finding(rng):
    """Reconstructions of noise, a third of whose TRs are alike to nothing: 5 % at p < .05."""
    run, held_out, tr_index = split_of_two_runs()
    p = []
    for _ in range(200):
        similarity = rng.standard_normal((186, 28))
        similarity[:, rng.permutation(28)[:9]] = 0
        p.append(identify(similarity, run, held_out, tr_index, 18, n_permute=100).p)
    assert np.mean(np.array(p) < 0.05) <= 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_identification_of_what_is_not_finite(rng):
    """One broken reconstruction: no score of its own TR, and no p."""
    run, held_out, tr_index = split_of_two_runs()
    similarity = rng.standard_normal((186, 28))
    similarity[85] = np.nan
    found = identify(similarity, run, held_out, tr_index, 18, n_permute=50)
    assert np.flatnonzero(np.isnan(found.two_way)).tolist() == [6]
    assert np.isnan([found.p, *found.interval(), found.top(5)[0]]).all()


def test_ranks_are_whole_or_half(rng):
    """Rounding puts no TR out of the five most alike."""
    run, held_out, tr_index = split_of_two_runs()
    similarity = rng.integers(0, 9, (186, 28)).astype(np.float32)
    found = identify(similarity, run, held_out, tr_index, 5, n_permute=5)
    own_rows = similarity[held_out]
    for index in range(28):
        near = np.abs(tr_index[held_out] - tr_index[held_out][index]) < 5
        others = own_rows[index, ~near]
        own = own_rows[index, index]
        assert found.rank[index] == 1 + (others > own).sum() + (others == own).sum() / 2
