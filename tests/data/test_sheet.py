"""Tables as people make them: each ends in the right rows or in one sentence with the file."""

import datetime
import re
import warnings
import zipfile

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference

from giblet.data.segments import Segment, read_segments
from giblet.data.table import plain_name

HEADER = ("Start Time (TRs, 1.5s)", "End Time (TRs, 1.5s)", "Narration")
ROWS = [(1, 10, "a dog runs"), (11, 20, "a cat sits"), (21, 72, "the end")]
SEGMENTS = [Segment(0, 10, "a dog runs"), Segment(10, 20, "a cat sits"), Segment(20, 72, "the end")]


def workbook(*rows, header=HEADER) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    for row in (header, *rows):
        book.active.append(row)
    return book


def read(path, columns=("Narration",), said=None, **settings) -> list[Segment]:
    say = [].append if said is None else said.append
    return read_segments(path, columns, (72,), say=say, **settings)


@pytest.fixture
def saved(tmp_path):
    """Saves a workbook and edits its parts."""

    def save(book, edit=lambda name, part: part):
        path = tmp_path / "a.xlsx"
        book.save(tmp_path / "whole.xlsx")
        with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(path, "w") as out:
            for name in whole.namelist():
                part = edit(name, whole.read(name))
                if part is not None:
                    out.writestr(name, part)
        return path

    return save


def refusal(path, **settings) -> str:
    """The sentence of a refusal, which names the file."""
    with pytest.raises(ValueError) as caught:
        read(path, **settings)
    message = str(caught.value)
    assert type(caught.value) is ValueError
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    "cell",
    [1, 1.0, "1", "1.0", " 1 ", "\u00a01", "1.", "1e0", "+1", "１", "١", 1 - 1e-9, 1.0009],
)
def test_cells_that_are_a_tr(saved, cell):
    assert read(saved(workbook((cell, 10, "x")))) == [Segment(0, 10, "x")]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (12.667, "'12.667'"),
        (1.0011, "'1.0011'"),
        ("1,0", "'1,0'"),
        ("1,000", "'1,000'"),
        ("one", "'one'"),
        ("NaN", "'NaN'"),
        ("inf", "'inf'"),
        ("1 s", "'1 s'"),
        ("1-2", "'1-2'"),
        ("0x1", "'0x1'"),
        ("9" * 400, "'" + "9" * 400 + "'"),
        (1e300, "'1e+300'"),
        (10**30, "'1"),
        (True, "'True'"),
        (datetime.time(0, 0, 1), "'00:00:01'"),
        (datetime.datetime(1900, 1, 1), "'1900-01-01 00:00:00'"),
        (datetime.timedelta(seconds=1), "'0:00:01'"),
        ("#N/A", "the error #N/A"),
        ("#REF!", "the error #REF!"),
        ("=1+1", "a formula without a stored value"),
    ],
)
@pytest.mark.parametrize("column", [0, 1])
def test_cells_that_are_no_tr(saved, cell, shown, column):
    row = [11, 11, "x"]
    row[column] = cell
    message = refusal(saved(workbook(ROWS[0], row)))
    assert message.startswith("row 3 of ")
    assert f"has {shown}" in message
    assert f"in column {HEADER[column]!r}, expected " in message


@pytest.mark.parametrize("trs", [(0, 3), (-4, 3), (3, 2), (70, 73), (70, 10**8)])
def test_trs_out_of_range(saved, trs):
    assert refusal(saved(workbook((*trs, "x")))).startswith("row 2 of ")


@pytest.mark.parametrize("missing", [None, "", " ", "n/a", "N/A", "\u00a0", "\u200b"])
def test_rows_without_trs_are_left_out_and_counted(saved, missing):
    said = []
    rows = [ROWS[0], (missing, missing, "left out"), *ROWS[1:], (None, None, None)]
    assert read(saved(workbook(*rows)), said=said) == SEGMENTS
    assert len(said) == 1
    assert said[0].endswith("a.xlsx: left out rows without TRs (1): 3")


def test_first_of_many_rows_without_trs(saved):
    said = []
    read(saved(workbook(*ROWS, *[(None, None, "x")] * 5)), said=said)
    assert said[0].endswith("(5): 5, 6, 7, ...")


@pytest.mark.parametrize(("row", "column"), [((11, None, "x"), 1), (("n/a", 20, "x"), 0)])
def test_half_a_time(saved, row, column):
    message = refusal(saved(workbook(ROWS[0], row)))
    assert message.startswith("row 3 of ")
    assert f"has nothing in column {HEADER[column]!r}, expected both TRs or none" in message


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        ("n/a", ""),
        (" ", ""),
        (5, "5"),
        ("e\u0301t\u00e9", "été"),
        ("one_x000D_\ntwo", "one\r\ntwo"),
    ],
)
def test_cells_of_words(saved, cell, text):
    assert read(saved(workbook((1, 72, cell)))) == [Segment(0, 72, text)]


