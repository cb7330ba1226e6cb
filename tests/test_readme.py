"""The newcomer's path in README.md: a map, a reconstruction and a lesion in a dozen lines."""

import re
from pathlib import Path

import pytest

from giblet.data import simulate_dataset

README = (Path(__file__).parents[1] / "README.md").read_text()
CELLS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PATH = next(cell for cell in CELLS if "gb.Lesion(" in cell)


def test_path_is_short_and_imports_giblet_alone():
    lines = [line for line in PATH.splitlines() if line]
    assert len(lines) <= 12
    assert re.findall(r"^(?:import|from) .*$", PATH, re.MULTILINE) == ["import giblet as gb"]


@pytest.mark.parametrize("cell", CELLS)
def test_no_example_goes_deeper_than_the_face(cell):
    assert "from giblet" not in cell
    assert not re.search(r"\bgb\.[a-z]+\.", cell)


def test_path_leads_to_a_map_a_reconstruction_and_a_lesion(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "FOLDER"
    simulate_dataset(folder, n_subjects=3, run_trs=(160, 160), resolution_mm=12, progress=False)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(PATH, names)
    for figure in ("prediction.png", "reconstruction.png", "lesion.png"):
        assert (tmp_path / figure).stat().st_size > 20_000
    told = capsys.readouterr().out
    assert re.search(r"\d+ of 15 epochs \(.*\); epoch \d+ is kept", told)
    assert "SIMULATED data" in told
    table = names["lesion"].table()
    assert list(table.columns) == ["intact", "lesioned", "lost", "z", "p"]
    assert table["lost"]["video"] > table["lost"]["audio"]
    assert table["p"]["video"] < 0.05
