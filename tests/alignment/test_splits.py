import numpy as np
import pytest

from giblet.alignment import gap_trs, hrf_kernel, split_trs

FRACTIONS = (0.6, 0.15, 0.25)


@pytest.mark.parametrize(
    ("tr", "window", "expected"), [(1.5, 1, 17), (2.0, 1, 13), (1.5, 5, 21), (0.8, 1, 31)]
)
def test_gap_is_window_and_response(tr, window, expected):
    assert gap_trs(tr, window) == expected


def test_no_response_reaches_over_the_gap():
    """BOLD of a block's last stimulus has faded before the next block begins."""
    kernel = hrf_kernel(1.5)
    assert np.abs(kernel[gap_trs(1.5) :]).sum() < 0.01


@pytest.mark.parametrize("run_lengths", [(240, 240), (946, 1030), (100,), (50, 200, 60)])
def test_blocks(run_lengths):
    labels = split_trs(run_lengths, FRACTIONS, gap=17)
    assert len(labels) == sum(run_lengths)
    for run in np.split(labels, np.cumsum(run_lengths)[:-1]):
        starts = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
        assert run[starts].tolist() == ["train", "gap", "val", "gap", "test"]
        lengths = dict(
            zip(["train", "gap", "val", "", "test"], np.diff(np.r_[starts, len(run)]), strict=True)
        )
        assert lengths["gap"] == lengths[""] == 17
        for name, fraction in zip(("train", "val", "test"), FRACTIONS, strict=True):
            assert abs(lengths[name] - fraction * (len(run) - 34)) <= 1


def test_short_run():
    with pytest.raises(ValueError, match="run 2 has 38 TRs, too few for 3 blocks with gaps of 17"):
        split_trs((100, 38), FRACTIONS, gap=17)


def test_without_validation_trs():
    labels = split_trs((117,), (0.75, 0, 0.25), gap=17)
    assert labels.tolist() == ["train"] * 75 + ["gap"] * 17 + ["test"] * 25
    labels = split_trs((50, 60), (0.75, 0, 0.25), gap=17, test_runs=[1])
    assert labels.tolist() == ["train"] * 50 + ["test"] * 60


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.6, 0.2, 0.3), (1.0, 0.0, 0.0), (1.2, -0.4, 0.2)]
)
def test_bad_fractions(fractions):
    with pytest.raises(ValueError, match=r"expected \(train, val, test\) of sum 1"):
        split_trs((100,), fractions, gap=17)


def test_a_whole_run_held_out():
    labels = split_trs((100, 60), FRACTIONS, gap=17, test_runs=[1])
    assert labels[100:].tolist() == ["test"] * 60
    assert (
        labels[:100].tolist() == ["train"] * 66 + ["gap"] * 17 + ["val"] * 17
    )  # 83 TRs, four fifths of them train


@pytest.mark.parametrize("test_runs", [[2], [0, 1], [-1]])
def test_bad_test_runs(test_runs):
    with pytest.raises(ValueError, match="expected some of 0 to 1, not all"):
        split_trs((100, 60), FRACTIONS, gap=17, test_runs=test_runs)
