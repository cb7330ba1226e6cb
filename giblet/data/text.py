"""Words: annotation sheet -> one embedding per TR."""

import re
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer


@dataclass(frozen=True)
class Segment:
    """One row of the sheet: TRs `start` to `stop` (0-based, stop excluded) and its words."""

    start: int
    stop: int
    text: str


def read_segments(path: str | Path, text_columns: Sequence[str]) -> list[Segment]:
    """Read the annotation sheet by its TR columns, the only clock that does not restart with each run.

    The columns `Start Time (TRs, ...)` and `End Time (TRs, ...)` are 1-based and inclusive; rows without
    them are left out. Spaces around column names do not matter.
    """
    with warnings.catch_warnings(), closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
        warnings.filterwarnings("ignore", message="Unknown extension")  # of the spreadsheet's looks, not its cells
        header, *rows = book.active.iter_rows(values_only=True)
    header = [str(cell or "").strip() for cell in header]
    columns = [_column(path, header, re.escape(name)) for name in text_columns]
    start, stop = (_column(path, header, rf"{edge} Time \(TRs.*\)") for edge in ("Start", "End"))
    return [
        Segment(int(row[start]) - 1, int(row[stop]), " ".join(str(row[c]) for c in columns if row[c] is not None))
        for row in rows
        if row[start] is not None and row[stop] is not None
    ]


def _column(path: str | Path, header: list[str], pattern: str) -> int:
    matches = [index for index, name in enumerate(header) if re.fullmatch(pattern, name, re.IGNORECASE)]
    if not matches:
        raise ValueError(f"{path} has no column {pattern.replace(chr(92), '')!r}, its columns are {header}.")
    return matches[0]


@dataclass(frozen=True)
class TextProcessor:
    """Hashed TF-IDF of the annotations: no learned weights, so words are the same or different, never alike.

    Parameters
    ----------
    n_features : int
        Width of the embedding. Words share a place by chance when there are many of them.
    """

    n_features: int = 1024

    def features(self, segments: list[Segment], n_trs: int, train: np.ndarray) -> np.ndarray:
        """Unit-length embedding of each TR: (n_trs, n_features) float32, 0 where nothing is annotated.

        Parameters
        ----------
        train : (n_trs,) bool
            Training TRs: the weight of a word comes from the segments that touch them.
        """
        vectorizer = HashingVectorizer(n_features=self.n_features, alternate_sign=False, norm=None)
        counts = vectorizer.transform([segment.text for segment in segments])
        fitted = [bool(train[segment.start : segment.stop].any()) for segment in segments]
        embeddings = TfidfTransformer().fit(counts[fitted]).transform(counts).toarray()
        features = np.zeros((n_trs, self.n_features), np.float32)
        for segment, embedding in zip(segments, embeddings, strict=True):
            features[segment.start : segment.stop] += embedding
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
