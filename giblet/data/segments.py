"""Words and their times, however a lab keeps them -> segments on the TRs of the runs.

Sheets (.xlsx, .csv, .tsv) in TRs or in seconds, BIDS events, subtitles (.srt, .vtt), transcripts
with a time a word (.json) and tables with a row a TR: one reader, and one kind of segment. Which
clock was read is said.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from giblet.data.movie import Say
from giblet.data.sheet import read_table
from giblet.data.table import Table, plain_name
from giblet.data.transcripts import (
    SUBTITLES,
    TEXT_PER_TR,
    Cue,
    subtitle_cues,
    text_per_tr,
    transcript_cues,
)

# What a header says of the length of its TRs: '1.5s', '1500 ms', 'TR = 1.5', or a bare '1.5'
NUMBER = r"(?:\d+(?:[.,]\d+)?|\.\d+)"
STATED_TR = re.compile(
    rf"(?P<number>{NUMBER})[ -]?(?P<unit>ms|msec|milliseconds?|s|sec|secs|seconds?)\b"
    rf"|\btrs?[ ,:;=@]*(?:of |tr[ =:]*)?(?P<bare>{NUMBER})(?= ?(?:\)|s|hz|[:\"″]))"
)
# Columns of times, as `plain_name` has them
IN_TRS = {
    "Start Time (TRs, ...)": r"start time ?\(trs.*\)",
    "End Time (TRs, ...)": r"end time ?\(trs.*\)",
}
UNIT = r"([ _]?[\(\[]?(s|sec|secs|seconds?)[\)\]]?)?"
START = rf"(onset|start|begin)s?([ _]?times?)?{UNIT}"
STOP = rf"(offset|end|stop|finish)s?([ _]?times?)?{UNIT}"
DURATION = rf"durations?{UNIT}"
RUN = r"runs?([ _]?(number|index|id))?"


@dataclass(frozen=True)
class Segment:
    """Words of TRs `start` to `stop` (0-based, stop excluded)."""

    start: int
    stop: int
    text: str


def read_segments(
    files: str | Path | Sequence[str | Path],
    text_columns: Sequence[str],
    run_trs: Sequence[int],
    tr: float | None = None,
    say: Say = print,
) -> list[Segment]:
    """Read annotations, subtitles or a transcript.

    Of a sheet the columns `Start Time (TRs, ...)` and `End Time (TRs, ...)` are read where it has
    them: 1-based and inclusive, counted through all runs. Else a start and an end, or `onset` and
    `duration` as BIDS events have them, in seconds. Case and spaces in column names do not matter.
    Rows without times are left out. A merged cell of words counts for all its rows.

    Seconds begin with the movie of a run, in a file of each run, and in one file with a column
    `run` (counted from 1) or with times that go back once at the start of each further run. In
    another file they count through all runs, as one movie of all of them does. A TR has the words
    that are heard in its middle, and short ones that are heard within it. Words before or after the
    runs are left out, and counted.

    Parameters
    ----------
    files : path or sequence of paths
        One that holds all runs, or one a run: .xlsx, .csv, .tsv, .srt, .vtt or .json.
    text_columns : sequence of str
        Columns of a sheet whose words are taken; () for files that have none.
    tr : float, optional
        Repetition time in seconds, which the names of TR columns must not contradict. Files in
        seconds need it.
    say : callable
        Takes a sentence each on the clock, on what is left out, and on a worksheet that was chosen.

    Raises
    ------
    ValueError
        If a file cannot be read, lacks a column or has it twice, counts TRs of another length, has
        no row with times in the runs, or holds cells that are no times, or times that are reversed
        or, in TRs, overlap by more than one, lie beyond the last or cross from run to run.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if len(paths) == 1:
        return _read(paths[0], text_columns, run_trs, tr, say)
    if len(paths) != len(run_trs):
        raise ValueError(
            f"annotations are {len(paths)} files for {len(run_trs)} runs, expected one a run or "
            "one for all: name as many."
        )
    segments = []
    starts = np.cumsum([0, *run_trs])[:-1].tolist()
    for path, start, n_trs in zip(paths, starts, run_trs, strict=True):
        own = _read(path, text_columns, [n_trs], tr, say)
        segments += [replace(one, start=one.start + start, stop=one.stop + start) for one in own]
    return segments


