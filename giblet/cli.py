"""The command line: `giblet demo`, `giblet train` and `giblet reconstruct`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from giblet.analysis.prediction import predict_fmri, voxelwise_correlation
from giblet.analysis.regions import seitzman_networks
from giblet.analysis.tables import N_PERMUTE, network_table
from giblet.data import simulate_dataset
from giblet.files import atomic_path
from giblet.plotting.media import write_reconstructions
from giblet.plotting.prediction import plot_prediction
from giblet.training import TrainingConfig, TrainingError
from giblet.training.checkpoint import best_epoch, load_model
from giblet.training.config import resolve_device
from giblet.training.distributed import process_group, rank
from giblet.training.recipe import FULL_SIZE, SMALL, Run, load_or_train, open_data

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
    print(f"open the notebooks on this data:  GIBLET_DATA={data.resolve()} {jupyter} lab notebooks/")


def train(
    data: Path,
    output: Path,
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
        Folder for the run, the figure and the table; an interrupted run goes on from it.
    full_size : bool
        Train the full-size model on full-size features instead of the small recipe.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the training data.
    """
    recipe = FULL_SIZE if full_size else SMALL
    with process_group(resolve_device(config)):
        run = load_or_train(data, config, output / "run", recipe=recipe, direct=direct)
        first = rank() == 0
    if first:
        report(run, output)


def reconstruct(data: Path, checkpoint: Path, out: Path, full_size: bool = False, subject: str | None = None) -> None:
    """Write what comes back of the held-out film from predicted, measured and wrong brains, with scores.

    Parameters
    ----------
    data : Path
        The data folder of the training.
    checkpoint : Path
        `best.pt`, or `best.safetensors`, of a run.
    out : Path
        Folder for films, sounds, texts, figures and scores.
    full_size : bool
        The checkpoint is of the full-size model.
    subject : str
        One subject's measured brain instead of the mean of the group.
    """
    splits = open_data(data, FULL_SIZE if full_size else SMALL)
    table = write_reconstructions(load_model(checkpoint), splits["all"], splits["test"], out, subject)
    print(table.round(3).to_string())
    print(f"\nwritten to {out}/: " + ", ".join(sorted(path.name for path in out.iterdir())))


def report(run: Run, output: Path) -> None:
    """Print held-out r by network beside its null, and write `prediction.csv` and `prediction.png`."""
    whole, test = run.data["all"], run.data["test"]
    fmri_pred = predict_fmri(run.model, whole)
    table = network_table(fmri_pred, whole, seitzman_networks(whole.mask_img))
    planted = whole.folder.planted
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
    print(f"\nwritten to {shown}/: prediction.png, prediction.csv, run/best.pt, run/log.jsonl")
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
