"""The command line: `giblet demo`, `giblet train` and `giblet reconstruct`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from giblet.analysis.prediction import predict_fmri, voxelwise_correlation
from giblet.analysis.regions import regions_of
from giblet.analysis.tables import N_PERMUTE, network_table
from giblet.data import simulate_dataset
from giblet.files import atomic_path
from giblet.plotting.media import write_reconstructions
from giblet.plotting.prediction import plot_prediction
from giblet.training import TrainingConfig, TrainingError
from giblet.training.checkpoint import best_epoch
from giblet.training.config import resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.recipe import FULL_SIZE, Run, load_or_train, load_run

DEFAULTS = TrainingConfig()


def demo(output: Path = Path("giblet-demo"), random_state: int = 0) -> None:
    """Simulate a movie data set, train on it and report held-out prediction, in about a minute.

    Parameters
    ----------
    output : Path
        Folder for the data, and in it the run with the figure and the table. Run again, it reuses what is there.
    random_state : int
        Seed of the data and of the training.
    """
    data = simulate_dataset(output / "data", random_state=random_state)
    run_dir = output / "run"
    train(data, run_dir, TrainingConfig(random_state=random_state))
    jupyter = os.path.relpath(Path(sys.executable).with_name("jupyter"))
    names = f"GIBLET_DATA={data.resolve()} GIBLET_RUN={run_dir.resolve()}"
    print(f"open the notebooks on this data and this run:  {names} {jupyter} lab notebooks/")


def train(
    data: Path,
    run_dir: Path | None = None,
    config: Annotated[TrainingConfig, tyro.conf.arg(name="")] = DEFAULTS,
    full_size: bool = False,
    direct: bool = False,
) -> None:
    """Train on a data folder and report held-out prediction; on several GPUs or machines when torchrun starts it.

    Parameters
    ----------
    data : Path
        Folder with a dataset.toml, see data/README.md.
    run_dir : Path
        Folder of the run, its figure and its table; an interrupted run goes on from it, and one that has ended goes
        on if epochs or patience are raised. By default the folder that GIBLET_RUN names, or one in `runs` of the data
        folder that is named by the settings.
    full_size : bool
        Train the full-size model on full-size features instead of the small recipe.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the training data.
    """
    recipe = FULL_SIZE if full_size else None
    run_dir = run_dir or os.environ.get("GIBLET_RUN")
    with process_group(resolve_device(config)):
        run = load_or_train(data, config, run_dir, recipe=recipe, direct=direct)
        first = rank() == 0
    if first:
        report(run)


def reconstruct(
    output: Path, run_dir: Path | None = None, data: Path | None = None, subject: str | None = None
) -> None:
    """Write what comes back of the held-out film from predicted, measured and wrong brains, with scores.

    Parameters
    ----------
    output : Path
        Folder for films, sounds, texts, figures and scores.
    run_dir : Path
        Folder of the run, or a checkpoint in it; by default the folder that GIBLET_RUN names. It knows its data, how
        their features were made and how they were split.
    data : Path
        The data folder, where it is no longer where it was in training.
    subject : str
        One subject's measured brain instead of the mean of the group.
    """
    run = load_run(run_dir, data)
    table = write_reconstructions(run.model, run.data["all"], run.data["test"], output, subject)
    print(table.round(3).to_string())
    print(f"\nwritten to {output}/: " + ", ".join(sorted(path.name for path in output.iterdir())))


def report(run: Run) -> None:
    """Print held-out r by region beside its null, and write `prediction.csv` and `prediction.png` into the run."""
    whole, test = run.data["all"], run.data["test"]
    fmri_pred = predict_fmri(run.model, whole)
    table = network_table(fmri_pred, whole, regions_of(whole))
    planted = whole.planted
    if planted:
        table.insert(0, "simulated from", [" + ".join(planted.get(name, ["nothing"])) for name in table.index])
    kept = best_epoch(run.history) + 1
    print(f"\n{len(run.history)} epochs trained; number {kept} had the highest validation r and is kept")
    print(
        f"{'SIMULATED data: h' if planted else 'H'}eld-out r over {test.n_trs} test TRs, mean response of the subjects"
    )
    print(table.round({"r": 3, "null_mean": 3, "null_sd": 3, "z": 1, "p": 4}).to_string())
    print(f"z = (r - null_mean) / null_sd; the smallest p that {N_PERMUTE} draws can give is {1 / (N_PERMUTE + 1):.4f}")
    if planted:
        driven = table.index.isin(list(planted))
        print(f"planted networks: smallest z {table['z'][driven].min():.1f}, expected above 3")
        print(f"silent networks: largest |z| {table['z'][~driven].abs().max():.1f}, expected below 3")
    r = voxelwise_correlation(fmri_pred[np.isin(whole.tr_index, test.tr_index)], test.fmri(), test.run)
    with atomic_path(run.folder / "prediction.csv") as temporary:
        table.to_csv(temporary)
    with atomic_path(run.folder / "prediction.png") as temporary:
        plot_prediction(r, table, test, planted).savefig(temporary, dpi=110)
    shown = str(run.folder).replace(str(Path.home()), "~", 1)
    print(f"\nwritten to {shown}/: prediction.png, prediction.csv, best.pt, log.jsonl")
    print(run.verdict)


def main() -> None:
    """Entry point of the `giblet` command."""
    try:
        tyro.extras.subcommand_cli_from_dict({"demo": demo, "train": train, "reconstruct": reconstruct})
    except (ValueError, FileNotFoundError, MemoryError, TrainingError) as error:
        sys.exit(f"giblet: {error}")
    except KeyboardInterrupt:
        sys.exit("giblet: interrupted; the same command goes on from the last checkpoint.")


if __name__ == "__main__":  # `torchrun -m giblet.cli`
    main()