@pytest.mark.parametrize("cell", ["#N/A", "#REF!", "=A2&B2"])
def test_cells_without_known_words(saved, cell):
    message = refusal(saved(workbook((1, 72, cell))))
    assert message.startswith("row 2 of ")
    assert "in column 'Narration'" in message


def test_formulas_with_stored_values(saved):
    def edit(name, part):
        part = re.sub(rb"(<f>7\*2</f>)<v */>|(<f>7\*2</f>)<v></v>", rb"<f>7*2</f><v>14</v>", part)
        empty = rb'<c r="C2" t="str"><f>""</f><v></v></c>'
        return re.sub(rb'<c r="C2"[^>]*><f>""</f><v ?/?>(</v>)?</c>', empty, part)

    assert read(saved(workbook((1, "=7*2", '=""')), edit)) == [Segment(0, 14, "")]


def test_merged_words_count_for_all_their_rows(saved):
    book = workbook((1, 10, "both"), (11, 20, None), (21, 72, "end"))
    book.active.merge_cells("C2:C3")
    assert [segment.text for segment in read(saved(book))] == ["both", "both", "end"]


@pytest.mark.parametrize("cells", ["A2:A3", "B2:B4"])
def test_merged_times(saved, cells):
    book = workbook(*ROWS)
    book.active.merge_cells(cells)
    message = refusal(saved(book))
    assert f"a cell merged over rows 2 to {cells[-1]}" in message


def test_a_merged_title_of_a_part_is_no_segment(saved):
    said = []
    book = workbook(ROWS[0], ("Part two", None, None), *ROWS[1:])
    book.active.merge_cells("A3:C3")
    message = refusal(saved(book), said=said)
    assert "row 3 of " in message
    book = workbook(("Part two", None, None, None), header=("Part", *HEADER))
    for row in ROWS:
        book.active.append((None, *row))
    book.active.merge_cells("A2:D2")
    assert read(saved(book), said=said) == SEGMENTS


@pytest.mark.parametrize(
    "dimension", [b'<dimension ref="A1:C2"/>', b'<dimension ref="A1:XFD1048576"/>', b""]
)
def test_wrong_dimensions(saved, dimension):
    def edit(name, part):
        return re.sub(rb'<dimension ref="[^"]*" ?/>', dimension, part)

    assert read(saved(workbook(*ROWS), edit)) == SEGMENTS


def test_a_workbook_without_looks(saved):
    book = workbook(*ROWS)
    assert read(saved(book, lambda name, part: None if "styles" in name else part)) == SEGMENTS


def test_short_rows(saved):
    rows = [(1, 10, "x"), (11,), (21, 72, "y")]
    path = saved(workbook(*rows), lambda name, part: re.sub(rb"<dimension[^>]*>", b"", part))
    assert "row 3 of " in refusal(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb'<row r="3"', rb'<row r="2"'),
        (rb'<row r="4"', rb'<row r="1"'),
        (rb'r="B3"', rb'r="A3"'),
    ],
)
def test_rows_and_cells_out_of_order(saved, old, new):
    path = saved(workbook(*ROWS), lambda name, part: part.replace(old, new))
    assert "cannot be read as an .xlsx sheet (its " in refusal(path)


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("sheet1.xml", lambda part: part[: len(part) // 2]),
        ("sheet1.xml", lambda part: b""),
        ("sheet1.xml", lambda part: part.replace(b'"A2"', b'"2"')),
        ("sheet1.xml", lambda part: None),
        ("styles.xml", lambda part: re.sub(rb"<fills.*?</fills>", b"<fills><fill/></fills>", part)),
        ("sheet1.xml", lambda part: re.sub(rb'C2" t=.*?</c>', b'C2" t="s"><v>7</v></c>', part)),
        ("sheet1.xml", lambda part: part.replace(b"<v>10</v>", b"<v>ten</v>")),
        ("workbook.xml", lambda part: None),
        ("workbook.xml.rels", lambda part: None),
        ("[Content_Types].xml", lambda part: b"words"),
    ],
)
def test_damaged_workbooks(saved, part, edit):
    def damage(name, content):
        return edit(content) if name.endswith(part) else content

    assert re.search(
        "cannot be read as|holds no worksheet", refusal(saved(workbook(*ROWS), damage))
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"Start,End\n1,2\n", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), b"PK\x03\x04"],
)
def test_no_workbook(tmp_path, content):
    path = tmp_path / "a.xlsx"
    path.write_bytes(content)
    assert "cannot be read as an .xlsx sheet" in refusal(path)


