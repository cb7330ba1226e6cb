"""Words as labs keep them: one film gives the same segments from every kind of file."""

import datetime
import json
from collections import Counter
from itertools import pairwise

import numpy as np
import openpyxl
import pytest
from folders import copy_of, without

from giblet.data import MultimodalDataset, TextProcessor, VideoProcessor
from giblet.data.segments import Segment, read_segments

RUNS = (8, 6)
TR = 1.5
# Times in seconds of each run, and TRs through both: TR i has what is heard at (i + .5) x 1.5 s
FILM = [
    (0, 0.0, 4.6, "a red door", (0, 3)),
    (0, 4.6, 9.1, "a dog & a cat", (3, 6)),
    (0, 9.1, 9.4, "no", (6, 7)),  # holds no middle of a TR
    (1, 0.0, 3.2, "the sea", (8, 10)),
    (1, 3.2, 8.9, "the end", (10, 14)),
]
SEGMENTS = [Segment(*trs, text) for *_, text, trs in FILM]
STARTS = (0.0, RUNS[0] * TR)


def clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def subtitles(ending: str, rows) -> str:
    point = "," if ending == "srt" else "."
    cues = []
    for number, (start, stop, text) in enumerate(rows, start=1):
        times = f"{clock(start, point)} --> {clock(stop, point)}"
        said = text.replace("&", "&amp;") if ending == "vtt" else text
        cues.append(f"{number}\n{times}\n{said}\n")
    head = "WEBVTT - film\n\nSTYLE\n::cue {}\n\nNOTE a note\n\n" if ending == "vtt" else ""
    return head + "\n".join(cues)


