import numpy as np
import openpyxl
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from giblet.data import TextProcessor
from giblet.data.text import Segment, read_segments

HEADER = ["Segment", "Start Time (s)", "Start Time (TRs, 1.5s) ", "End Time (TRs, 1.5s)", "Scene ", "Who"]


def write_sheet(path, *rows):
    book = openpyxl.Workbook()
    for row in (HEADER, *rows):
        book.active.append(row)
    book.save(path)
    return path


def test_segments_are_read_by_their_trs(tmp_path):
    sheet = write_sheet(
        tmp_path / "a.xlsx",
        [1, 0.0, 1, 4, "a red door", "Ann"],
        [2, 6.0, None, None, "left out", "Ann"],
        [3, 0.0, 5, 5, "a dog", None],  # the seconds start again with the second run
    )
    segments = read_segments(sheet, ["Scene", "Who"])
    assert segments == [Segment(0, 4, "a red door Ann"), Segment(4, 5, "a dog")]


def test_missing_column(tmp_path):
    sheet = write_sheet(tmp_path / "a.xlsx", [1, 0.0, 1, 4, "a", "b"])
    with pytest.raises(ValueError, match=r"a\.xlsx has no column 'Place', its columns are \['Segment'"):
        read_segments(sheet, ["Place"])


def test_embedding_against_tf_idf_by_hand():
    """weight = count * (ln((1 + n) / (1 + df)) + 1), the document frequency df from training segments only."""
    texts = ["red door", "red red dog", "blue dog", "green sea"]
    segments = [Segment(2 * index, 2 * index + 2, text) for index, text in enumerate(texts)]
    train = np.arange(8) < 6  # the last segment is held out
    features = TextProcessor(512).features(segments, 8, train)
    counts = HashingVectorizer(n_features=512, alternate_sign=False, norm=None).transform(texts).toarray()
    weights = counts * (np.log(4 / (1 + (counts[:3] > 0).sum(0))) + 1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    assert np.allclose(features, np.repeat(weights, 2, axis=0), atol=1e-6)


def test_held_out_words_do_not_move_training_embeddings():
    segments = [Segment(0, 2, "red door"), Segment(2, 4, "blue door"), Segment(4, 6, "red sea")]
    train = np.arange(6) < 4
    one = TextProcessor().features(segments, 6, train)
    other = TextProcessor().features([*segments[:2], Segment(4, 6, "door door door")], 6, train)
    assert np.array_equal(one[:4], other[:4])
    assert not np.array_equal(one[4:], other[4:])


def test_lengths():
    """Unit length where there are words, also where two segments share a TR; 0 where there are none."""
    segments = [Segment(0, 3, "red door"), Segment(2, 4, "blue dog")]
    norms = np.linalg.norm(TextProcessor().features(segments, 6, np.ones(6, bool)), axis=1)
    assert norms == pytest.approx([1, 1, 1, 1, 0, 0])


def test_real_sheet(real_data):
    """The published annotations: 998 of 1,000 rows have TRs, which cover both runs without a hole."""
    sheet = real_data / "sherlock" / "Sherlock_Segments_1000_NN_2017.xlsx"
    header = [str(c.value or "") for c in next(openpyxl.load_workbook(sheet, read_only=True).active.iter_rows())]
    column = next(name.strip() for name in header if name.startswith("Scene Details - A Level"))
    segments = read_segments(sheet, [column])
    assert len(segments) == 998
    covered = np.zeros(1976, int)
    for segment in segments:
        covered[segment.start : segment.stop] += 1
    assert covered.min() >= 1