def test_password(tmp_path):
    path = tmp_path / "a.xlsx"
    path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1"))
    assert "it has a password or is an old .xls workbook" in refusal(path)


@pytest.mark.parametrize("ending", [".xls", ".ods", ".txt", ".sub", ""])
def test_other_endings(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"words")
    assert "expected .xlsx, .csv, .tsv: save it as one of these" in refusal(path)


@pytest.mark.parametrize("ending", [".xlsx", ".csv"])
def test_no_file(tmp_path, ending):
    assert "cannot be read" in refusal(tmp_path / f"a{ending}")


def test_looks_of_a_workbook_give_no_warning(saved):
    def edit(name, part):
        return part.replace(b"</worksheet>", b'<extLst><ext uri="{0}"/></extLst></worksheet>')

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(saved(workbook(*ROWS), edit)) == SEGMENTS


def charted(book: openpyxl.Workbook) -> openpyxl.Workbook:
    chart = BarChart()
    chart.add_data(Reference(book.active, min_col=1, min_row=1, max_row=4))
    book.create_chartsheet("plot", 0).add_chart(chart)
    book.active = 0
    return book


def test_chart_sheet_in_front(saved):
    assert read(saved(charted(workbook(*ROWS)))) == SEGMENTS


def test_the_active_worksheet_is_read(saved):
    book = workbook((1, 72, "old"))
    sheet = book.create_sheet("new")
    for row in (HEADER, *ROWS):
        sheet.append(row)
    book.active = 1
    assert read(saved(book)) == SEGMENTS


def test_the_only_worksheet_with_the_columns_is_read(saved):
    said = []
    book = workbook(*ROWS)
    book.create_sheet("notes").append(["Narration"])
    book.active = 1
    assert read(saved(book), said=said) == SEGMENTS
    assert said == [f"{saved(book)}: read worksheet 'Sheet', the only one with the columns"]


def test_several_worksheets_with_the_columns(saved):
    book = workbook(*ROWS)
    book.create_sheet("copy").append(HEADER)
    book.create_sheet("notes")
    book.active = 2
    assert "in worksheets ['Sheet', 'copy'] and not in the active one" in refusal(saved(book))


def test_blank_rows_above_and_between(saved):
    book = openpyxl.Workbook()
    for number, row in zip((3, 4, 6, 7), (HEADER, *ROWS), strict=True):
        for column, cell in enumerate(row, start=1):
            book.active.cell(number, column, cell)
    assert read(saved(book)) == SEGMENTS
    book.active.cell(6, 1, "no TR")
    assert "row 6 of " in refusal(saved(book))


def test_empty_workbook(saved):
    assert "is empty, expected a header" in refusal(saved(openpyxl.Workbook()))


@pytest.mark.parametrize("rows", [[], [(None, None, "x")], [("n/a", "n/a", "x")]])
def test_no_row_with_times(saved, rows):
    assert "has no row with a start and an end TR" in refusal(saved(workbook(*rows)))


@pytest.mark.parametrize(
    "name",
    [
        "Scène",
        "Sce\u0300ne",
        " scène ",
        "SCÈNE",
        "\u00a0Scène\u2003",
        "\ufeffScène",
        "Sc\u00adène",
        "Ｓcène",
    ],
)
def test_names_that_are_the_same(saved, name):
    book = workbook(*ROWS, header=(*HEADER[:2], name))
    assert plain_name(name) == "scène"
    assert read(saved(book), ["Scène"]) == SEGMENTS
    assert read(saved(workbook(*ROWS, header=(*HEADER[:2], "Scène"))), [name]) == SEGMENTS


@pytest.mark.parametrize(
    "header",
    [
        ("START TIME (TRs, ...)", "end  time\n(TRs)", "Narration"),
        ("Start\u00a0Time (TRs, 1.5s)", "End Time(TRs, 1.5s)", "Narration"),
        ("Start Time （TRs，1.5s）", "End Time (TRs, 1-based)", "Narration"),
        ("Start Time (TRs, 1,5 s)", "End Time (TRs, 1500 ms)", "Narration"),
        ("Start Time (TRs, 1,500 ms)", "End Time (TRs, TR = 1.5)", "Narration"),
        ("Start Time (TRs, 1.50)", "End Time (TRs of 1.5 seconds)", "Narration"),
        ("Start Time (TRs, run 2, 1.5s)", "End Time (TRs, 2 runs)", "Narration"),
        ("Start Time (TRs, TR = 1500 ms)", "End Time (TRs, 1.5 Sekunden)", "Narration"),
    ],
)
def test_headers_that_agree_with_tr(saved, header):
    assert read(saved(workbook(*ROWS, header=header)), tr=1.5) == SEGMENTS


