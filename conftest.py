import os
import tempfile

if n_workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores out
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(n_workers)))

import nbval.plugin
from nbval.kernel import RunningKernel

import giblet  # noqa: F401  (before torch: its threads then sleep while they wait)


def start_kernel(*args, **kwargs):
    """The kernel of a notebook, started once more where the first never answers."""
    try:
        return RunningKernel(*args, **kwargs)
    except RuntimeError as error:
        print(f"{error}: the kernel is started once more")
        return RunningKernel(*args, **kwargs)


nbval.plugin.RunningKernel = start_kernel


def pytest_configure(config):
    """Tests and notebooks simulate and train anew, whatever the user's cache holds.

    Workers share what one of them has made.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    os.environ.pop("GIBLET_DATA", None)
    cache = tempfile.TemporaryDirectory(prefix="giblet-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name
