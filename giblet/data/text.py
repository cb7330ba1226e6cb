"""Words: annotation sheet -> one embedding per TR, and embeddings -> the nearest annotations."""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from giblet.data.sheet import INVISIBLE, Table, plain_name, read_table

# Scripts without spaces between words, as the names of their characters begin
UNSPACED = (
    "CJK ",
    "IDEOGRAPHIC ",
    "HIRAGANA ",
    "KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
)
# What a header says of the length of its TRs: '1.5s', '1500 ms', 'TR = 1.5', or a bare '1.5'
NUMBER = r"(?:\d+(?:[.,]\d+)?|\.\d+)"
STATED_TR = re.compile(
    rf"(?P<number>{NUMBER})[ -]?(?P<unit>ms|msec|milliseconds?|s|sec|secs|seconds?)\b"
    rf"|\btrs?[ ,:;=@]*(?:of |tr[ =:]*)?(?P<bare>{NUMBER})(?= ?(?:\)|s|hz|[:\"″]))"
)


@dataclass(frozen=True)
class Segment:
    """One row of the sheet: TRs `start` to `stop` (0-based, stop excluded) and its words."""

    start: int
    stop: int
    text: str


def read_segments(
    path: str | Path,
    text_columns: Sequence[str],
    run_trs: Sequence[int],
    tr: float | None = None,
    say: Callable[[str], object] = print,
) -> list[Segment]:
    """Read the annotation sheet (.xlsx, .csv or .tsv) by its TR columns.

    They are the only clock that does not restart with each run.

    The columns `Start Time (TRs, ...)` and `End Time (TRs, ...)` are 1-based and inclusive and
    count through all runs; rows without both are left out. A row may start in the TR in which the
    one before ends. Case and spaces in column names do not matter. A merged cell of words counts
    for all its rows.

    Parameters
    ----------
    tr : float, optional
        Repetition time in seconds, which the names of the TR columns must not contradict.
    say : callable
        Takes a sentence each on the rows that are left out and on a worksheet that was chosen.

    Raises
    ------
    ValueError
        If the file is no sheet, lacks a column or has it twice, counts TRs of another length, has
        no row with times, or holds cells that are no TRs or times that are reversed, overlap by
        more than one TR, lie beyond the last TR or cross from one run into the next.
    """
    names = [plain_name(name) for name in text_columns]
    if not all(names) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"text_columns is {list(text_columns)}, expected one name or more and none twice: "
            f"name the columns of {path} whose words are embedded."
        )
    wanted = dict(zip(text_columns, map(re.escape, names), strict=True))
    for edge in ("Start", "End"):
        wanted[f"{edge} Time (TRs, ...)"] = rf"{edge.lower()} time ?\(trs.*\)"
    table = read_table(path, list(wanted.values()), say)
    *columns, start, stop = (table.column(name, pattern) for name, pattern in wanted.items())
    for column in (start, stop):
        _check_tr(path, table.header[column], tr)
    segments = _segments(table, columns, start, stop, say)
    _check_times(path, segments, run_trs)
    return list(segments.values())


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
    table: Table, columns: list[int], start: int, stop: int, say: Callable[[str], object]
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
        texts = [table.text(number, column) for column in columns]
        text = " ".join(text for text in texts if text)
        segments[number] = Segment(first - 1, last, unicodedata.normalize("NFC", text))
    if not segments:
        raise ValueError(
            f"{table.path} has no row with a start and an end TR, expected one or more: fill them "
            "in, or leave out annotations."
        )
    if untimed:
        shown = ", ".join(untimed[:3]) + (", ..." if len(untimed) > 3 else "")
        say(f"{table.path}: left out rows without TRs ({len(untimed)}): {shown}")
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


def words(text: str) -> list[str]:
    """Words of a text in any script, in lower case.

    A word is a run of letters, their combining marks, digits and '_'. Scripts without spaces
    between words give each character and each pair of neighbours instead. Composition, width,
    presentation forms and invisible characters make no difference (Unicode NFKC).
    """
    visible = INVISIBLE.sub("", text)
    lower = unicodedata.normalize("NFKC", visible).lower()
    lower = lower.replace("i\u0307", "i")  # lower case of the Turkish capital with a dot
    found = []
    characters = []
    before = "gap"
    for character in unicodedata.normalize("NFC", lower):
        kind = _kind(character)
        if kind == "mark":
            if characters:
                characters[-1] += character
            continue
        if kind != before:
            found += _words_of_run(characters, before)
            characters = []
        if kind != "gap":
            characters.append(character)
        before = kind
    return found + _words_of_run(characters, before)


