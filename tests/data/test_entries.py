"""Entries of dataset.toml: each kind of wrong value is refused by its name."""

import pytest
from folders import N_TRS, refused, write_folder

from giblet.data import DataFolder

BAD = {
    "tr": ['"1.5"', "0", "-1.5", "1500", "nan", "inf", "true", "[1.5]", "2026-01-01"],
    "lag_trs": ["-2", "4.5", "true", '"3"', "8", "nan"],
    "movies": ['"film.mp4"', "[]", "[1]", '[""]', "{a = 1}", '["."]'],
    "fmri": ['["*.nii.gz"]', '""', '" "', "3", '"."', '"*"', '"/"'],
    "run_trs": ["8", "[8.0]", "[]", "[-8]", "[0, 8]", "[7]", "[4, 5]", "[true]", "[[8]]"],
    "skip_trs": ["5", "[-3]", "[]", "[0, 0]", "[8]", "[1.0]"],
    "subjects": ['"sub-01"', "[]", '["sub-01", "sub-01"]', '["sub-03"]', "[1]"],
    "context": ["2", "[2]", "[-1, 0]", "[1.0, 0]", "[0, 0, 0]", "[8, 0]"],
    "test_runs": ["[1]", "[0]", "[-1]", "0", "[0, 0]", "[true]"],
    "mask": ["3", '["a"]', '""', '"."'],
    "regions": ["3", '["a"]', '""', '"."'],
    "simulation": ["true", '"yes"', "[]"],
}


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in BAD for value in BAD[n]])
def test_every_entry_has_a_type_and_a_range(tmp_path, name, value):
    refused(write_folder(tmp_path, **{name: value}), name, "dataset.toml", "expected")


@pytest.mark.parametrize(
    ("name", "value", "partner"),
    [
        *(("text_columns", value, "annotations") for value in ('"N"', "[]", '["N", "N"]', "[3]")),
        *(("annotations", value, "text_columns") for value in ("3", '""', "[]", '["a", 3]')),
        *(("region_names", value, "regions") for value in ("3", "[]", "[1]", '""')),
    ],
)
def test_entries_that_come_in_pairs(tmp_path, name, value, partner):
    given = {name: value, partner: '["N"]' if partner == "text_columns" else '"film.mp4"'}
    refused(write_folder(tmp_path, **given), f"{name} in ", "dataset.toml", "expected")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("test_run", "test_runs"), ("movie", "movies"), ("Context", "context"), ("skips_tr", None)],
)
def test_names_of_entries_that_are_close(tmp_path, wrong, right):
    refused(write_folder(tmp_path, **{wrong: "[1]"}), f"write {right or 'skip_trs'} for {wrong}")


def test_entries_in_the_wrong_place(tmp_path):
    folder = write_folder(tmp_path)
    with (folder / "dataset.toml").open("a") as file:
        file.write("[simulation]\nrandom_state = 0\ncontext = [1, 0]\n")
    refused(folder, "dataset.toml has context below [simulation], where it is not read")


def test_an_entry_twice(tmp_path):
    folder = write_folder(tmp_path)
    with (folder / "dataset.toml").open("a") as file:
        file.write("tr = 2.0\n")
    refused(folder, "dataset.toml is not valid TOML: Cannot overwrite a value (at line 5")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_encodings_that_are_read(tmp_path, encoding):
    folder = write_folder(tmp_path)
    text = "# Größe\r\n" + (folder / "dataset.toml").read_text().replace("\n", "\r\n")
    (folder / "dataset.toml").write_bytes(text.encode(encoding))
    assert DataFolder.open(folder).run_trs == (N_TRS,)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_encodings_that_are_refused(tmp_path, encoding):
    folder = write_folder(tmp_path)
    text = "# Größe\n" + (folder / "dataset.toml").read_text()
    (folder / "dataset.toml").write_bytes(text.encode(encoding))
    refused(folder, "dataset.toml", "expected UTF-8: save it as UTF-8")


def test_description_that_is_no_file(tmp_path):
    (tmp_path / "dataset.toml").mkdir()
    refused(tmp_path, "dataset.toml cannot be read as a text file (Is a directory)")