def _read(
    path: Path, text_columns: Sequence[str], run_trs: Sequence[int], tr: float | None, say: Say
) -> list[Segment]:
    """The segments of one file."""
    ending = path.suffix.lower()
    if text_columns and ending in (*SUBTITLES, ".json"):
        raise ValueError(
            f"text_columns is {list(text_columns)}, but {path} has no columns: leave it out."
        )
    if ending in SUBTITLES:
        return _on_trs(path, subtitle_cues(path), run_trs, tr, say)
    if ending == ".json":
        cues, n_untimed, are_words = transcript_cues(path)
        if n_untimed:
            say(f"{path}: left out words without times ({n_untimed} of {n_untimed + len(cues)})")
        segments = _on_trs(path, cues, run_trs, tr, say)
        return _joined(segments) if are_words else segments
    return _read_sheet(path, text_columns, run_trs, tr, say)


def _read_sheet(
    path: Path, text_columns: Sequence[str], run_trs: Sequence[int], tr: float | None, say: Say
) -> list[Segment]:
    names = [plain_name(name) for name in text_columns]
    if names in ([], [TEXT_PER_TR]):
        table = read_table(path, names, say)
        if table.matches(TEXT_PER_TR):
            return _per_tr(table, run_trs, say)
    if not names:
        text_columns = [_only_words(table, say)]
        names = [plain_name(text_columns[0])]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(
            f"text_columns is {list(text_columns)}, expected one name or more and none twice: "
            f"name the columns of {path} whose words are embedded."
        )
    wanted = dict(zip(text_columns, map(re.escape, names), strict=True))
    starts, stops = IN_TRS.values()
    times = [f"{starts}|{START}", f"{stops}|{STOP}|{DURATION}"]
    table = read_table(path, [*wanted.values(), *times], say)
    columns = [table.column(name, pattern) for name, pattern in wanted.items()]
    if not table.matches(starts) and not table.matches(stops):
        return _on_trs(path, list(_timed_rows(table, columns, say)), run_trs, tr, say)
    start, stop = (table.column(name, pattern) for name, pattern in IN_TRS.items())
    for column in (start, stop):
        _check_tr(path, table.header[column], tr)
    segments = _segments(table, columns, start, stop, say)
    _check_times(path, segments, run_trs)
    return list(segments.values())


def _only_words(table: Table, say: Say) -> str:
    """The one column of words that is no time and no run, where nobody has named it."""
    times = "|".join((*IN_TRS.values(), START, STOP, DURATION, RUN))
    timed = table.matches(times)
    found = [table.header[column] for column in table.words() if column not in timed]
    if len(found) != 1:
        raise ValueError(
            f"text_columns names no column of {table.path}, expected some of "
            f"{found or table.header}: name those whose words are to be read."
        )
    say(f"{table.path}: the words of its column {found[0]!r} are read")
    return found[0]


def _timed_rows(table: Table, columns: list[int], say: Say) -> Iterator[Cue]:
    """The rows of a sheet in seconds."""
    if not table.matches(START):
        raise ValueError(
            f"{table.path} has no column of times, its columns are {table.header}, expected onset "
            "and duration, or a start and an end, in seconds, or 'Start Time (TRs, ...)' and 'End "
            "Time (TRs, ...)': add them."
        )
    start = table.column("start", START)
    ends = bool(table.matches(STOP))
    stop = table.column("end", STOP) if ends else table.column("duration", DURATION)
    run = table.column("run", RUN) if table.matches(RUN) else None
    untimed = []
    for number in table.rows:
        begin = table.seconds(number, start)
        if begin is None:
            untimed.append(number)
            continue
        length = table.seconds(number, stop)
        end = begin if length is None else length if ends else begin + length
        text = _words(table, number, columns)
        yield Cue(begin, end, text, f"row {number}", _run(table, number, run))
    _say_untimed(table, untimed, "a start", say)


def _run(table: Table, number: str, column: int | None) -> int | None:
    """The run that a row names, counted from 0; `run-1` and 1 are the first."""
    if column is None:
        return None
    found = re.fullmatch(r"(run[ _-]?)?0*([1-9]\d*)(\.0*)?", plain_name(table.text(number, column)))
    if found is None:
        raise table.refusal(
            number,
            column,
            repr(table.text(number, column)),
            "the number of a run, counted from 1: write it as 1 or run-1",
        )
    return int(found[2]) - 1


