"""The real Sherlock data: train on one run, predict the other, in both directions, without the cartoon.

    python benchmarks/sherlock.py SHERLOCK_DIR --masks MASKS_DIR [--context 2 1] [--seeds 3]

SHERLOCK_DIR is a data folder in the published layout, MASKS_DIR holds `mask_*.nii.gz` on its grid. Prints, for each
direction and region, held-out r with its ceiling, ridge on the same features, and the difference with its interval;
then how well the moments of the film are identified from the measured brain, and from the brain of another time.
Preparing each direction takes two minutes on two cores, the rest one.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from giblet.analysis.baseline import ridge_predictions
from giblet.analysis.ceiling import inter_subject_correlation, split_half_reliability
from giblet.analysis.prediction import predict_fmri, subject_correlations
from giblet.analysis.regions import Regions, label_regions
from giblet.analysis.statistics import fdr, voxelwise_null
from giblet.analysis.tables import identify_source, network_table, region_table
from giblet.data import MultimodalDataset
from giblet.training import TrainingConfig
from giblet.training.recipe import SMALL, VIDEO, Recipe, load_or_train

MASKS = {
    "early visual": "early_visual",
    "early auditory": "aud_early",
    "PMC": "pmc_nn",
    "parahippocampal": "post_parahipp",
}
N_PERMUTE, BLOCK_TRS = 2000, 30


def regions_of_masks(folder: Path, mask_img) -> Regions:
    """The masks as one label image."""
    images = [nib.load(folder / f"mask_{name}.nii.gz") for name in MASKS.values()]
    labels = sum((index + 1) * (image.get_fdata() > 0) for index, image in enumerate(images))
    return label_regions(
        nib.Nifti1Image(labels.astype(np.int16), images[0].affine), dict(enumerate(MASKS, 1)), mask_img
    )


def one_direction(
    data_dir: Path, masks: Path, test_run: int, context: tuple[int, int], n_seeds: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of regions for one held-out run, with z and p of each region's mean r; and the film identified."""
    features = {"test_runs": [test_run], "context": context}
    recipe = Recipe(SMALL.video, SMALL.audio, SMALL.model, features)
    runs = [load_or_train(data_dir, TrainingConfig(random_state=seed), recipe=recipe) for seed in range(n_seeds)]
    train, test, whole = (runs[0].data[split] for split in ("train", "test", "all"))
    fmri_pred, held_out = np.mean([predict_fmri(run.model, whole) for run in runs], axis=0), whole.run == test_run
    _, p = voxelwise_null(fmri_pred, whole.fmri(), whole.run, held_out, whole.gap, N_PERMUTE)
    subjects = MultimodalDataset(data_dir, split="test", video_processor=VIDEO, progress=False, **features)
    maps = {"reliability": split_half_reliability(subjects), "q": fdr(p)}
    maps["isc"] = inter_subject_correlation(subjects).mean(0)
    maps["subject_r"] = subject_correlations(fmri_pred[held_out], subjects).mean(0)
    regions = regions_of_masks(masks, whole.mask_img)
    ridge_pred = ridge_predictions(train, test).sum(0)
    table = region_table(fmri_pred[held_out], ridge_pred, test, regions, maps, block_trs=BLOCK_TRS)
    table[["z of r", "p of r"]] = network_table(fmri_pred, whole, regions, N_PERMUTE)[["z", "p"]]
    found = {
        source: identify_source(source, runs[0].model, whole, test) for source in ("predicted", "measured", "shifted")
    }
    return table, pd.DataFrame(
        {
            (source, name): {"2-way": x.two_way.mean(), "interval": np.round(x.interval(BLOCK_TRS), 3), "p": x.p}
            for source, of_source in found.items()
            for name, x in of_source.items()
        }
    ).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--context", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--seeds", type=int, default=1, help="the prediction is the mean of as many models")
    given = parser.parse_args()
    tables = []
    for test_run in (1, 0):
        table, found = one_direction(given.data_dir, given.masks, test_run, tuple(given.context), given.seeds)
        tables.append(table)
        print(f"\ntrained on run {2 - test_run}, tested on run {test_run + 1}")
        print(table.round(3).T.to_string())
        print(f"\nidentification of TRs by the first model's decoder\n{found.to_string()}", flush=True)
    both = sum(tables) / 2
    print("\nmean of both directions")
    print(both[["r", "ceiling", "ridge r", "r - ridge", "subject r", "ISC"]].round(3).to_string())


if __name__ == "__main__":
    main()
