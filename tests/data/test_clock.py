"""Which film and which response share a TR: lags, runs, splits, gaps and context, of arrays."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from giblet.alignment import gap_trs
from giblet.alignment.splits import Splitting, label_trs
from giblet.data import MultimodalDataset

FRACTIONS = (0.6, 0.2, 0.2)
lags = st.integers(0, 6)
contexts = st.tuples(st.integers(0, 4), st.integers(0, 4))
run_lengths = st.lists(st.integers(90, 140), min_size=1, max_size=3)


def clock(runs, lag_trs: int, seed: int = 0):
    """Stimuli that hold the number of their TR, and BOLD that codes the TR `lag_trs` before."""
    n_trs = sum(runs)
    code = np.random.default_rng(seed).standard_normal((n_trs, 5))
    bold = np.full((n_trs, 5), np.nan)
    start = 0
    for length in runs:
        bold[start + lag_trs : start + length] = code[start : start + length - lag_trs]
        bold[start : start + lag_trs] = (
            100.0 * np.arange(lag_trs)[:, None]
        )  # nothing to do with the film
        start += length
    return np.arange(n_trs, dtype=np.float32)[:, None], code, bold


def run_of(runs) -> np.ndarray:
    return np.repeat(np.arange(len(runs)), runs)


def open_clock(runs, lag_trs, context, split, **settings) -> tuple[MultimodalDataset, np.ndarray]:
    stamp, code, bold = clock(runs, lag_trs)
    arrays = {"video": stamp, "text": 2 * stamp, "fmri": bold, "runs": runs, "lag_trs": lag_trs}
    return MultimodalDataset.from_arrays(
        **arrays, split=split, context=context, fractions=FRACTIONS, **settings
    ), code


def numbers(data: MultimodalDataset, values: torch.Tensor) -> np.ndarray:
    """TR numbers, from stamps in SDs of the training TRs."""
    train = np.flatnonzero(data.split_labels == "train")
    return np.round(values.numpy() * train.std() + train.mean(), 2)


@settings(deadline=None, max_examples=40)
@given(runs=run_lengths, lag_trs=lags, context=contexts)
def test_every_item_is_aligned_and_within_its_run(runs, lag_trs, context):
    data, code = open_clock(runs, lag_trs, context, "all")
    run, (before, after) = run_of(runs), context
    for item in (data[index] for index in (0, len(data) // 2, len(data) - 1)):
        tr = int(item["tr_index"])
        rows = np.arange(tr - before, tr + after + 1)
        assert numbers(data, item["video"]).tolist() == rows.tolist()
        assert numbers(data, item["text"]).tolist() == rows.tolist()
        assert len(set(run[rows])) == 1
    got = data[list(range(len(data)))]["fmri"].numpy()
    for index in range(len(runs)):  # z-scoring keeps the correlation with the code of the same TR
        mine = run[data.tr_index] == index
        r = [np.corrcoef(got[mine, v], code[data.tr_index[mine], v])[0, 1] for v in range(5)]
        assert r == pytest.approx([1] * 5, abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(runs=run_lengths, lag_trs=lags, context=contexts)
def test_no_stimulus_and_no_response_is_in_two_splits(runs, lag_trs, context):
    """TRs whose stimulus, context or response overlap never lie in different splits."""
    parts = {
        split: open_clock(runs, lag_trs, context, split)[0] for split in ("train", "val", "test")
    }
    run = run_of(runs)
    gap = gap_trs(1.5, 1 + sum(context))
    for index in range(len(runs)):
        blocks = [part.tr_index[run[part.tr_index] == index] for part in parts.values()]
        assert all(np.ptp(block) == len(block) - 1 for block in blocks)  # contiguous
        for one, other in ((0, 1), (1, 2)):
            assert blocks[other].min() - blocks[one].max() == gap + 1
        assert parts["test"].gap == gap
    seen = [
        set(np.unique(part[list(range(len(part)))]["video"].numpy())) for part in parts.values()
    ]
    assert seen[1] == set(np.unique(parts["val"][list(range(len(parts["val"])))]["text"].numpy()))
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


@settings(deadline=None, max_examples=40)
@given(runs=run_lengths, lag_trs=lags, context=contexts)
def test_cropping_keeps_all_that_has_stimulus_and_bold(runs, lag_trs, context):
    data, _ = open_clock(runs, lag_trs, context, "all")
    before, after = context
    for index, length in enumerate(runs):
        first = sum(runs[:index])
        mine = data.tr_index[data.run == index] - first
        assert mine.tolist() == list(range(before, length - lag_trs - after))


@settings(deadline=None, max_examples=60)
@given(
    run_trs=run_lengths,
    first=st.integers(0, 10),
    missing=st.integers(0, 10),
    fractions=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
    context=contexts,
)
def test_labels(run_trs, first, missing, fractions, context):
    fractions = np.array(fractions) / sum(fractions)
    usable = [n - missing - first - sum(context) for n in run_trs]
    gap = gap_trs(1.5, 1 + sum(context))
    assume(all(min(np.round(fractions * (n - 2 * gap))) > 2 for n in usable))
    stop = [n - missing for n in run_trs]
    splitting = Splitting(context, tuple(fractions))
    labels = label_trs(run_trs, [first] * len(run_trs), stop, 1.5, splitting)
    for run, n_usable in zip(np.split(labels, np.cumsum(run_trs)[:-1]), usable, strict=True):
        kept = np.flatnonzero(run != "cropped")
        assert (kept.min(), kept.max(), len(kept)) == (
            first + context[0],
            len(run) - missing - context[1] - 1,
            n_usable,
        )
        counts = [(run == name).sum() for name in ("train", "val", "test")]
        assert np.abs(counts - fractions * (n_usable - 2 * gap)).max() <= 1
        assert (run == "gap").sum() == 2 * gap
