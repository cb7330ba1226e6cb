"""The model of a run beside ridge regression, where responses are linear and where they are not.

    python benchmarks/merging.py --worlds WORLDS.py [--seeds 5] [--kinds linear half5 ...]
    python benchmarks/merging.py --sherlock SHERLOCK_DIR [--context 2 1] [--seeds 3]
    python benchmarks/merging.py --films FOLDER

WORLDS.py has `world(kind, seed)` -> features, fMRI, TRs of each run, and `LATENTS`, whose keys are
the kinds. The first run is trained on, the second tested. SHERLOCK_DIR holds the published region
means, sheet and sensory features; both runs are tested in turn, without the cartoon that opens
them. FOLDER takes two simulated films: that of the notebooks, and one of another seed, fewer and
noisier brains, and a lag that is told one TR short. Ridge regression sees the same features and the
same TRs, those of validation included.
Prints r of the model, of its network alone and of ridge regression, and their difference with
its 95 % intervals over film and over subjects. Half a minute a training on two cores.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from scipy.io import loadmat
from sklearn.feature_extraction.text import TfidfVectorizer

import giblet as gb
from giblet.data import simulate_dataset
from giblet.data.segments import read_segments
from giblet.data.simulation import dataset as simulation
from giblet.runs import Run

RUN_TRS = (946, 1030)
CARTOON = 26  # TRs that open both runs
REGIONS = ("early visual", "early auditory", "PMC", "parahippocampal")
BLOCK_TRS = 30


def compare(data: gb.MultimodalDataset, seed: int) -> tuple[pd.DataFrame, Run]:
    """The comparison table of one training."""
    with tempfile.TemporaryDirectory() as folder:
        config = gb.TrainingConfig(random_state=seed)
        run = gb.load_or_train(data, config, Path(folder) / "run", progress=False)
        prediction = gb.Prediction(run.model, run.data["test"])
        return prediction.comparison_table(block_trs=BLOCK_TRS), run


def worlds(path: Path, kinds: list[str], n_seeds: int) -> None:
    """Ratio to ridge regression in each kind of world."""
    spec = importlib.util.spec_from_file_location("worlds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = {}
    for kind in kinds or module.LATENTS:
        for seed in range(n_seeds):
            features, fmri, runs = module.world(kind, seed)
            data = gb.MultimodalDataset.from_arrays(
                text=features, fmri=fmri, runs=runs, test_runs=[1], average=True
            )
            table, run = compare(data, seed)
            mean = table.loc["mean of regions"]
            found = {name: mean[name, "r"] for name in ("model", "network", "ridge")}
            found |= {"ratio": found["model"] / found["ridge"], "weight": mean["ridge", "weight"]}
            found["components"] = run.model.get_config()["ridge_units"]
            rows[kind, seed] = found
            print(kind, seed, {name: round(float(x), 3) for name, x in found.items()}, flush=True)
    table = pd.DataFrame(rows).T
    print(table.groupby(level=0, sort=False).agg(["mean", "std"]).round(3).to_string())


def films(folder: Path) -> Iterator[tuple[str, gb.MultimodalDataset]]:
    """The simulated film of the notebooks, and another."""
    first = simulate_dataset(folder / "first", progress=False)
    told = {"LAG_TRS": simulation.LAG_TRS - 1, "NOISE_SD": 2.2}
    with mock.patch.multiple(simulation, **told):
        second = simulate_dataset(folder / "second", n_subjects=6, random_state=7, progress=False)
    for name, path in (("simulated film", first), ("second simulated film", second)):
        yield name, gb.MultimodalDataset(path, average=True, progress=False)


def compare_films(folder: Path) -> None:
    """By planted network, with the share of silent voxels below p = .05."""
    for name, data in films(folder):
        table, run = compare(data, 0)
        print(f"\n{name}\n{table.round(3).to_string()}")
        prediction = gb.Prediction(run.model, run.data["test"])
        named = np.array([*prediction.regions.names, ""])[prediction.regions.labels]
        silent = (named != "") & ~np.isin(named, list(data.planted))
        print(f"silent voxels with p < .05: {np.mean(prediction.null()[silent] < 0.05):.3f}")


def sherlock_arrays(folder: Path) -> dict:
    """Luminance, envelope, TF-IDF of the annotations and region means of 17 people."""
    kept = np.ones(sum(RUN_TRS), bool)
    for start in (0, RUN_TRS[0]):
        kept[start : start + CARTOON] = False
    sensory = loadmat(folder / "behavior-sensory-sherlock.mat")
    sheet = folder / "Sherlock_Segments_1000_NN_2017.xlsx"
    segments = read_segments(sheet, ["Scene Details - A Level"], RUN_TRS)
    vectorizer = TfidfVectorizer(min_df=2)  # a word of one annotation says nothing of another
    embeddings = vectorizer.fit_transform([one.text for one in segments]).toarray()
    text = np.zeros((sum(RUN_TRS), embeddings.shape[1]))
    for segment, embedding in zip(segments, embeddings, strict=True):
        text[segment.start : segment.stop] = embedding
    bold = np.load(folder / "roi_means.npz")["bold"][:, :, : len(REGIONS)]
    return {
        "video": sensory["video"][kept],
        "audio": sensory["audio"][kept],
        "text": text[kept],
        "fmri": bold[:, kept].astype(np.float64),
        "runs": [n_trs - CARTOON for n_trs in RUN_TRS],
        "regions": REGIONS,
    }


def sherlock(folder: Path, context: tuple[int, int], n_seeds: int) -> None:
    """Both directions, each with its intervals, and their mean, by seed and over seeds."""
    arrays = sherlock_arrays(folder)
    found = []
    for seed in range(n_seeds):
        both = []
        for test_run in (1, 0):
            data = gb.MultimodalDataset.from_arrays(
                **arrays, test_runs=[test_run], context=context, average=True
            )
            table, run = compare(data, seed)
            print(f"\ntested on run {test_run + 1}, seed {seed}, pooled {run.model.merged.pooling}")
            print(table.round(3).to_string(), flush=True)
            both.append(table)
        found.append(mean_of_runs(*both))
    print(f"\nmean of both directions and {n_seeds} seeds")
    print((sum(found) / len(found)).round(3).to_string())
    apart = np.std([x["model - ridge"]["r"] for x in found], axis=0).round(3)
    print(f"SD of model - ridge over seeds: {apart}")


def mean_of_runs(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The mean of two tables; film is resampled in each run by itself, so errors add as squares."""
    table = (one + other) / 2
    for name in ("model", "network", "ridge", "model - ridge"):
        halves = [(x[name]["high"] - x[name]["low"]) / 2 for x in (one, other)]
        half = np.hypot(*halves) / 2
        table[name, "low"] = table[name]["r"] - half
        table[name, "high"] = table[name]["r"] + half
    return table.drop(columns=[("model - ridge", "p"), ("over subjects", "p")])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=Path)
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--sherlock", type=Path)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--context", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if given.worlds:
        worlds(given.worlds, given.kinds, given.seeds)
    if given.films:
        compare_films(given.films)
    if given.sherlock:
        sherlock(given.sherlock, tuple(given.context), given.seeds)


if __name__ == "__main__":
    main()
