"""Notebooks are stored run, short and small; and strict nbval really compares their outputs."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def nbval(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--nbval", "--nbval-current-env", path]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def test_notebooks_are_there():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_run_short_and_small(path):
    assert path.stat().st_size < 2e6
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # nbval skips cells never run
    for cell in cells:
        assert len(cell.source.splitlines()) <= 10, cell.source
        assert not any(output.output_type == "error" for output in cell.outputs), cell.source
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source


def printed_numbers(notebook) -> list:
    """Outputs that nbval compares and that hold a number."""
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", [])
        for output in cell.outputs
        if output.output_type == "stream" and re.search(r"\d", output.text)
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_are_compared(path):
    assert len(printed_numbers(nbformat.read(path, as_version=4))) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_media_are_not_compared_byte_for_byte(path):
    """Encoders write other bytes on another CPU: decode films and sounds, and check that."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            for kind, content in output.get("data", {}).items():
                assert not kind.startswith(("video/", "audio/")), cell.source
                assert not re.search(r"data:[\w.+-]+/[\w.+-]+;base64,", str(content)), cell.source


def test_one_changed_number_fails(tmp_path):
    """The first notebook, one digit of one printed number changed."""
    path = NOTEBOOKS[0]
    notebook = nbformat.read(path, as_version=4)
    output = printed_numbers(notebook)[-1]
    output.text, n_changed = re.subn(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output.text, count=1)
    assert n_changed == 1
    nbformat.write(notebook, tmp_path / path.name)
    result = nbval(tmp_path / path.name)
    assert result.returncode == 1
    assert re.search(r"\b1 failed, \d+ passed", result.stdout), result.stdout[-2000:]
