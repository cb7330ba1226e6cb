"""Tables as people make them: .xlsx, .csv or .tsv -> a header and numbered rows of cells.

A cell is read as words or as a TR, or refused with its file, row and column. Missing cells are
None: empty, blank or 'n/a' (BIDS).
"""

import codecs
import csv
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import iterparse

import openpyxl
from openpyxl.utils.cell import coordinate_to_tuple, range_boundaries

WORKBOOKS = (".xlsx", ".xlsm", ".xltx", ".xltm")
DELIMITED = (".csv", ".tsv")
DELIMITERS = "\t;,"
COMPOUND_FILE = bytes.fromhex("d0cf11e0a1b11ae1")  # old .xls, and .xlsx with a password
ERRORS = {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
TOLERANCE = 1e-3  # TRs by which the rounding of seconds / TR may miss a whole number
LARGEST = 1e9
CORRECT = "correct its formula or clear the cell"
# Default_Ignorable_Code_Point of the Unicode Character Database, and the Arabic tatweel
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Unusable:
    """A cell whose value is not known, and what to do about it."""

    value: str
    remedy: str


@dataclass(frozen=True)
class Merged:
    """A cell of several rows."""

    value: object
    rows: str


@dataclass(frozen=True)
class Table:
    """Header and cells of a sheet.

    Parameters
    ----------
    header : list of str
        Names of the columns, without the spaces around them.
    rows : dict of str to list
        Cells below the header, by the number of the row in the file. A row may be shorter than the
        header: the cells that it lacks are missing.
    """

    path: Path
    header: list[str]
    rows: dict[str, list]

    @classmethod
    def of(cls, path: Path, rows: dict[str, list]) -> "Table":
        """The first row that is not blank is the header."""
        filled = {number: cells for number, cells in rows.items() if not _is_blank(cells)}
        if not filled:
            return cls(path, [], {})
        first, *others = filled
        header = ["" if _is_missing(cell) else _shown(cell) for cell in filled[first]]
        return cls(path, header, {number: filled[number] for number in others})

    def matches(self, pattern: str) -> list[int]:
        """Columns whose `plain_name` matches a regular expression."""
        return [
            index
            for index, name in enumerate(self.header)
            if re.fullmatch(pattern, plain_name(name))
        ]

    def column(self, name: str, pattern: str) -> int:
        """The column that matches a regular expression; `name` is what an error calls it.

        Raises
        ------
        ValueError
            If no column matches, or several.
        """
        found = self.matches(pattern)
        if not found:
            raise ValueError(
                f"{self.path} has no column {name!r}, its columns are {self.header}: add it, or "
                "correct text_columns."
            )
        if len(found) > 1:
            raise ValueError(
                f"{self.path} has {len(found)} columns {name!r} (columns "
                f"{', '.join(str(index + 1) for index in found)}), expected one: rename or remove "
                "the others."
            )
        return found[0]

    def text(self, number: str, column: int) -> str:
        """Words of a cell, '' where it is missing; a merged cell counts for all its rows."""
        cell = self._cell(number, column)
        if isinstance(cell, Merged):
            cell = cell.value
        return "" if _is_missing(cell) else str(cell)

    def tr(self, number: str, column: int) -> int | None:
        """The TR in a cell, None where it is missing.

        Raises
        ------
        ValueError
            If the cell holds anything but a number within .001 of a whole one.
        """
        cell = self._cell(number, column)
        if isinstance(cell, Merged):
            if _is_missing(cell.value):
                return None
            raise self.refusal(
                number,
                column,
                f"a cell merged over rows {cell.rows}",
                "one TR per row: unmerge it and fill in each row",
            )
        if _is_missing(cell):
            return None
        value = _number(cell)
        if value is None or abs(value - round(value)) > TOLERANCE:
            raise self.refusal(
                number,
                column,
                f"{_shown(cell)!r}",
                "a whole number of TRs: write it as a number, such as 14",
            )
        return round(value)

    def refusal(self, number: str, column: int, found: str, expected: str) -> ValueError:
        """The error for a cell that cannot be used; `expected` ends with what to do."""
        return ValueError(
            f"row {number} of {self.path} has {found} in column {self.header[column]!r}, expected "
            f"{expected}."
        )

    def _cell(self, number: str, column: int):
        cells = self.rows[number]
        cell = cells[column] if column < len(cells) else None
        value = cell.value if isinstance(cell, Merged) else cell
        if isinstance(value, str) and value.strip() in ERRORS:
            value = Unusable(f"the error {value.strip()}", CORRECT)
        if isinstance(value, Unusable):
            raise self.refusal(number, column, value.value, f"a value: {value.remedy}")
        return cell


def read_table(path: str | Path, patterns: list[str], say: Callable[[str], object]) -> Table:
    """Read the table in a file.

    Of a workbook it is the active worksheet, or, where that lacks a wanted column, the only one
    that has them all. Text is UTF-8, or UTF-16 with a byte order mark; the header tells the
    delimiter (comma, semicolon or tab).

    Parameters
    ----------
    patterns : list of str
        Regular expressions of the wanted columns, in `plain_name` form.
    say : callable
        Takes a sentence on a worksheet that had to be chosen.

    Raises
    ------
    ValueError
        If the file cannot be read, is empty, or has several worksheets that fit.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in DELIMITED:
        table = _read_delimited(path, patterns)
    elif ending in WORKBOOKS:
        table = _read_workbook(path, patterns, say)
    else:
        raise ValueError(
            f"{path} is no table that can be read, expected {', '.join(WORKBOOKS[:1] + DELIMITED)}:"
            " save it as one of these."
        )
    if not table.header:
        raise ValueError(f"{path} is empty, expected a header and one row or more: fill it in.")
    return table


def plain_name(name: str) -> str:
    """A column's name without what does not tell two names apart: case, spaces, composition."""
    visible = INVISIBLE.sub("", name)
    return " ".join(unicodedata.normalize("NFKC", visible).casefold().split())


def _is_missing(cell) -> bool:
    return cell is None or (isinstance(cell, str) and plain_name(cell) in ("", "n/a"))


def _is_blank(cells: list) -> bool:
    return all(_is_missing(cell) for cell in cells)


def _shown(cell) -> str:
    value = cell.value if isinstance(cell, Unusable) else cell
    return " ".join(str(value).split())


def _number(cell) -> float | None:
    """The number that a cell holds, also as text; None where it holds none that can be a TR."""
    if isinstance(cell, str) and NUMBER.fullmatch(plain_name(cell)):
        cell = float(plain_name(cell))
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    return float(cell) if abs(cell) < LARGEST else None


def _n_found(header: list[str], patterns: list[str]) -> int:
    names = [plain_name(name) for name in header]
    return sum(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns)


def _read_delimited(path: Path, patterns: list[str]) -> Table:
    content = _decoded(path)
    headers = {delimiter: _header(content, delimiter) for delimiter in DELIMITERS}
    delimiter = max(
        DELIMITERS, key=lambda one: (_n_found(headers[one], patterns), len(headers[one]))
    )
    table = Table.of(path, _records(path, content, delimiter))
    width = len(table.header)
    for number, cells in table.rows.items():
        if not _is_blank(cells[width:]):
            raise ValueError(
                f"row {number} of {path} has {len(cells)} cells, expected the {width} of the "
                f"header: put cells that hold {delimiter!r} between double quotes."
            )
    return table


def _header(content: str, delimiter: str) -> list[str]:
    records = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    try:
        return next((cells for cells in records if not _is_blank(cells)), [])
    except csv.Error:
        return []


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): correct the file.") from None
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8 text (line {line} holds the byte "
            f"0x{content[error.start]:02x}): save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path} holds a NUL byte in line {line}: save it as UTF-8 text.")
    return text


