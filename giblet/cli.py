"""The command line: `giblet demo`, `giblet check`, `giblet train` and `giblet reconstruct`.

Everything that computes is imported where it is called, so that `giblet --help` answers at once.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import tyro

from giblet.training.config import TrainingConfig

DEFAULTS = TrainingConfig()
Out = Annotated[Path | None, tyro.conf.arg(aliases=["--output"])]
SomeOut = Annotated[Path, tyro.conf.arg(aliases=["--output"])]


def demo(out: SomeOut = Path("giblet-demo"), random_state: int = 0) -> None:
    """Simulate a movie data set, train on it and report held-out prediction, in about a minute.

    Parameters
    ----------
    out : Path
        Folder for the data, the run, the figure and the table. Run again, it reuses what is there.
    random_state : int
        Seed of the data and of the training.
    """
    from giblet.data.simulation import simulate_dataset
    from giblet.files import check_writable, expanded

    out = expanded(out)
    check_writable(out)
    config = TrainingConfig(random_state=random_state)
    data = simulate_dataset(out / "data", random_state=random_state)
    train(data, out, config)
    _show_notebooks(data, out)


def _show_notebooks(data: Path, out: Path) -> None:
    """Print how to open the notebooks, from where the user is."""
    names = f"GIBLET_DATA={quote(str(data.resolve()))} GIBLET_RUN={quote(str(out.resolve()))}"
    notebooks = Path(__file__).parents[1] / "notebooks"
    if not notebooks.is_dir():  # installed without the repository
        print(f"in a clone of giblet, open the notebooks on this data and this run:  {names}")
        return
    jupyter = os.path.relpath(Path(sys.executable).with_name("jupyter"))
    print(
        f"open the notebooks on this data and this run:  {names} {quote(jupyter)} lab "
        f"{quote(os.path.relpath(notebooks))}/"
    )


def check(
    data: tyro.conf.Positional[Path],
    task: tuple[str, ...] | None = None,
    stimuli: Path | None = None,
    space: str | None = None,
) -> None:
    """Say in seconds what a data folder holds and what was found out about it.

    Parameters
    ----------
    data : Path
        Folder with a dataset.toml, or the derivatives of fMRIPrep, see data/README.md.
    task : tuple
        Of derivatives, the task of the film, or several in the order of the runs.
    stimuli : Path
        Of derivatives, the folder with the films, words or features.
    space : str
        Of derivatives in several spaces, the one to take.
    """
    from giblet.data.check import describe_folder
    from giblet.data.folder import DataFolder
    from giblet.files import expanded

    print(describe_folder(DataFolder.open(expanded(data), **_entries(task, stimuli, space))))


def _entries(task: tuple[str, ...] | None, stimuli: Path | None, space: str | None) -> dict:
    """Entries of dataset.toml that were given on the command line."""
    given: dict[str, Any] = {"task": task, "stimuli": stimuli, "space": space}
    return {name: value for name, value in given.items() if value is not None}


def train(
    data: Path,
    out: Out = None,
    config: Annotated[TrainingConfig, tyro.conf.arg(name="")] = DEFAULTS,
    subjects: tuple[str, ...] | None = None,
    context: tuple[int, int] | None = None,
    test_runs: tuple[int, ...] | None = None,
    width: float | None = None,
    full_size: bool = False,
    direct: bool = False,
    cache_dir: Path | None = None,
    task: tuple[str, ...] | None = None,
    stimuli: Path | None = None,
    space: str | None = None,
) -> None:
    """Train on a data folder and report held-out prediction.

    On several GPUs or machines when torchrun starts it.

    Parameters
    ----------
    data : Path
        Folder with a dataset.toml, or the derivatives of fMRIPrep, see data/README.md.
    out : Path
        Folder for the run, the figure, the table and the maps; an interrupted run goes on from it,
        and one that has ended goes on if epochs or patience are raised. By default the folder that
        GIBLET_RUN names, or one in `runs` of the data folder that is named by the settings.
    subjects : tuple
        Names of NIfTI files without their ending; by default what dataset.toml says, or all.
    context : tuple
        TRs of stimulus before and after each TR; by default what dataset.toml says, or none.
    test_runs : tuple
        Runs, counted from 0, that are held out as a whole; by default what dataset.toml says, or
        none.
    width : float
        Scales every hidden width of the full-size model; by default that of the recipe, 1/8, or 1
        with --full-size.
    full_size : bool
        Train the full-size model on full-size features instead of the small recipe.
    direct : bool
        Hold every weight of pixels and voxels instead of their coordinates in the span of the
        training data.
    cache_dir : Path
        Folder for the features; by default `cache` in the data folder.
    task, stimuli, space
        Of derivatives, as of `giblet check`.
    """
    from giblet.files import check_writable, expanded
    from giblet.recipe import FULL_SIZE
    from giblet.report import report_prediction
    from giblet.runs import load_or_train
    from giblet.training.checkpoint import find_run
    from giblet.training.device import resolve_device
    from giblet.training.distributed import process_group, rank

    settings: dict[str, Any] = {"subjects": subjects, "context": context, "test_runs": test_runs}
    settings |= {"width": width, "cache_dir": cache_dir}
    given = {name: value for name, value in settings.items() if value is not None}
    given |= _entries(task, stimuli, space)
    if out is None and "GIBLET_RUN" in os.environ:
        out = Path(os.environ["GIBLET_RUN"])
    if out is not None:
        out = expanded(out)
        check_writable(out)
    run_dir = None if out is None else find_run(out) or out / "run"
    recipe = FULL_SIZE if full_size else None
    with process_group(resolve_device(config)):
        run = load_or_train(data, config, run_dir, recipe=recipe, direct=direct, say=print, **given)
        first = rank() == 0
    if first:
        report_prediction(run, out or run.folder)


def reconstruct(
    out: SomeOut,
    checkpoint: Path | None = None,
    data: Path | None = None,
    full_size: bool = False,
    subject: str | None = None,
    cache_dir: Path | None = None,
) -> None:
    """Write what comes back of the held-out film from predicted, measured and wrong brains.

    Parameters
    ----------
    out : Path
        Folder for films, sounds, texts, figures and scores.
    checkpoint : Path
        Folder of a run, or `best.pt` or `best.safetensors` in it; by default the folder that
        GIBLET_RUN names. It knows its data, how their features were made and how they were split.
    data : Path
        The data folder of the training; needed where it is no longer where it was.
    full_size : bool
        Refuse a checkpoint that is not of the full-size recipe.
    subject : str
        One subject's measured brain instead of the mean of the group.
    cache_dir : Path
        Folder of the features, if training was given one; by default `cache` in the data folder.
    """
    from giblet.files import check_writable, expanded
    from giblet.recipe import FULL_SIZE
    from giblet.report import shown_path, write_reconstructions
    from giblet.runs import load_run

    out = expanded(out)
    check_writable(out)
    run = load_run(checkpoint, data, cache_dir=cache_dir)
    film = run.data["test"].video_processor
    if full_size and film is not None and replace(film, tr=FULL_SIZE.video.tr) != FULL_SIZE.video:
        raise ValueError(
            f"{checkpoint} was trained on pictures of {film.width} x {film.height}: leave "
            "--full-size out."
        )
    table = write_reconstructions(run.model, run.data["test"], out, subject)
    print(table.round(3).to_string())
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    print(f"\nwritten to {shown_path(out)}/: {names}")


def main() -> None:
    """Entry point of the `giblet` command."""
    commands: dict[str, Any] = {
        "demo": demo,
        "check": check,
        "train": train,
        "reconstruct": reconstruct,
    }
    try:
        os.getcwd()  # torch ends the process without a word where it is gone
    except FileNotFoundError:
        sys.exit("giblet: the current folder no longer exists: change to another one.")
    try:
        tyro.extras.subcommand_cli_from_dict(commands)
    except (ValueError, MemoryError) as error:
        sys.exit(f"giblet: {error}")
    except OSError as error:
        from giblet.files import in_words

        sys.exit(f"giblet: {in_words(error)}")
    except KeyboardInterrupt:
        sys.exit("giblet: interrupted; the same command goes on from the last checkpoint.")
    except RuntimeError as error:
        from giblet.training.checkpoint import TrainingError

        if not isinstance(error, TrainingError):
            raise
        sys.exit(f"giblet: {error}")


if __name__ == "__main__":  # `torchrun -m giblet.cli`
    main()