def table(header: str, rows, delimiter: str = ",") -> str:
    lines = [header.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def of_run(run: int) -> list[tuple]:
    return [(start, stop, text) for own, start, stop, text, _ in FILM if own == run]


def through_all() -> list[tuple]:
    return [(STARTS[run] + start, STARTS[run] + stop, text) for run, start, stop, text, _ in FILM]


def restarting() -> list[tuple]:
    return [(start, stop, text) for _, start, stop, text, _ in FILM]


def events(rows) -> list[tuple]:
    return [(start, round(stop - start, 6), text) for start, stop, text in rows]


KINDS = {
    "film.srt": subtitles("srt", through_all()),
    "film.vtt": subtitles("vtt", through_all()),
    "film.csv": table("Start Time (s),End Time (s),Scene", through_all()),
    "semicolons.csv": table("start;end;Scene", through_all(), ";"),
    "events.tsv": table("onset\tduration\tscene", events(through_all()), "\t"),
    "restarts.csv": table("start,end,Scene", restarting()),
    "runs.csv": table(
        "run,onset,duration,Scene",
        [(f"run-{run + 1}", a, round(b - a, 6), text) for run, a, b, text, _ in FILM[::-1]],
    ),
    "clock.csv": table(
        "Onset,Offset,Scene", [(clock(a, "."), clock(b, "."), text) for a, b, text in through_all()]
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_one_film_in_every_kind_of_file(tmp_path, name):
    (tmp_path / name).write_text(KINDS[name])
    said = []
    columns = () if name.endswith(("srt", "vtt")) else ("Scene",)
    assert read_segments(tmp_path / name, columns, RUNS, TR, said.append) == SEGMENTS
    assert len(said) == 1
    assert name in said[0]
    assert "read 5 segments, in seconds" in said[0]


@pytest.mark.parametrize("ending", ["srt", "vtt", "csv"])
def test_a_file_of_each_run(tmp_path, ending):
    paths = [tmp_path / f"run-{run + 1}.{ending}" for run in (0, 1)]
    for run, path in enumerate(paths):
        rows = of_run(run)
        is_table = ending == "csv"
        path.write_text(table("start,end,Scene", rows) if is_table else subtitles(ending, rows))
    columns = ("Scene",) if ending == "csv" else ()
    assert read_segments(paths, columns, RUNS, TR, [].append) == SEGMENTS


def test_a_workbook_with_times_of_day(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Start", "End", "Scene"])
    for start, stop, text in through_all():
        times = [datetime.timedelta(seconds=start), datetime.timedelta(seconds=stop)]
        book.active.append([*times, text])
    book.save(tmp_path / "a.xlsx")
    assert read_segments(tmp_path / "a.xlsx", ["Scene"], RUNS, TR, [].append) == SEGMENTS


@pytest.mark.parametrize("tr", [0.72, 1.49, 1.5, 2.0])
def test_times_at_the_edges_of_trs_are_not_moved_by_their_rounding(tmp_path, tr):
    """Milliseconds, as subtitles have them, keep a segment of each length on its TRs."""
    edges = np.cumsum([0, *range(1, 40)])
    rows = [(a * tr, b * tr, f"scene {a}") for a, b in pairwise(edges)]
    (tmp_path / "a.srt").write_text(subtitles("srt", rows))
    found = read_segments(tmp_path / "a.srt", (), [int(edges[-1])], tr, [].append)
    assert [(one.start, one.stop) for one in found] == list(pairwise(edges))


def test_markup_of_subtitles_is_no_word(tmp_path):
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,000 --> 00:00:03,000\n<i>3 < 4</i> {\\an8}and\n<font color='red'>more</font>\n"
    )
    assert read_segments(tmp_path / "a.srt", (), RUNS[:1], TR, [].append) == [
        Segment(0, 2, "3 < 4 and more")
    ]
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\nfirst\n00:00.000 --> 00:03.000 align:start\n<v Ann>Hello <c.red>there</c>\n\n"
        "second\n00:03.000 --> 00:06.000\nyou &amp; <00:00:04.000>me\n"
    )
    assert read_segments(tmp_path / "a.vtt", (), RUNS[:1], TR, [].append) == [
        Segment(0, 2, "Hello there"),
        Segment(2, 4, "you & me"),
    ]


def test_subtitles_without_words_hide_no_others(tmp_path):
    rows = [(0, 3, "one"), (3, 6, ""), (6, 9, "two"), (6, 9, "two")]
    (tmp_path / "a.srt").write_text(subtitles("srt", rows))
    assert read_segments(tmp_path / "a.srt", (), RUNS[:1], TR, [].append) == [
        Segment(0, 2, "one"),
        Segment(4, 6, "two"),
    ]


def test_single_words_are_joined_by_the_tr_that_they_start_in(tmp_path):
    words = [("so", 0.1, 0.3), ("it", 1.45, 1.7), ("was", 1.5, 1.6), ("you", 7.0, 7.4)]
    entries = [{"word": word, "start": a, "end": b, "case": "success"} for word, a, b in words]
    entries.insert(1, {"word": "um", "case": "not-found-in-audio"})
    (tmp_path / "a.json").write_text(json.dumps({"transcript": "so um it was", "words": entries}))
    said = []
    assert read_segments(tmp_path / "a.json", (), RUNS[:1], TR, said.append) == [
        Segment(0, 1, "so it"),
        Segment(1, 2, "was"),
        Segment(4, 5, "you"),
    ]
    assert "left out words without times (1 of 5)" in said[0]


def test_segments_of_a_transcript(tmp_path):
    segments = [{"id": 0, "start": 0.0, "end": 3.0, "text": " Hello there."}]
    (tmp_path / "a.json").write_text(json.dumps({"text": "", "segments": segments}))
    assert read_segments(tmp_path / "a.json", (), RUNS[:1], TR, [].append) == [
        Segment(0, 2, "Hello there.")
    ]


def test_a_row_a_tr(tmp_path):
    """As the transcripts of Algonauts 2025: a blank row is a TR without words."""
    rows = [("a dog", "['a', 'dog']"), ("", "[]"), ("", ""), ("runs", "['runs']")]
    (tmp_path / "a.tsv").write_text(table("text_per_tr\twords_per_tr", rows, "\t"))
    said = []
    found = read_segments(tmp_path / "a.tsv", (), [4], 1.49, said.append)
    assert found == [Segment(0, 1, "a dog"), Segment(3, 4, "runs")]
    columns = ["text_per_tr"]
    assert read_segments(tmp_path / "a.tsv", columns, [3], 1.49, said.append) == found[:1]
    assert "those after TR 3 are left out" in said[-1]


def test_words_outside_the_runs_are_left_out_and_counted(tmp_path):
    rows = [(-5, -3, "before"), (-1, 3, "opens"), (11, 20, "closes"), (13, 15, "after")]
    (tmp_path / "a.csv").write_text(table("start,end,Scene", rows))
    said = []
    assert read_segments(tmp_path / "a.csv", ["Scene"], RUNS[:1], TR, said.append) == [
        Segment(0, 2, "opens"),
        Segment(7, 8, "closes"),
    ]
    assert said == [
        f"{tmp_path / 'a.csv'}: read 2 segments, in seconds of the run; left out before or after "
        "the runs (2)"
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "Scene\na dog\n", "has no column of times, its columns are"),
        ("a.csv", "start,Scene\n1,a dog\n", "has no column 'duration'"),
        ("a.csv", "start (ms),end (ms),Scene\n1,2,a\n", "has no column of times"),
        ("a.csv", "start,end,Scene\n1,soon,a\n", "row 2 of .* has 'soon' in column 'end'"),
        ("a.csv", "start,end,Scene\n3,1,a\n", "row 2 of .* is from 3 to 1 s, expected an end"),
        ("a.csv", "start,end,Scene\n900,901,a\n", "has words at 900.0 to 901.0 s and none within"),
        ("a.csv", "start,end,Scene\n,,a\n", "has no words with times"),
        ("a.csv", "start,end,run,Scene\n1,2,3,a\n", "row 2 of .* is of run 3, expected 1 to 2"),
        ("a.csv", "start,end,run,Scene\n1,2,0,a\n", "row 2 of .* has '0' in column 'run'"),
        ("a.csv", "start,end,Scene\n5,6,a\n4,5,b\n3,4,c\n", "go back 2 times, first at row 3"),
        ("a.srt", "1\n00:00:01 -> 00:00:02\na\n", "holds no subtitles that can be read"),
        ("a.srt", "1\n0:0:1,0 --> later\na\n", "line 2 of .* is '0:0:1,0 --> later'"),
        ("a.srt", "1\n0:00:01.5 --> 0:00:02.5\na\n", "line 2 of .* expected times such as"),
        ("a.srt", "1\n00:00:03,000 --> 00:00:01,000\na\n", "expected an end after the start"),
        ("a.json", "{", "is no transcript that can be read"),
        ("a.json", '{"words": 3}', "is no transcript that can be read"),
        ("a.json", '{"words": [{"word": "a", "start": "1"}]}', "entry 1 of .* is .*, expected"),
        ("a.json", '{"segments": [{"start": 1}]}', "entry 1 of .* is .*, expected words"),
        ("a.tsv", "text_per_tr\n\n", "is empty|has no words in its first 14 rows"),
    ],
)
def test_words_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    columns = ("Scene",) if name == "a.csv" else ()
    with pytest.raises(ValueError, match=message) as caught:
        read_segments(tmp_path / name, columns, RUNS, TR, [].append)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_a_sheet_have_to_be_named(tmp_path):
    """Unless one column alone holds words: which one was taken is said."""
    (tmp_path / "a.csv").write_text("onset,duration,Scene,Who\n0,2,a dog,dog\n2,2,a cat,cat\n")
    message = r"names no column of .*a\.csv, expected some of \['Scene', 'Who'\]"
    with pytest.raises(ValueError, match=message):
        read_segments(tmp_path / "a.csv", (), RUNS, TR)
    (tmp_path / "b.csv").write_text("onset,duration,n\n0,2,1\n2,2,3\n")
    with pytest.raises(ValueError, match=r"expected some of \['onset', 'duration', 'n'\]"):
        read_segments(tmp_path / "b.csv", (), RUNS, TR)
    (tmp_path / "c.csv").write_text(
        "onset,duration,run,n,Scene\n0,2,run-1,1,dog\n0,2,run-2,3,cat\n"
    )
    said = []
    found = read_segments(tmp_path / "c.csv", (), RUNS, TR, said.append)
    assert [segment.text for segment in found] == ["dog", "cat"]
    assert f"{tmp_path / 'c.csv'}: the words of its column 'Scene' are read" in said


