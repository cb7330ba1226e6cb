"""Notebooks are stored run, short and small; and strict nbval really compares their outputs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import giblet
from giblet.data import simulate_dataset
from giblet.data.simulation.dataset import VERSION

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def nbval(path: Path) -> subprocess.CompletedProcess:
    sanitize = f"--nbval-sanitize-with={NOTEBOOKS[0].parent / 'sanitize.cfg'}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--nbval",
        "--nbval-current-env",
    ]
    command += [sanitize, path]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)


def test_notebooks_are_there():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_run_short_and_small(path):
    assert path.stat().st_size < 2e6
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(
        range(1, len(cells) + 1)
    )  # nbval skips cells never run
    for cell in cells:
        assert len(cell.source.splitlines()) <= 10, cell.source
        assert not any(output.output_type == "error" for output in cell.outputs), cell.source
        assert not any(output.get("name") == "stderr" for output in cell.outputs), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_uses_the_face_alone(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    source = "\n".join(cell.source for cell in cells)
    imported = re.findall(r"^(?:from|import) giblet.*$", source, re.MULTILINE)
    assert imported == ["import giblet as gb"]
    used = set(re.findall(r"\bgb\.(\w+)", source))
    assert used <= set(giblet.__all__) - {"data", "models", "training", "analysis", "plotting"}


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


def test_changed_output_and_wrong_result_fail(tmp_path):
    """The first notebook, with one printed digit and one expected result changed."""
    path = NOTEBOOKS[0]
    notebook = nbformat.read(path, as_version=4)
    output = next(
        output for output in printed_numbers(notebook) if output.text.startswith("video ")
    )
    output.text, n_changed = re.subn(
        r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output.text, count=1
    )
    cell = next(cell for cell in notebook.cells if "R2 at the lag" in cell.source)
    cell.source, n_wrong = re.subn(r"curve\.max\(\), 0\.6", "curve.max(), 0.9", cell.source)
    assert (n_changed, n_wrong) == (1, 1)
    nbformat.write(notebook, tmp_path / path.name)
    result = nbval(tmp_path / path.name)
    assert result.returncode == 1
    assert re.search(r"\b2 failed, \d+ passed", result.stdout), result.stdout[-2000:]
    assert re.search(
        r"AssertionError.*R2 at the lag: got 0\.\d+, want 0\.9 \+/- 0\.15", result.stdout
    )


def settings_of(path: Path) -> dict[str, str]:
    """Names and values, as they are written, of the cell of settings."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = {}
    for line in ast.parse(cells[0].source).body:
        if isinstance(line, ast.Assign):
            names = ast.unparse(line.targets[0]).strip("()")
            values = ast.unparse(line.value)
            found |= dict.fromkeys(names.split(", "), values)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_setting_decides_whether_results_are_enforced(path):
    """A setting that is forgotten there would raise when a reader edits it."""
    sources = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if "edited" in cell.source
    )
    names = [
        name
        for name in settings_of(path)
        if not re.search(rf"(\w+ = |edited=|\()[^\n]*\b{name}\b", sources)
    ]
    assert settings_of(path)
    assert names == []


EDITS = {
    "01": ("LAGS = range(-1, 9)", "LAGS = range(0, 6)"),
    "02": ("EPOCHS = 15", "EPOCHS = 2"),
    "03": ("EPOCHS = 10", "EPOCHS = 1"),
    "04": ("N_PERMUTE = 2000", "N_PERMUTE = 100"),
    "05": ("N_STILLS = 5", "N_STILLS = 4"),
    "06": ("UNITS = (0, 16)", "UNITS = (0, 3)"),
    "07": ("SHOWN = None", 'SHOWN = ["Auditory"]'),
}


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory) -> Path:
    """A user's cache in which the kit's own data set is small, and described as the usual one."""
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "giblet" / f"simulated-v{VERSION}"
    simulate_dataset(folder, n_subjects=2, run_trs=(124, 120), resolution_mm=12, progress=False)
    usual = {"n_subjects": 8, "run_trs": [420, 420], "resolution_mm": 8}
    text, simulation = (folder / "dataset.toml").read_text().split("[simulation]")
    for name, value in usual.items():
        simulation = re.sub(rf"^{name} = .*$", f"{name} = {value}", simulation, flags=re.MULTILINE)
    (folder / "dataset.toml").write_text(f"{text}[simulation]{simulation}")
    return cache


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_edited_setting_runs_to_the_end(path, small_cache, monkeypatch, tmp_path):
    """Hardly a result is as expected on the small data set; what is expected is printed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_cache))
    notebook, (before, after) = nbformat.read(path, as_version=4), EDITS[path.stem[:2]]
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert before in settings.source
    settings.source = settings.source.replace(before, after)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert len(re.findall(r": \S+ \(unedited notebook: ", printed)) >= 3
    assert path.stem.startswith("03") or " (expected " not in printed
