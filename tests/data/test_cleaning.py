"""Cleaning by nilearn, run by run and a block of voxels at a time."""

import numpy as np
import pandas as pd
import pytest
from fmriprep import write_derivatives, write_stimuli
from nilearn.image import clean_img, load_img, smooth_img
from nilearn.interfaces.fmriprep import load_confounds_strategy
from nilearn.masking import apply_mask

from giblet.analysis.correlation import voxelwise_correlation
from giblet.data import MultimodalDataset, VideoProcessor
from giblet.data.cleaning import Cleaning, clean_run
from giblet.data.fmri import FMRIProcessor
from giblet.data.pieces import Piece

FILM = VideoProcessor(9, 16, 10)


@pytest.fixture(scope="module")
def root(simulated, tmp_path_factory):
    """Derivatives with motion and drift five times the signal, and volumes of no steady state."""
    path = tmp_path_factory.mktemp("cleaning")
    write_stimuli(simulated, path / "stimuli")
    return write_derivatives(simulated, path / "fmriprep", uncleaned=3)


def series(root, run: int = 1):
    return next(root.glob(f"sub-01/func/*run-{run}_*preproc_bold.nii.gz"))


def cleaned(path, tmp_path, cleaning: Cleaning, n_trs: int):
    """Series of the voxels of its mask as `scan` leaves them, and what can be used."""
    mask_img = load_img(str(path).replace("desc-preproc_bold", "desc-brain_mask"))
    raw = tmp_path / "raw.npy"
    scan = FMRIProcessor(1.5, cleaning=cleaning).scan(
        [Piece(path, slice(0, n_trs))],
        mask_img,
        [slice(0, n_trs)],
        np.ones(n_trs, bool),
        raw,
        lambda n: None,
    )
    return np.load(raw), scan, mask_img


@pytest.mark.parametrize("strategy", ["simple", "scrubbing"])
def test_against_clean_img(root, tmp_path, strategy):
    path = series(root)
    found, scan, mask_img = cleaned(path, tmp_path, Cleaning(strategy, detrend=True), 64)
    confounds, kept = load_confounds_strategy(str(path), strategy)
    expected = clean_img(
        path, standardize=None, confounds=confounds, mask_img=mask_img,
        clean__sample_mask=kept,
    )  # fmt: skip
    assert np.allclose(found[kept], apply_mask(expected, mask_img), atol=1e-3)
    assert np.array_equal(np.flatnonzero(scan.trs), kept)
    assert not scan.trs[:3].any()
    assert (
        f"{64 - len(kept)} TRs that are scrubbed or not in steady state" in scan.sentences("s")[0]
    )


def test_high_pass_and_smoothing_against_clean_img(root, tmp_path):
    path = series(root)
    cleaning = Cleaning(detrend=True, high_pass=0.01, smoothing_mm=20)
    found, scan, mask_img = cleaned(path, tmp_path, cleaning, 64)
    assert scan.trs.all()
    expected = clean_img(
        smooth_img(path, 20), standardize=None, clean__filter="cosine", high_pass=0.01, t_r=1.5,
        mask_img=mask_img,
    )  # fmt: skip
    assert np.allclose(found, apply_mask(expected, mask_img), atol=1e-2)


def test_blocks_of_voxels_change_nothing(rng, monkeypatch):
    bold = 100 + rng.standard_normal((80, 50))
    confounds, measured = rng.standard_normal((80, 5)), np.arange(80) > 2
    one, other = bold.copy(), bold.copy()
    clean_run(one, confounds, measured, Cleaning(detrend=True), 1.5, "run")
    monkeypatch.setattr("giblet.data.cleaning.N_VOXELS", 7)
    clean_run(other, confounds, measured, Cleaning(detrend=True), 1.5, "run")
    assert np.allclose(one, other, atol=1e-10)
    assert np.array_equal(one[:3], bold[:3])
    design = np.column_stack([confounds, np.arange(80), np.ones(80)])[3:]
    fitted = design @ np.linalg.lstsq(design, bold[3:], rcond=None)[0]
    assert np.allclose(one[3:], bold[3:] - fitted, atol=1e-8)


def test_a_planted_artefact_is_gone(simulated, root, tmp_path):
    """BOLD is what it would be without motion and drift: r of each voxel with the plain series."""
    plain = write_derivatives(simulated, tmp_path / "fmriprep", artefact=0, drift=0, uncleaned=3)
    settings = {"stimuli": root.parent / "stimuli", "lag_trs": 3, "video_processor": FILM}
    settings |= {"progress": False, "split": "all", "average": True}
    clean = MultimodalDataset(plain, **settings)
    nothing = {"confounds": "none", "detrend": False}
    expected = (({"confounds": "simple"}, 0.98, 1), (nothing, 0, 0.5))
    for cleaning, at_least, at_most in expected:
        found = MultimodalDataset(root, cleaning=cleaning, **settings)
        r = voxelwise_correlation(found.fmri(), clean.fmri(), found.run)
        assert at_least <= np.median(r) <= at_most


def test_runs_are_cleaned_alone(root, tmp_path):
    """A run of two is what it is by itself."""
    runs, n_trs = [slice(0, 64), slice(64, 126)], 126
    mask_img = load_img(str(series(root)).replace("desc-preproc_bold", "desc-brain_mask"))
    pieces = [Piece(series(root, run), slice(0, n)) for run, n in ((1, 64), (2, 62))]
    processor = FMRIProcessor(1.5, cleaning=Cleaning("simple", detrend=True))
    raw = tmp_path / "both.npy"
    processor.scan(pieces, mask_img, runs, np.ones(n_trs, bool), raw, lambda n: None)
    alone, _, _ = cleaned(series(root, 2), tmp_path, Cleaning("simple", detrend=True), 62)
    assert np.array_equal(np.load(raw)[runs[1]], alone)


def test_cleaning_twice(root, tmp_path):
    """What was cleaned before has means of 0, and is refused."""
    path = series(root)
    image = load_img(path)
    values = image.get_fdata()
    image = type(image)(values - values.mean(-1, keepdims=True), image.affine)
    twice = tmp_path / path.name
    image.to_filename(twice)
    tables = path.parent.glob("*run-1_desc-confounds*")
    for table in tables:
        (tmp_path / table.name).write_bytes(table.read_bytes())
    mask = str(path.name).replace("desc-preproc_bold", "desc-brain_mask")
    (tmp_path / mask).write_bytes((path.parent / mask).read_bytes())
    with pytest.raises(ValueError, match="as only series have that were cleaned before"):
        cleaned(twice, tmp_path, Cleaning("simple"), 64)


def test_refused_tables(root, tmp_path):
    path = series(root)
    for file in path.parent.glob("*run-1_*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = next(tmp_path.glob("*confounds_timeseries.tsv"))
    whole = pd.read_csv(table, sep="\t")
    faults = {
        "a row fewer": (whole[:-1], "has 63 rows for 64 TRs"),
        "a hole": (
            whole.assign(csf=whole["csf"].where(whole.index != 30)),
            "values that are not finite",
        ),
        "no motion": (whole.drop(columns="trans_x"), "cannot be taken by cleaning with 'simple'"),
    }
    for damaged, message in faults.values():
        damaged.to_csv(table, sep="\t", index=False, na_rep="n/a")
        with pytest.raises(ValueError, match=message):
            cleaned(tmp_path / path.name, tmp_path, Cleaning("simple"), 64)
    with pytest.raises(ValueError, match="20 TRs that can be used and 15 confounds, expected at"):
        clean_run(np.ones((20, 3)), np.ones((20, 15)), np.ones(20, bool), Cleaning(), 1.5, "s")
