"""Words: annotations -> one embedding per TR, and embeddings -> the nearest annotations.

How a file of them is read is in `giblet.data.segments`.
"""

import unicodedata
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from giblet.data.segments import Segment, in_training, read_segments
from giblet.data.table import INVISIBLE

__all__ = ["Segment", "TextProcessor", "read_segments", "words"]

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
