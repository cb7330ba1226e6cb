"""Training on several GPUs or processes from a notebook cell."""

import codecs
import contextlib
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from giblet.training.checkpoint import TrainingError, checkpoint_file
from giblet.training.config import TrainingConfig
from giblet.training.signals import LAUNCHER

# torchrun passes these on to the ranks; of a signal that it does not handle it dies and leaves them
# behind
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
GRACE = 60  # seconds to save in


def launch(
    data: str | Path,
    out: str | Path,
    config: TrainingConfig | None = None,
    n_ranks: int | None = None,
    full_size: bool = False,
    direct: bool = False,
    cache_dir: str | Path | None = None,
) -> Path:
    """Run `giblet train` on all GPUs, or on several processes of the CPU, and wait for it.

    What it prints appears as it comes. Interrupted, it asks the ranks to save, and returns when all
    have ended; the same call goes on from there.

    Parameters
    ----------
    data, out, config, full_size, direct, cache_dir
        As of `giblet train`; the run is `out/run`.
    n_ranks : int, optional
        Processes to start: by default one a GPU, or 2 without a GPU.

    Returns
    -------
    Path
        The checkpoint of the epoch with the highest validation r; `load_run(out)` opens it
        with its data.

    Raises
    ------
    TrainingError
        If a rank failed; what it said is in the output.
    """
    n_ranks = n_ranks or torch.cuda.device_count() or 2
    command = _command(data, out, config or TrainingConfig(), n_ranks, full_size, direct)
    command += [] if cache_dir is None else ["--cache-dir", str(Path(cache_dir))]
    threads = max(1, torch.get_num_threads() // n_ranks)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TQDM_MININTERVAL": "1",
        "PYTHONUNBUFFERED": "1",
    } | os.environ
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment |= {LAUNCHER: str(os.getpid())}
    # in a session of its own: interrupts reach the ranks through us alone
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipe) as ranks:
        try:
            _show(ranks)
        finally:
            _end(ranks)
    if ranks.returncode != 0:
        raise TrainingError(
            f"training on {n_ranks} ranks ended with exit code {ranks.returncode}, see "
            "above: start it again, and it goes on from the last checkpoint."
        )
    return checkpoint_file(out)


def _command(
    data: str | Path,
    out: str | Path,
    config: TrainingConfig,
    n_ranks: int,
    full_size: bool,
    direct: bool,
) -> list[str]:
    """The command line that a shell would take."""
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={n_ranks}",
    ]
    options = asdict(config) | {"data": Path(data), "out": Path(out)}
    options |= {"full_size": full_size, "direct": direct}
    given = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        given += ([f"--{flag}"] * value) if isinstance(value, bool) else [f"--{flag}", str(value)]
    return [*start, f"--signals-to-handle={SIGNALS}", "-m", "giblet.cli", "train", *given]


def _show(process: subprocess.Popen) -> None:
    """Print what it says as it comes, until it has ended."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := process.stdout.read1():
        print(decoder.decode(chunk), end="", flush=True)
    process.wait()


def _end(torchrun: subprocess.Popen) -> None:
    """Ask torchrun and the ranks to end, and see that they do."""
    if torchrun.poll() is not None:
        return
    started = [psutil.Process(torchrun.pid), *psutil.Process(torchrun.pid).children(recursive=True)]
    alive = started
    try:
        torchrun.terminate()
        alive = psutil.wait_procs(started, timeout=GRACE)[1]
    finally:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        torchrun.wait()
