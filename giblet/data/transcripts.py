"""Files of words with times of their own: subtitles, transcripts, and tables with a row a TR."""

import html
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import av

from giblet.data.sheet import decoded
from giblet.data.table import Table, plain_name, row_of
from giblet.files import read_text

SUBTITLES = {".srt": "srt", ".vtt": "webvtt"}
# The times of a subtitle, as both kinds write them; FFmpeg takes '1.5' for 1 s and 5 ms
TIME = r"(?:\d+:)?[0-5]?\d:[0-5]?\d[.,]\d{3}"
TIMES = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
TEXT_PER_TR = "text_per_tr"  # the column of the transcripts of Algonauts 2025


@dataclass(frozen=True)
class Cue:
    """Words and when they are heard or seen.

    Parameters
    ----------
    start, stop : float
        Seconds. A single word has no duration, and belongs where it starts.
    text : str
    place : str
        Where in its file it stands, for errors: 'row 3'.
    run : int, optional
        Counted from 0, where the file says it.
    """

    start: float
    stop: float
    text: str
    place: str
    run: int | None = None


def subtitle_cues(path: Path) -> list[Cue]:
    """The subtitles of an .srt or .vtt file, without their markup.

    Raises
    ------
    ValueError
        If the file is no subtitle file, or a line of times is not written as one.
    """
    content = decoded(path)
    for number, line in enumerate(content.splitlines(), start=1):
        if "-->" in line and not TIMES.fullmatch(line):
            raise ValueError(
                f"line {number} of {path} is {line.strip()!r}, expected times such as "
                "'00:01:02,500 --> 00:01:04,000': correct the line."
            )
    try:
        with av.open(io.BytesIO(content.encode()), format=SUBTITLES[path.suffix.lower()]) as file:
            packets = [packet for packet in file.demux(subtitles=0) if packet.pts is not None]
            found = [
                (float(p.pts * p.time_base), float((p.duration or 0) * p.time_base), bytes(p))
                for p in packets
            ]
    except (av.FFmpegError, IndexError, ValueError):
        found = []
    if not found:
        raise ValueError(
            f"{path} holds no subtitles that can be read, expected one or more: save it anew as "
            ".srt or .vtt."
        )
    return [
        Cue(start, start + length, _plain(words), f"the subtitle at {start:.1f} s")
        for start, length, words in found
    ]


def _plain(words: bytes) -> str:
    """What a subtitle says, without markup."""
    visible = MARKUP.sub("", words.decode(errors="replace"))
    return " ".join(html.unescape(visible).split())


def transcript_cues(path: Path) -> tuple[list[Cue], int, bool]:
    """Words of a forced alignment (Gentle), or the segments of a transcript (Whisper): .json.

    Returns
    -------
    cues : list of Cue
    n_untimed : int
        Words that the alignment did not find.
    are_words : bool
        Whether each cue is a single word.

    Raises
    ------
    ValueError
        If the file holds neither.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    are_words = "words" in content
    entries = content.get("words" if are_words else "segments")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f"{path} is no transcript that can be read, expected a JSON object with 'words', as "
            "Gentle writes it, or 'segments', as Whisper does: save it as one of these, or a table."
        )
    cues = [
        _cue(path, entry, f"entry {number}", are_words)
        for number, entry in enumerate(entries, start=1)
        if "start" in entry or not are_words
    ]
    return cues, len(entries) - len(cues), are_words


def _cue(path: Path, entry: dict, place: str, is_word: bool) -> Cue:
    times = [entry.get("start"), entry.get("end")]
    text = entry.get("word" if is_word else "text")
    known = [type(time) in (int, float) and math.isfinite(time) for time in times]
    if not all(known) or not isinstance(text, str):
        shown = json.dumps(entry)[:80]
        raise ValueError(
            f"{place} of {path} is {shown}, expected words and numbers as 'start' and 'end': "
            "correct it."
        )
    start, stop = times
    return Cue(start, start if is_word else stop, " ".join(text.split()), place)


def text_per_tr(table: Table) -> list[str]:
    """The words of each TR of a table with a row a TR, '' where there are none.

    A blank row is a TR, too.
    """
    column = table.column(TEXT_PER_TR, TEXT_PER_TR)
    if not table.rows:
        return []
    by_row = {row_of(number): number for number in table.rows}
    texts = []
    for row in range(table.first_row, max(by_row) + 1):
        text = table.text(by_row[row], column) if row in by_row else ""
        texts.append("" if plain_name(text) in ("", "nan") else " ".join(text.split()))
    return texts
