"""Which recipe: chosen on the validation TRs of each data set, then tested on another run.

    python benchmarks/choice.py --worlds WORLDS.py --sherlock SHERLOCK_DIR --films FOLDER

Every recipe of `RECIPES` is trained on one run of each data set of `benchmarks/merging.py`, of the
films on the training TRs of both. Its
score is the r of the validation TRs inside that run, of the model before these TRs were used to fit
Layer 5. Only then is the other run predicted. Prints both for each recipe, and the one that would
be chosen: no test TR has a say in it. About an hour on one core for each seed.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from merging import films, sherlock_arrays

import giblet as gb

RECIPES: dict[str, dict] = {
    "as it is": {},
    "dropout of the seed": {"dropout_scale": 1.0},
    "width 1/4": {"width": 1 / 4},
    "width 1/16": {"width": 1 / 16},
    "learning rate 4e-3": {"learning_rate": 4e-3},
    "30 epochs": {"epochs": 30},
    "8 epochs": {"epochs": 8},
    "three networks": {"n_networks": 3},
}
OF_TRAINING = ("learning_rate", "epochs")


def data_sets(given: argparse.Namespace) -> Iterator[tuple[str, gb.MultimodalDataset]]:
    """The Sherlock regions in both directions, and a world of each kind and seed."""
    if given.sherlock:
        arrays = sherlock_arrays(given.sherlock)
        for test_run in (1, 0):
            yield (
                f"Sherlock, tested on run {test_run + 1}",
                gb.MultimodalDataset.from_arrays(**arrays, test_runs=[test_run], average=True),
            )
    if given.films:
        yield from films(given.films)
    if given.worlds:
        spec = importlib.util.spec_from_file_location("worlds", given.worlds)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for kind in module.LATENTS:
            text, fmri, runs = module.world(kind, given.first_seed)
            yield (
                kind,
                gb.MultimodalDataset.from_arrays(
                    text=text, fmri=fmri, runs=runs, test_runs=[1], average=True
                ),
            )


def scores(data: gb.MultimodalDataset, recipe: dict, seed: int) -> tuple[float, float]:
    """Validation and test r of a recipe, means over voxels."""
    settings = dict(recipe)
    n_networks = settings.pop("n_networks", 1)
    training = {name: settings.pop(name) for name in OF_TRAINING if name in settings}
    networks = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(n_networks):
            config = gb.TrainingConfig(random_state=seed + 100 * number, **training)
            place = Path(folder) / str(number)
            run = gb.load_or_train(data, config, place, progress=False, **settings)
            networks.append(gb.load_model(place / "best.pt"))
        model = run.model if n_networks == 1 else gb.merge(networks, data)
        test = gb.Prediction(model, run.data["test"]).r
    return float(np.nanmean(model.merged.explained["r"])), float(np.nanmean(test))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=Path)
    parser.add_argument("--sherlock", type=Path)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=100, help="of the worlds")
    given = parser.parse_args()
    rows = {}
    for name, data in data_sets(given):
        for recipe in given.recipes:
            tried = [scores(data, RECIPES[recipe], seed) for seed in range(given.seeds)]
            found = np.array(tried)
            both = dict(zip(("validation r", "test r"), found.mean(0), strict=True))
            rows[name, recipe] = both | {"SD of test r": found[:, 1].std()}
            print(name, recipe, {key: round(float(x), 4) for key, x in rows[name, recipe].items()},
                  flush=True)  # fmt: skip
        table = pd.DataFrame(rows).T.loc[name]
        chosen = table["validation r"].idxmax()
        print(f"{name}: chosen by validation: {chosen}\n{table.round(4).to_string()}\n", flush=True)
    every = pd.DataFrame(rows).T.unstack(0)
    print("\ngain over the recipe as it is, mean over data sets")
    for score in ("validation r", "test r"):
        gain = every[score] - every[score].loc["as it is"]
        print(f"{score}\n{gain.mean(axis=1).reindex(given.recipes).round(4).to_string()}")


if __name__ == "__main__":
    main()
