"""Threads that wait for work sleep and leave their cores to others, unless the user says otherwise.

libgomp calls its policy PASSIVE even where none is set; what tells is for how many turns a thread
spins.
"""

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's OpenMP")
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def turns(*arguments: str, status: int = 0, **settings: str) -> list[int]:
    """How long each OpenMP that a Python and its children load lets a thread spin."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | settings
    command = [sys.executable, *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == status, run.stderr
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr + run.stdout)
    if not found:
        pytest.skip("this torch does not use libgomp")
    return list(map(int, found))


def test_waiting_threads_sleep():
    assert set(turns("-c", "import giblet, torch")) == {0}


def test_torch_imported_first_keeps_its_default():
    assert min(turns("-c", "import torch, giblet")) > 0


def test_the_users_own_policy_is_kept():
    active = turns("-c", "import giblet, torch", OMP_WAIT_POLICY="ACTIVE")
    default = turns("-c", "import torch")
    assert min(active) > max(default)
    assert set(turns("-c", "import giblet, torch", GOMP_SPINCOUNT="77")) == {77}


def test_threads_of_ranks_sleep(tmp_path):
    """Only torchrun itself, which never imports giblet and computes nothing, has the default.

    The rank ends where it would begin to train: its folder holds no data.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1")
    train = ("-m", "giblet.cli", "train", "--data", str(tmp_path))
    found = turns(*torchrun, *train, status=1)
    assert len(found) > 1
    assert sum(count > 0 for count in found) == 1
