"""The summaries of `benchmarks/spread.py`, on numbers made up."""

import importlib.util
import math
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from giblet import checks

PATH = Path(__file__).parents[1] / "benchmarks" / "spread.py"


@pytest.fixture(scope="module")
def spread():
    description = importlib.util.spec_from_file_location("spread", PATH)
    module = importlib.util.module_from_spec(description)
    sys.modules["spread"] = module
    description.loader.exec_module(module)
    yield module
    del sys.modules["spread"]


def made_up(spread, kind: str, numbers, **limits) -> list:
    """A number in as many environments as there are values."""
    record = {"kind": kind, "name": "r"} | limits
    runs = []
    for index, got in enumerate(numbers):
        runs.append(spread.Run("04", f"environment {index}", [record | {"got": got}]))
    return runs


def test_environments_change_arithmetic_and_threads(spread):
    every = spread.environments()
    quick = spread.environments(quick=True)
    assert len(every) == 8
    assert every["native x1"] == {"OMP_NUM_THREADS": "1"}
    assert len(quick) == len(spread.ARITHMETIC)
    assert quick.items() <= every.items()
    assert {variables["OMP_NUM_THREADS"] for variables in quick.values()} == {"1", "2"}


def test_numbers_are_recorded_and_nothing_is_raised(spread, tmp_path, monkeypatch, capsys):
    for name in spread.KINDS:
        monkeypatch.setattr(
            checks.Checks, name, getattr(checks.Checks, name)
        )  # restored afterwards
    file = tmp_path / "records.jsonl"
    spread.record_checks(file)
    simulated = checks.Checks()
    simulated.number("r", got=torch.tensor(9.0), want=0.5, atol=0.1)
    simulated.number(" r", math.nan, 0.5, 0.1, null=-math.inf)
    simulated.bounds("z", 2, above=3)
    checks.Checks(simulated=False).bounds("real data", 2, above=3)
    first, second, bounds = spread.read_records(file)
    numbers = {"got": 9.0, "want": 0.5, "atol": 0.1, "null": 0.0}
    assert first == {"kind": "number", "name": "r"} | numbers
    assert (second["name"], second["null"]) == ("r (2)", -math.inf)
    assert math.isnan(second["got"])
    limits = {"got": 2.0, "above": 3.0, "below": math.inf}
    assert bounds == {"kind": "bounds", "name": "z"} | limits
    assert capsys.readouterr().out == "real data: 2\n"


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ([0.50, 0.52], 0.08),  # four times the range
        ([0.56, 0.56], 0.12),  # twice the distance
        ([0.501, 0.50201], 0.0041),  # rounded up
        ([0.40, 0.60], 0.25),  # half of what would exclude nothing
        ([0.50, 0.50], 0.0),
        ([0.50, math.nan], math.nan),
    ],
)
def test_suggested_tolerance(spread, got, expected):
    suggested = spread.suggest_tolerance(pd.Series(got), want=0.5, null=0.0)
    assert suggested == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("got", "deviation", "mark"),
    [
        ([0.48, 0.54], 0.4, ""),
        ([0.50, 0.56], 0.6, "tight"),
        ([0.50, 0.39], 1.1, "FAILS"),
        ([0.50, math.nan], math.inf, "FAILS"),
        ([0.50, -math.inf], math.inf, "FAILS"),
    ],
)
def test_tolerances_too_tight_are_marked(spread, got, deviation, mark):
    runs = made_up(spread, "number", got, want=0.5, atol=0.1, null=0.0)
    (row,) = spread.summarise_tolerances(runs).to_dict("records")
    assert row["deviation"] == pytest.approx(deviation)
    assert (row["mark"], row["n"]) == (mark, 2)


@pytest.mark.parametrize(
    ("got", "margin", "mark"),
    [
        ([3.9, 4.1], 0.9, ""),
        ([3.3, 4.3], 0.3, "near"),
        ([3.0, 4.0], 0.0, "FAILS"),
        ([3.5, 3.5], 0.5, ""),
        ([3.5, 6.5], -0.5, "FAILS"),
        ([3.5, math.nan], -math.inf, "FAILS"),
    ],
)
def test_bounds_too_near_are_marked(spread, got, margin, mark):
    runs = made_up(spread, "bounds", got, above=3.0, below=6.0)
    (row,) = spread.summarise_bounds(runs).to_dict("records")
    assert row["margin"] == pytest.approx(margin)
    assert row["mark"] == mark


def notebook_of(*outputs, tags=()) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(outputs=list(outputs), metadata={"tags": list(tags)})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words"), cell])


def test_what_strict_nbval_compares(spread):
    printed = [nbformat.v4.new_output("stream", text=text) for text in ("r: ", "0.5\n")]
    data = {"image/png": "AAAA", "text/plain": "<Figure>"}
    shown = nbformat.v4.new_output("execute_result", data=data)
    compared = {"[1] stdout": "r: 0.5\n", "[1] text/plain": "<Figure>"}
    assert spread.compared_texts(notebook_of(*printed, shown)) == compared
    assert not spread.compared_texts(notebook_of(*printed, tags=["nbval-ignore-output"]))


def test_texts_that_differ_are_listed(spread):
    runs = [
        spread.Run("05", "a", [], {"[1] stdout": "same", "[2] text/html": "cosine 0.88"}),
        spread.Run("05", "b", [], {"[1] stdout": "same", "[2] text/html": "cosine 0.89"}),
        spread.Run("05", "c", [], {"[1] stdout": "same"}, failure="ValueError: broken off"),
        spread.Run("06", "a", [], {"[1] stdout": "another notebook"}),
    ]
    title, first, second = spread.differing_texts(runs, around=4)
    assert title == "05 [2] text/html: 2 versions"
    assert (first.strip(), second.strip()) == ("a: ' 0.88'", "b: ' 0.89'")


def test_report_and_file(spread, tmp_path, capsys):
    runs = made_up(spread, "number", [0.5, 0.56], want=0.5, atol=0.1, null=0.0)
    runs += made_up(spread, "bounds", [4.0, 4.1], above=3.0, below=math.inf)
    spread.print_report(runs)
    printed = capsys.readouterr().out
    assert "Numbers with a tolerance: 1, 1 of them marked" in printed
    assert "Numbers with bounds: 1, 0 of them marked" in printed
    spread.write_table(runs, tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table[["environment 0", "environment 1"]].to_numpy().tolist() == [[0.5, 0.56], [4, 4.1]]
