"""The real Sherlock data: train on one run, predict the other, in both directions.

    python benchmarks/sherlock.py SHERLOCK_DIR --masks MASKS_DIR [--context 2 1] [--seeds 3]

SHERLOCK_DIR is a data folder in the published layout, MASKS_DIR holds `mask_*.nii.gz` on its grid.
The cartoon that opens both runs is left out. Prints, for each direction and region, held-out r with
its ceiling, ridge on the same features, and the difference with its interval; then how well the
moments of the film are identified from the measured brain, and from the brain of another time.
Preparing each direction takes two minutes on two cores, the rest one.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

import giblet as gb

MASKS = {
    "early visual": "early_visual",
    "early auditory": "aud_early",
    "PMC": "pmc_nn",
    "parahippocampal": "post_parahipp",
}
BLOCK_TRS = 30


def regions_of_masks(folder: Path, mask_img) -> gb.Regions:
    """The masks as one label image."""
    images = [nib.load(folder / f"mask_{name}.nii.gz") for name in MASKS.values()]
    labels = sum((index + 1) * (image.get_fdata() > 0) for index, image in enumerate(images))
    return gb.label_regions(
        nib.Nifti1Image(labels.astype(np.int16), images[0].affine),
        dict(enumerate(MASKS, 1)),
        mask_img,
    )


def one_direction(
    data_dir: Path, masks: Path, test_run: int, context: tuple[int, int], n_seeds: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of each region for one held-out run, and identification of its moments.

    The scores include z and p of each region's mean r. The prediction is the mean of `n_seeds`
    models, and the first of them decodes.
    """
    runs = []
    for seed in range(n_seeds):
        config = gb.TrainingConfig(random_state=seed)
        settings = {"test_runs": [test_run], "context": context}
        runs.append(gb.load_or_train(data_dir, config, **settings))
    whole = runs[0].data["all"]
    fmri_pred = np.mean([gb.Prediction(run.model, whole).fmri_pred for run in runs], axis=0)
    prediction = gb.Prediction(None, whole, fmri_pred=fmri_pred)
    regions = regions_of_masks(masks, whole.mask_img)
    table = prediction.region_table(regions, block_trs=BLOCK_TRS)
    table[["z of r", "p of r"]] = prediction.network_table(regions)[["z", "p"]]
    found = {}
    for source in ("predicted", "measured", "shifted"):
        recon = gb.Reconstruction(runs[0].model, runs[0].data["test"], source)
        for name, one in recon.identify().items():
            interval = np.round(one.interval(BLOCK_TRS), 3)
            scores = {"2-way": one.two_way.mean(), "interval": interval, "p": one.p}
            found[source, name] = scores
    return table, pd.DataFrame(found).T


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--context", type=int, nargs=2, default=(0, 0))
    parser.add_argument(
        "--seeds", type=int, default=1, help="the prediction is the mean of as many models"
    )
    given = parser.parse_args()
    tables = []
    for test_run in (1, 0):
        table, found = one_direction(
            given.data_dir, given.masks, test_run, tuple(given.context), given.seeds
        )
        tables.append(table)
        print(f"\ntrained on run {2 - test_run}, tested on run {test_run + 1}")
        print(table.round(3).T.to_string())
        print(
            f"\nidentification of TRs by the first model's decoder\n{found.to_string()}", flush=True
        )
    both = sum(tables) / 2
    print("\nmean of both directions")
    print(both[["r", "ceiling", "ridge r", "r - ridge", "subject r", "ISC"]].round(3).to_string())


if __name__ == "__main__":
    main()
