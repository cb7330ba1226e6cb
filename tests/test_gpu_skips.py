"""Where there is no GPU, what needs one says so."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU: run pytest -m gpu -n 0"
)


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_tests_are_collected_and_skipped():
    printed = run("-m", "pytest", "-m", "gpu", "-n", "0", "-rs", "-q", "-p", "no:cacheprovider")
    assert "needs a GPU that torch can use" in printed
    assert " skipped" in printed.splitlines()[-1]
    assert "passed" not in printed


def test_benchmark_does_nothing():
    assert run("benchmarks/gpu.py").startswith("skipped: ")