@cache
def _kind(character: str) -> str:
    if unicodedata.category(character).startswith("M"):
        return "mark"
    if not (character.isalnum() or character == "_"):
        return "gap"
    return "unspaced" if unicodedata.name(character, "").startswith(UNSPACED) else "letter"


def _words_of_run(characters: list[str], kind: str) -> list[str]:
    if kind == "unspaced":
        return characters + ["".join(pair) for pair in pairwise(characters)]
    word = "".join(characters)
    return [word] if word.strip("_") else []


@dataclass(frozen=True)
class TextProcessor:
    """Embeddings of the annotations.

    Parameters
    ----------
    model : str, optional
        Folder or hub id of a sentence-transformers model, such as 'BAAI/bge-large-en-v1.5' (1,024
        wide); needs the extra `text`. By default hashed TF-IDF of `words`: nothing is downloaded
        and nothing was learned from other texts, so two words are the same or different, never
        alike.
    n_features : int
        Width of the hashed TF-IDF. Words share a place by chance when there are many of them.
    annotations, embeddings : tuple of str, (n_annotations, n_features) float32
        What `features_to_text` looks among; `MultimodalDataset` fills them in.
    """

    model: str | None = None
    n_features: int = 1024
    annotations: tuple[str, ...] = field(default=(), repr=False, compare=False)
    embeddings: np.ndarray | None = field(default=None, repr=False, compare=False)

    def embed(self, segments: list[Segment], train: np.ndarray) -> np.ndarray:
        """Unit-length embedding of each annotation: (n_segments, width) float32.

        An annotation without any word is embedded as 0.

        Parameters
        ----------
        train : (n_trs,) bool
            Training TRs: the TF-IDF weight of a word comes from the segments that touch them.

        Raises
        ------
        ValueError
            If no segment touches a training TR.
        """
        fitted = in_training(segments, train)
        if not fitted.any():
            raise ValueError(
                f"none of {len(segments)} segments touches a training TR, expected one or more: "
                "annotate the training TRs."
            )
        texts = [unicodedata.normalize("NFC", segment.text) for segment in segments]
        if self.model is not None:
            encode = _sentence_model(self.model).encode
            embeddings = encode(texts, normalize_embeddings=True).astype(np.float32)
            embeddings[[not words(text) for text in texts]] = 0
            return embeddings
        vectorizer = HashingVectorizer(
            analyzer=words, n_features=self.n_features, alternate_sign=False, norm=None
        )
        counts = vectorizer.transform(texts)
        return TfidfTransformer().fit(counts[fitted]).transform(counts).toarray().astype(np.float32)

    @staticmethod
    def features(segments: list[Segment], embeddings: np.ndarray, n_trs: int) -> np.ndarray:
        """Unit-length embedding of each TR: (n_trs, width) float32; 0 without annotation."""
        features = np.zeros((n_trs, embeddings.shape[1]), np.float32)
        for segment, embedding in zip(segments, embeddings, strict=True):
            features[segment.start : segment.stop] += embedding
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    def features_to_text(self, features, n_nearest: int = 1) -> list[list[tuple[str, float]]]:
        """The annotations nearest to each of (n_trs, width) embeddings, best first.

        Each comes with its cosine similarity.
        """
        features = torch.as_tensor(features).detach().float().cpu().numpy()
        if self.embeddings is None:
            raise ValueError(
                "this processor knows no annotations: take `text_processor` of a MultimodalDataset."
            )
        if features.ndim != 2 or features.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"features have shape {features.shape}, expected (n_trs, "
                f"{self.embeddings.shape[1]})."
            )
        lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        similarity = features / lengths @ self.embeddings.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :n_nearest]
        return [
            [(self.annotations[i], float(row[i])) for i in best]
            for row, best in zip(similarity, nearest, strict=True)
        ]


def _sentence_model(name: str):
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError(
            f"TextProcessor(model={name!r}) needs the package sentence-transformers: pip install "
            "'giblet[text]'."
        ) from None
    return SentenceTransformer(name)