def _words(table: Table, number: str, columns: list[int]) -> str:
    texts = [table.text(number, column) for column in columns]
    return " ".join(text for text in texts if text)


def _say_untimed(table: Table, untimed: list[str], what: str, say: Say) -> None:
    if untimed:
        shown = ", ".join(untimed[:3]) + (", ..." if len(untimed) > 3 else "")
        say(f"{table.path}: left out rows without {what} ({len(untimed)}): {shown}")


def _per_tr(table: Table, run_trs: Sequence[int], say: Say) -> list[Segment]:
    """Segments of a table with a row a TR, counted through all its runs."""
    texts = text_per_tr(table)
    n_trs = sum(run_trs)
    cropped = f", of which those after TR {n_trs} are left out" if len(texts) > n_trs else ""
    say(f"{table.path}: one row a TR, {len(texts)} rows{cropped}")
    rows = enumerate(texts[:n_trs])
    segments = [Segment(row, row + 1, _composed(text)) for row, text in rows if text]
    if not segments:
        raise ValueError(
            f"{table.path} has no words in its first {n_trs} rows, expected some: fill them in, or "
            "leave out annotations."
        )
    return segments


def _on_trs(
    path: Path, cues: list[Cue], run_trs: Sequence[int], tr: float | None, say: Say
) -> list[Segment]:
    """Put words that have seconds on the TRs of the runs, and say how they were read."""
    if tr is None:
        raise ValueError(f"tr is None, but {path} is in seconds: give the repetition time.")
    runs, clock = _runs(path, cues, len(run_trs))
    starts = np.cumsum([0, *run_trs]).tolist()
    bounds = list(pairwise(starts))
    n_outside = 0
    segments = []
    for cue, run in zip(cues, runs, strict=True):
        if cue.stop < cue.start:
            raise ValueError(
                f"{cue.place} of {path} is from {cue.start:g} to {cue.stop:g} s, expected an end "
                "after the start: correct it."
            )
        offset = 0 if run is None else starts[run]
        within = bounds if run is None else [bounds[run]]
        first, last = (offset + tr_ for tr_ in _trs(cue, tr))
        parts = [(max(first, low), min(last, high)) for low, high in within]
        found = [Segment(a, b, _composed(cue.text)) for a, b in parts if a < b]
        n_outside += not found
        segments += found
    if not segments:
        raise ValueError(
            f"{path} has words at {cues[0].start:.1f} to {cues[-1].stop:.1f} s and none within the "
            f"{sum(run_trs)} TRs of {tr:g} s: correct its clock, tr or run_trs."
            if cues
            else f"{path} has no words with times, expected some: fill them in, or leave out "
            "annotations."
        )
    outside = f"; left out before or after the runs ({n_outside})" if n_outside else ""
    say(f"{path}: read {len(cues) - n_outside} segments, {clock}{outside}")
    return sorted(segments, key=lambda one: one.start)


def _trs(cue: Cue, tr: float) -> tuple[int, int]:
    """TRs whose middle is in a cue: the first, and the one after the last.

    Cues that hold no middle, as single words, are in the TR that holds theirs. So 993 of the 998
    rows of the published Sherlock sheet have, of their seconds, the TRs that it says.
    """
    first, last = (round(round(time / tr, 6)) for time in (cue.start, cue.stop))
    if last > first:
        return first, last
    own = math.floor((cue.start + cue.stop) / 2 / tr + 1e-6)
    return own, own + 1


