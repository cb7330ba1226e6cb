"""Workbooks (.xlsx): which worksheet, and what its cells hold."""

import re
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree.ElementTree import iterparse

import openpyxl
from openpyxl.utils.cell import coordinate_to_tuple, range_boundaries

from giblet.data.movie import Say
from giblet.data.table import CORRECT, Merged, Table, Unusable, is_blank, n_found

WORKBOOKS = (".xlsx", ".xlsm", ".xltx", ".xltm")
COMPOUND_FILE = bytes.fromhex("d0cf11e0a1b11ae1")  # old .xls, and .xlsx with a password


def read_workbook(path: Path, patterns: list[str], say: Say) -> Table:
    tables = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the looks of a workbook, not its cells
        for title, is_active, table in _worksheets(path):
            tables[title] = table
            if is_active and n_found(table.header, patterns) == len(patterns):
                return table
    if not tables:
        raise ValueError(f"{path} holds no worksheet, expected one: save the table as .xlsx.")
    found = {title: n_found(table.header, patterns) for title, table in tables.items()}
    fitting = [title for title, n_columns in found.items() if n_columns == len(patterns)]
    if len(fitting) > 1:
        raise ValueError(
            f"{path} has the columns in worksheets {fitting} and not in the active one, expected "
            "one: open the right one and save."
        )
    best = max(found, key=found.get)
    if fitting and len(tables) > 1:
        say(f"{path}: read worksheet {best!r}, the only one with the columns")
    return tables[best]


def _worksheets(path: Path) -> Iterator[tuple[str, bool, Table]]:
    """Name of each worksheet, whether it is the active one, and its cells; the active one first."""
    try:
        with path.open("rb") as opened:
            if opened.read(8) == COMPOUND_FILE:
                raise ValueError("it has a password or is an old .xls workbook")
            with closing(openpyxl.load_workbook(opened, read_only=True, data_only=True)) as book:
                active = book.active
                for sheet in sorted(book.worksheets, key=lambda sheet: sheet is not active):
                    yield sheet.title, sheet is active, Table.of(path, _worksheet_rows(sheet))
    except Exception as error:  # openpyxl lets whatever a damaged part causes pass
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{path} cannot be read as an .xlsx sheet ({reason or type(error).__name__}): save it "
            "as one, without a password."
        ) from None


def _worksheet_rows(sheet) -> dict[str, list]:
    formulas, merged = _formulas_and_merged(sheet)
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    rows = {}
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        values = [
            _value(cell, (number, column) in formulas) for column, cell in enumerate(cells, start=1)
        ]
        if any(value is not None for value in values):
            rows[number] = values
    _spread(rows, merged)
    return {str(number): cells for number, cells in rows.items()}


def _value(cell, has_formula: bool):
    """Value of a read-only cell."""
    if cell.value is None:
        # openpyxl's type of a formula whose stored result is an empty string is 'str'
        if has_formula and cell.data_type != "str":
            return Unusable(
                "a formula without a stored value",
                "open the file in a spreadsheet program and save it",
            )
        return None
    if cell.data_type == "e":
        return Unusable(f"the error {cell.value}", CORRECT)
    if isinstance(cell.value, str):  # Office Open XML writes control characters as _x000D_
        return re.sub(
            "_x00([0-9A-Fa-f]{2})_", lambda found: chr(int(found[1], base=16)), cell.value
        )
    return cell.value


def _formulas_and_merged(sheet) -> tuple[set[tuple[int, int]], list[tuple[int, int, int, int]]]:
    """Cells with a formula, by row and column, and the bounds of the merged ones.

    openpyxl's read-only worksheets show neither, and its others read charts and pictures too. Its
    worksheets skip rows that are out of order: these are refused.
    """
    formulas = set()
    merged = []
    last = 0
    with sheet._get_source() as source:
        for _, element in iterparse(source):
            tag = element.tag.rpartition("}")[2]
            if tag == "row":
                number = int(float(element.get("r", last + 1)))
                if number <= last:
                    raise ValueError(f"its row {number} comes after row {last}")
                last = number
                formulas |= {(number, column) for column in _formula_columns(element)}
                element.clear()
            elif tag == "mergeCell":
                merged.append(range_boundaries(element.get("ref")))
    return formulas, merged


def _formula_columns(row) -> list[int]:
    columns = []
    last = 0
    for cell in row:
        reference = cell.get("r")
        column = coordinate_to_tuple(reference)[1] if reference else last + 1
        if column <= last:
            raise ValueError(f"its cell {reference} is out of order")
        last = column
        if any(part.tag.endswith("}f") for part in cell):
            columns.append(column)
    return columns


def _spread(rows: dict[int, list], ranges: list[tuple[int, int, int, int]]) -> None:
    """Put the value of each merged cell in all its rows, except in the header.

    Bounds are first column, first row, last column and last row.
    """
    header = next((number for number, cells in rows.items() if not is_blank(cells)), 0)
    for column, first, _, last in ranges:
        if first <= header or first == last or len(rows.get(first, [])) < column:
            continue
        merged = Merged(rows[first][column - 1], f"{first} to {last}")
        for number, cells in rows.items():
            if first <= number <= last:
                cells += [None] * (column - len(cells))
                cells[column - 1] = merged
