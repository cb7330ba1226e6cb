"""Words: annotation sheet -> one embedding per TR, and embeddings -> the nearest annotations."""

import re
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import openpyxl
import torch
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer


@dataclass(frozen=True)
class Segment:
    """One row of the sheet: TRs `start` to `stop` (0-based, stop excluded) and its words."""

    start: int
    stop: int
    text: str


def read_segments(
    path: str | Path, text_columns: Sequence[str], run_trs: Sequence[int]
) -> list[Segment]:
    """Read the annotation sheet by its TR columns.

    They are the only clock that does not restart with each run.

    The columns `Start Time (TRs, ...)` and `End Time (TRs, ...)` are 1-based and inclusive and
    count through all runs; rows without them are left out. A row may start in the TR in which the
    one before ends. Spaces around column names do not matter.

    Raises
    ------
    ValueError
        If the file is no sheet, lacks a column, or holds times that are reversed, overlap by more
        than one TR, lie beyond the last TR or cross from one run into the next.
    """
    try:
        with (
            warnings.catch_warnings(),
            closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book,
        ):
            warnings.filterwarnings(
                "ignore", message="Unknown extension"
            )  # of the spreadsheet's looks, not its cells
            header, *rows = book.active.iter_rows(values_only=True)
    except (
        openpyxl.utils.exceptions.InvalidFileException,
        BadZipFile,
        OSError,
        KeyError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as an .xlsx sheet ({error}): save it as one."
        ) from None
    header = [str(cell or "").strip() for cell in header]
    columns = [_column(path, header, re.escape(name), name) for name in text_columns]
    start, stop = (
        _column(path, header, rf"{e} Time \(TRs.*\)", f"{e} Time (TRs, ...)")
        for e in ("Start", "End")
    )
    segments = {
        number: Segment(
            int(row[start]) - 1,
            int(row[stop]),
            " ".join(str(row[c]) for c in columns if row[c] is not None),
        )
        for number, row in enumerate(rows, start=2)
        if row[start] is not None and row[stop] is not None
    }
    _check_times(path, segments, run_trs)
    return list(segments.values())


def _column(path: str | Path, header: list[str], pattern: str, name: str) -> int:
    matches = [
        index for index, found in enumerate(header) if re.fullmatch(pattern, found, re.IGNORECASE)
    ]
    if not matches:
        raise ValueError(
            f"{path} has no column {name!r}, its columns are {header}: add it, or mend "
            "text_columns."
        )
    return matches[0]


def _check_times(path: str | Path, segments: dict[int, Segment], run_trs: Sequence[int]) -> None:
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


@dataclass(frozen=True)
class TextProcessor:
    """Embeddings of the annotations.

    Parameters
    ----------
    model : str, optional
        Folder or hub id of a sentence-transformers model, such as 'BAAI/bge-large-en-v1.5' (1,024
        wide); needs the extra `text`. By default hashed TF-IDF: nothing is downloaded and nothing
        was learned from other texts, so two words are the same or different, never alike.
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

        Parameters
        ----------
        train : (n_trs,) bool
            Training TRs: the TF-IDF weight of a word comes from the segments that touch them.
        """
        texts = [segment.text for segment in segments]
        if self.model is not None:
            return (
                _sentence_model(self.model)
                .encode(texts, normalize_embeddings=True)
                .astype(np.float32)
            )
        vectorizer = HashingVectorizer(n_features=self.n_features, alternate_sign=False, norm=None)
        counts = vectorizer.transform(texts)
        fitted = [bool(train[segment.start : segment.stop].any()) for segment in segments]
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