def _runs(path: Path, cues: list[Cue], n_runs: int) -> tuple[list[int | None], str]:
    """The run of each cue, None where seconds count through all, and the clock in words."""
    if any(cue.run is not None for cue in cues):
        for cue in cues:
            if cue.run is not None and cue.run >= n_runs:
                raise ValueError(
                    f"{cue.place} of {path} is of run {cue.run + 1}, expected 1 to {n_runs}: "
                    "correct it, or run_trs."
                )
        return [cue.run for cue in cues], "in seconds of the run that each row names"
    if n_runs == 1:
        return [0] * len(cues), "in seconds of the run"
    back = [number for number, (a, b) in enumerate(pairwise(cues), 1) if b.start < a.start]
    if not back:
        return [None] * len(cues), "in seconds through all runs"
    if len(back) != n_runs - 1:
        raise ValueError(
            f"times in {path} go back {len(back)} times, first at {cues[back[0]].place}, expected "
            f"0, or {n_runs - 1}, at the start of each further run: sort it, add a column 'run', "
            "or name one file a run."
        )
    runs = np.searchsorted(back, np.arange(len(cues)), "right").tolist()
    firsts = ", ".join(cues[number].place for number in back)
    return runs, f"in seconds of each run, as times go back at {firsts}"


def _joined(segments: list[Segment]) -> list[Segment]:
    """Single words that start in one TR as one segment."""
    by_tr = groupby(segments, key=lambda one: one.start)
    return [Segment(tr, tr + 1, " ".join(one.text for one in words)) for tr, words in by_tr]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _check_tr(path: str | Path, header: str, tr: float | None) -> None:
    """Refuse a column that says to count TRs of another length than `tr`."""
    stated = STATED_TR.search(plain_name(header))
    if stated is None or tr is None:
        return
    number = stated["number"] or stated["bare"]
    is_ms = (stated["unit"] or "").startswith("m")
    if is_ms:
        number = re.sub(r"[.,](?=\d{3}$)", "", number)  # 1,500 ms
    number = number.replace(",", ".")
    scale = 1e-3 if is_ms else 1.0
    n_decimals = len(number.partition(".")[2])
    rounding = 0.5 * scale * 10**-n_decimals
    seconds = scale * float(number)
    if abs(seconds - tr) > rounding + 1e-9 or not math.isclose(seconds, tr, rel_tol=0.01):
        raise ValueError(
            f"{path} counts TRs of {seconds:g} s in column {header!r}, expected the data's TRs of "
            f"{tr:g} s: convert the column, or correct its name or tr."
        )


def _segments(
    table: Table, columns: list[int], start: int, stop: int, say: Say
) -> dict[str, Segment]:
    """The rows that have times, by their numbers."""
    segments = {}
    untimed = []
    for number in table.rows:
        first = table.tr(number, start)
        last = table.tr(number, stop)
        if first is None and last is None:
            untimed.append(number)
            continue
        if first is None or last is None:
            raise table.refusal(
                number, start if first is None else stop, "nothing", "both TRs or none: fill it in"
            )
        text = _words(table, number, columns)
        segments[number] = Segment(first - 1, last, _composed(text))
    if not segments:
        raise ValueError(
            f"{table.path} has no row with a start and an end TR, expected one or more: fill them "
            "in, or leave out annotations."
        )
    _say_untimed(table, untimed, "TRs", say)
    return segments


def _check_times(path: str | Path, segments: dict[str, Segment], run_trs: Sequence[int]) -> None:
    stops = np.cumsum(run_trs)
    for number, segment in segments.items():
        shown = f"row {number} of {path} has TRs {segment.start + 1} to {segment.stop}"
        if not 0 <= segment.start < segment.stop:
            raise ValueError(
                f"{shown}, expected 1 or more and a start not after the end: mend the row."
            )
        if segment.stop > stops[-1]:
            raise ValueError(
                f"{shown}, but the runs end at TR {stops[-1]}: mend the row or run_trs."
            )
        if np.searchsorted(stops, segment.start, "right") != np.searchsorted(
            stops, segment.stop, "left"
        ):
            raise ValueError(
                f"{shown}, across the end of a run (TR {stops[:-1].tolist()}): cut the row in two."
            )
    for (before, one), (number, other) in pairwise(segments.items()):
        if other.start < max(one.start, one.stop - 1):
            raise ValueError(
                f"rows {before} and {number} of {path} overlap: TRs {one.start + 1} to {one.stop} "
                f"and {other.start + 1} to {other.stop}, expected each row to start where the one "
                "before ends, or later."
            )


def in_training(segments: list[Segment], train: np.ndarray) -> np.ndarray:
    """Whether each segment touches a training TR: (n_segments,) bool; `train` is (n_trs,) bool."""
    return np.array([train[segment.start : segment.stop].any() for segment in segments], bool)