@pytest.mark.parametrize(
    "stated",
    [
        ", 3.0s",
        ", 3,0 s",
        ", 3000 ms",
        ", 3 sec",
        ", 2s",
        ", 1 s",
        ", 1.49 s",
        ", TR=3",
        ", 3",
        " = 2",
        " of 2",
        ", TR 2",
        ", 2 Sekunden",
        ", 0:02",
    ],
)
@pytest.mark.parametrize("edge", [0, 1])
def test_headers_of_another_tr(saved, stated, edge):
    header = list(HEADER)
    header[edge] = header[edge].replace(", 1.5s", stated)
    path = saved(workbook(*ROWS, header=header))
    assert "expected the data's TRs of 1.5 s" in refusal(path, tr=1.5)
    assert read(path) == SEGMENTS


@pytest.mark.parametrize(("stated", "tr"), [("0.67s", 2 / 3), ("1.33 s", 4 / 3), (".72 s", 0.72)])
def test_rounded_tr(saved, stated, tr):
    header = tuple(name.replace("1.5s", stated) for name in HEADER)
    assert read(saved(workbook(*ROWS, header=header)), tr=tr) == SEGMENTS


@pytest.mark.parametrize(
    "second", ["narration ", "NARRATION", "Start Time (TRs, 3s)", "end time (TRs)"]
)
def test_two_columns_of_one_name(saved, second):
    book = workbook((*ROWS[0], 1), header=(*HEADER, second))
    assert "has 2 columns " in refusal(saved(book))


@pytest.mark.parametrize("columns", [("",), ("Narration", " narration"), ("Narration", " ")])
def test_bad_text_columns(saved, columns):
    message = refusal(saved(workbook(*ROWS)), columns=columns)
    assert message.startswith(f"text_columns is {list(columns)}")


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_delimited_text(tmp_path, encoding, newline, delimiter, ending):
    rows = [HEADER, (1, 10, 'il dit "été"'), (11, 20, "a, b; c\td"), (21, 72, "two\nlines")]
    lines = [
        delimiter.join('"{}"'.format(str(cell).replace('"', '""')) for cell in row) for row in rows
    ]
    path = tmp_path / f"a{ending}"
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    assert [segment.text for segment in read(path)] == [row[2] for row in rows[1:]]


def delimited(tmp_path, text: str, ending: str = ".tsv", encoding: str = "utf-8"):
    path = tmp_path / f"a{ending}"
    path.write_bytes(text.encode(encoding))
    return path


TABBED = "\t".join(HEADER) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        TABBED + "1\t72\tx\n",
        "\n\n" + TABBED + "\n1\t72\tx",
        TABBED.replace("\n", "\t\n") + "1\t72\tx\t\n",
        TABBED + "1\t72\tx\t\t\n\t\t\n",
        TABBED + "1.0\t72.0\tx\n",
        TABBED + "1\t72\tx\nn/a\tn/a\ty\n",
        TABBED.replace("\t", ";") + "1;72;x\n",
    ],
)
def test_text_without_quotes(tmp_path, text):
    assert read(delimited(tmp_path, text)) == [Segment(0, 72, "x")]


def test_a_short_row_lacks_its_last_cells(tmp_path):
    assert read(delimited(tmp_path, TABBED + "1\t72\n")) == [Segment(0, 72, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (TABBED, "has no row with a start and an end TR"),
        (TABBED + "\n1\t72\tx\ty\n", "row 3 of .* has 4 cells, expected the 3 of the header"),
        (TABBED + '1\t10\t"x\n11\t72\ty\n', "row 2 of .*, from line 2, has a double quote"),
        (TABBED + '1\t10\t"x" y\n', "row 2 of .*, from line 2, has a double quote"),
        (TABBED + '1\t10\t"x\ny"\n\nz\t20\t\n', r"row 4 \(line 5\) of .* has 'z'"),
        (TABBED + "1,0\t10\tx\n", "row 2 of .* has '1,0'"),
        (TABBED + "1\t10\t#REF!\n", "row 2 of .* has the error #REF!"),
        (TABBED + "1\t10\tx\0\n", "holds a NUL byte in line 2"),
        ("Start;End\n1;2\n", r"has no column 'Narration', its columns are \['Start', 'End'\]"),
        ('"' + TABBED + "x" * 200_000, "row 1 of .*, from line 1, has a double quote"),
    ],
)
def test_text_that_is_refused(tmp_path, text, message):
    assert re.search(message, refusal(delimited(tmp_path, text)))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-32", "mac-roman"])
def test_other_encodings(tmp_path, encoding):
    path = delimited(tmp_path, TABBED + "1\t72\tété\n", encoding=encoding)
    assert "save it as UTF-8" in refusal(path)