def _records(path: Path, content: str, delimiter: str) -> dict[str, list]:
    """Rows by their number, and by their line where quoted line breaks make it another."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows = {}
    line = 1
    try:
        for number, cells in enumerate(reader, start=1):
            rows[str(number) if number == line else f"{number} (line {line})"] = cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"row {len(rows) + 1} of {path}, from line {line}, has a double quote without its pair "
            f"({error}): put the cell between double quotes and write each one inside twice."
        ) from None
    return rows


def _read_workbook(path: Path, patterns: list[str], say: Callable[[str], object]) -> Table:
    tables = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the looks of a workbook, not its cells
        for title, is_active, table in _worksheets(path):
            tables[title] = table
            if is_active and _n_found(table.header, patterns) == len(patterns):
                return table
    if not tables:
        raise ValueError(f"{path} holds no worksheet, expected one: save the table as .xlsx.")
    found = {title: _n_found(table.header, patterns) for title, table in tables.items()}
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
    header = next((number for number, cells in rows.items() if not _is_blank(cells)), 0)
    for column, first, _, last in ranges:
        if first <= header or first == last or len(rows.get(first, [])) < column:
            continue
        merged = Merged(rows[first][column - 1], f"{first} to {last}")
        for number, cells in rows.items():
            if first <= number <= last:
                cells += [None] * (column - len(cells))
                cells[column - 1] = merged