def test_subtitles_have_no_columns(tmp_path):
    with pytest.raises(ValueError, match=r"text_columns is \['Scene'\], but .*a\.srt has no col"):
        read_segments(tmp_path / "a.srt", ["Scene"], RUNS, TR)


def test_as_many_files_as_runs():
    with pytest.raises(ValueError, match="3 files for 2 runs, expected one a run or one for all"):
        read_segments(["a.srt", "b.srt", "c.srt"], (), RUNS, TR)


def test_seconds_need_a_tr(tmp_path):
    (tmp_path / "a.srt").write_text(KINDS["film.srt"])
    with pytest.raises(ValueError, match=r"tr is None, but .* is in seconds"):
        read_segments(tmp_path / "a.srt", (), RUNS)


def sheet_in_seconds(simulated) -> list[list[tuple]]:
    """Start, end and words of each scene of the simulated film, by run."""
    sheet = openpyxl.load_workbook(simulated / "annotations.xlsx").active
    runs = []
    for row in sheet.iter_rows(min_row=2, values_only=True):
        if row[1] == 0:
            runs.append([])
        runs[-1].append((row[1], row[2], row[-1]))
    return runs


@pytest.mark.parametrize("kind", ["subtitles", "restarts.csv", "run.csv"])
def test_a_film_has_the_same_features_whoever_wrote_its_words(simulated, tmp_path, kind):
    """The seconds of the simulated sheet, written in other ways, give its TRs: all features."""
    folder = copy_of(simulated, tmp_path / "film")
    runs = sheet_in_seconds(simulated)
    rows = [(run + 1, *row) for run, rows in enumerate(runs) for row in rows]
    if kind == "subtitles":
        for run, scenes in enumerate(runs):
            (folder / f"run-{run + 1}.srt").write_text(subtitles("srt", scenes))
        entries = 'annotations = ["run-1.srt", "run-2.srt"]'
    else:
        quoted = [(run, a, b, f'"{text}"') for run, a, b, text in rows]
        kept = quoted if kind == "run.csv" else [row[1:] for row in quoted]
        header = "run," * (kind == "run.csv") + "start,end,Narration"
        lines = [header, *(",".join(map(str, row)) for row in kept)]
        (folder / "words.csv").write_text("\n".join(lines) + "\n")
        entries = 'annotations = "words.csv"\ntext_columns = ["Narration"]'
    without(folder / "dataset.toml", "annotations", "text_columns")
    with (folder / "dataset.toml").open("a") as file:
        file.write(f"\n{entries}\n")
    settings = {"video_processor": VideoProcessor(12, 8, 6), "progress": False}
    data = {path: MultimodalDataset(path, **settings) for path in (simulated, folder)}
    texts = [np.asarray(one.features.text) for one in data.values()]
    assert np.array_equal(*texts)
    assert texts[0].any(1).mean() > 0.9


