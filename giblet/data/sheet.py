"""Sheets in files: .xlsx, .csv or .tsv -> `Table`."""

import codecs
import csv
import io
from pathlib import Path

from giblet.data.movie import Say
from giblet.data.table import Table, is_blank, n_found
from giblet.data.workbook import WORKBOOKS, read_workbook

DELIMITED = (".csv", ".tsv")
DELIMITERS = "\t;,"


def read_table(path: str | Path, patterns: list[str], say: Say) -> Table:
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
        table = read_workbook(path, patterns, say)
    else:
        raise ValueError(
            f"{path} is no table that can be read, expected {', '.join(WORKBOOKS[:1] + DELIMITED)}:"
            " save it as one of these."
        )
    if not table.header:
        raise ValueError(f"{path} is empty, expected a header and one row or more: fill it in.")
    return table


def _read_delimited(path: Path, patterns: list[str]) -> Table:
    content = decoded(path)
    headers = {delimiter: _header(content, delimiter) for delimiter in DELIMITERS}
    delimiter = max(
        DELIMITERS, key=lambda one: (n_found(headers[one], patterns), len(headers[one]))
    )
    table = Table.of(path, _records(path, content, delimiter))
    width = len(table.header)
    for number, cells in table.rows.items():
        if not is_blank(cells[width:]):
            raise ValueError(
                f"row {number} of {path} has {len(cells)} cells, expected the {width} of the "
                f"header: put cells that hold {delimiter!r} between double quotes."
            )
    return table


def _header(content: str, delimiter: str) -> list[str]:
    records = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    try:
        return next((cells for cells in records if not is_blank(cells)), [])
    except csv.Error:
        return []


def decoded(path: Path) -> str:
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
