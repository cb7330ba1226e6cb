"""The command line: `giblet demo`, `giblet train` and `giblet reconstruct`."""

import os
import sys
from dataclasses import replace
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
from giblet.training.checkpoint import best_epoch, find_run
from giblet.training.config import resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.recipe import FULL_SIZE, Run, load_or_train, load_run

DEFAULTS = TrainingConfig()


def demo(output: Path = Path("giblet-demo"), random_state: int = 0) -> None:
    """Simulate a movie data set, train on it and report held-out prediction, in about a minute.

    Parameters
    ----------
    output : Path
        Folder for the data, the run, the figure and the table. Run again, it reuses what is there.
    random_state : int
        Seed of the data and of the training.
    """
    data = simulate_dataset(output / "data", random_state=random_state)
    train(data, output, TrainingConfig(random_state=random_state))
    jupyter = os.path.relpath(Path(sys.executable).with_name("jupyter"))
    names = f"GIBLET_DATA={data.resolve()} GIBLET_RUN={output.resolve()}"
    print(f"open the notebooks on this data and this run:  {names} {jupyter} lab notebooks/")


def train(
    data: Path,
    output: Path | None = None,
    config: Annotated[TrainingConfig, tyro.conf.arg(name="")] = DEFAULTS,
    full_size: bool = False,
    direct: bool = False,
) -> None:
    """Train on a data folder and report held-out prediction; on several GPUs or machines when torchrun starts it.

    Parameters
    ----------
    data : Path
        Folder with a dataset.toml, see data/README.md.
    output : Path
        Folder for the run, the figure and the table; an interrupted run goes on from it, and one that has ended goes
        on if epochs or patience are raised. By default the folder that GIBLET_RUN names, or one in `runs` of the data
        folder that is named by the settings.
    full_size : bool
        Train the full-size model on full-size features instead of the small recipe.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the training data.
    """
    recipe = FULL_SIZE if full_size else None
    output = output or (Path(os.environ["GIBLET_RUN"]) if "GIBLET_RUN" in os.environ else None)
    run_dir = None if output is None else find_run(output) or output / "run"
    with process_group(resolve_device(config)):
        run = load_or_train(data, config, run_dir, recipe=recipe, direct=direct)
        first = rank() == 0
    if first:
        report(run, output or run.folder)


def reconstruct(
    out: Path,
    checkpoint: Path | None = None,
    data: Path | None = None,
    full_size: bool = False,
    subject: str | None = None,
) -> None:
    """Write what comes back of the held-out film from predicted, measured and wrong brains, with scores.

    Parameters
    ----------
    out : Path
        Folder for films, sounds, texts, figures and scores.
    checkpoint : Path
        Folder of a run, or `best.pt` or `best.safetensors` in it; by default the folder that GIBLET_RUN names. It knows
        its data, how their features were made and how they were split.
    data : Path
        The data folder of the training; needed where it is no longer where it was.
    full_size : bool
        Refuse a checkpoint that is not of the full-size recipe.
    subject : str
        One subject's measured brain instead of the mean of the group.
    """
    run = load_run(checkpoint, data)
    film = run.data["test"].video_processor
    if full_size and replace(film, tr=FULL_SIZE.video.tr) != FULL_SIZE.video:
        raise ValueError(
            f"{checkpoint} was trained on pictures of {film.width} x {film.height}: leave --full-size out."
        )
    table = write_reconstructions(run.model, run.data["all"], run.data["test"], out, subject)
    print(table.round(3).to_string())
    print(f"\nwritten to {out}/: " + ", ".join(sorted(path.name for path in out.iterdir())))


def report(run: Run, output: Path) -> None:
    """Print held-out r by region beside its null, and write `prediction.csv` and `prediction.png`."""
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
    with atomic_path(output / "prediction.csv") as temporary:
        table.to_csv(temporary)
    with atomic_path(output / "prediction.png") as temporary:
        plot_prediction(r, table, test, planted).savefig(temporary, dpi=110)
    shown = str(output).replace(str(Path.home()), "~", 1)
    checkpoints = [os.path.relpath(run.folder / name, output) for name in ("best.pt", "log.jsonl")]
    print(f"\nwritten to {shown}/: prediction.png, prediction.csv, {', '.join(checkpoints)}")
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