@pytest.mark.filterwarnings("ignore:Unknown extension")  # of the looks of the workbook
def test_the_published_sheet_in_seconds_has_its_own_trs(real_data, tmp_path):
    """Sherlock's seconds, which restart with run 2, give the TRs of 993 of 998 rows."""
    source = real_data / "sherlock" / "Sherlock_Segments_1000_NN_2017.xlsx"
    column = "Scene Details - A Level"
    by_tr = read_segments(source, [column], (946, 1030))
    book = openpyxl.load_workbook(source)
    for cell in book.active[1]:
        if "(TRs" in str(cell.value):
            cell.value = f"not {cell.value}"
    book.save(tmp_path / "seconds.xlsx")
    said = []
    in_seconds = read_segments(tmp_path / "seconds.xlsx", [column], (946, 1030), 1.5, said.append)
    assert "times go back at row 4" in said[-1]
    assert len(by_tr) == len(in_seconds) == 998
    assert sum((Counter(by_tr) & Counter(in_seconds)).values()) == 993
    processor = TextProcessor()
    features = [
        processor.features(one, processor.embed(one, np.ones(1976, bool)), 1976)
        for one in (by_tr, in_seconds)
    ]
    assert (np.abs(features[0] - features[1]).max(1) < 0.05).mean() > 0.95
