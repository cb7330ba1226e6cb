"""Tables as people make them: a header and numbered rows of cells.

A cell is read as words, a TR or a time, or refused with its file, row and column. Missing cells are
None: empty, blank or 'n/a' (BIDS).
"""

import datetime
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ERRORS = {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
CLOCK = re.compile(r"((?P<hours>\d{1,3}):)?(?P<minutes>\d{1,3}):(?P<seconds>[0-5]?\d([.,]\d+)?)")
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
        header: the cells that it lacks are missing. Rows that are blank are not among them.
    first_row : int
        Number of the first row below the header.
    """

    path: Path
    header: list[str]
    rows: dict[str, list]
    first_row: int

    @classmethod
    def of(cls, path: Path, rows: dict[str, list]) -> "Table":
        """The first row that is not blank is the header."""
        filled = {number: cells for number, cells in rows.items() if not is_blank(cells)}
        if not filled:
            return cls(path, [], {}, 1)
        first, *others = filled
        header = ["" if _is_missing(cell) else _shown(cell) for cell in filled[first]]
        return cls(path, header, {number: filled[number] for number in others}, row_of(first) + 1)

    def matches(self, pattern: str) -> list[int]:
        """Columns whose `plain_name` matches a regular expression."""
        return [
            index
            for index, name in enumerate(self.header)
            if re.fullmatch(pattern, plain_name(name))
        ]

    def words(self) -> list[int]:
        """Columns most of whose cells hold letters."""
        cells = {
            column: [str(row[column]) for row in self.rows.values() if column < len(row)]
            for column in range(len(self.header))
        }
        return [
            column
            for column, texts in cells.items()
            if 2 * sum(any(map(str.isalpha, text)) for text in texts) > len(texts)
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
        cell = self._one_row(number, column, "one TR per row: unmerge it and fill in each row")
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

    def seconds(self, number: str, column: int) -> float | None:
        """The time in a cell, in seconds, None where it is missing.

        It is a number, a time of day as spreadsheets keep it, or text such as 1:02:03.5 or 02:03.5.

        Raises
        ------
        ValueError
            If the cell holds anything else.
        """
        cell = self._one_row(number, column, "one time per row: unmerge it and fill in each row")
        if _is_missing(cell):
            return None
        value = _clock(cell)
        if value is None:
            raise self.refusal(
                number,
                column,
                f"{_shown(cell)!r}",
                "seconds: write them as a number, such as 62.5, or as 1:02.5",
            )
        return value

    def _one_row(self, number: str, column: int, expected: str):
        """A cell that is not merged with that of another row, where it holds anything."""
        cell = self._cell(number, column)
        if not isinstance(cell, Merged):
            return cell
        if _is_missing(cell.value):
            return None
        raise self.refusal(number, column, f"a cell merged over rows {cell.rows}", expected)

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


def row_of(number: str) -> int:
    """The row that a name such as '7' or '7 (line 9)' means."""
    return int(number.split()[0])


def plain_name(name: str) -> str:
    """A column's name without what does not tell two names apart: case, spaces, composition."""
    visible = INVISIBLE.sub("", name)
    return " ".join(unicodedata.normalize("NFKC", visible).casefold().split())


def _is_missing(cell) -> bool:
    return cell is None or (isinstance(cell, str) and plain_name(cell) in ("", "n/a"))


def is_blank(cells: list) -> bool:
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


def n_found(header: list[str], patterns: list[str]) -> int:
    names = [plain_name(name) for name in header]
    return sum(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns)


def _clock(cell) -> float | None:
    """The seconds that a cell holds; None where it holds none."""
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, datetime.time):
        since = datetime.datetime.combine(datetime.date.min, cell) - datetime.datetime.min
        return since.total_seconds()
    if isinstance(cell, str) and (parts := CLOCK.fullmatch(plain_name(cell))):
        hours, minutes, seconds = parts["hours"] or 0, parts["minutes"], parts["seconds"]
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))
    return _number(cell)
