import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from giblet.checks import OTHER_DATA, Checks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def checks(monkeypatch) -> Checks:
    for name in OTHER_DATA:
        monkeypatch.delenv(name, raising=False)
    return Checks()


def test_prints_the_result_and_what_was_expected(checks, capsys):
    checks.number("r", got=0.48, want=0.5, atol=0.1)
    checks.bounds("z", 4.2, above=3)
    checks.bounds("z", 0.2, above=-3, below=3)
    assert capsys.readouterr().out == (
        "r: 0.48 (expected 0.5 +/- 0.1, without effect 0)\nz: 4.2 (expected above 3)\nz: 0.2 "
        "(expected above -3 and below 3)\n"
    )


def test_only_the_result_is_hidden_from_strict_comparison(checks, capsys):
    """The same text on every machine, unless another number is expected or nothing is enforced."""
    settings = ConfigParser()
    settings.read(NOTEBOOKS / "sanitize.cfg")
    for each in (checks, Checks(unedited=False)):
        each.bounds("r: it", got=-1e-7, below=3)
        each.bounds("r: it", got=2.5, below=3)
    printed = capsys.readouterr().out
    hidden = re.sub(
        settings["result"]["regex"], settings["result"]["replace"], printed
    ).splitlines()
    assert hidden[0] == hidden[1] == "r: it: RESULT (expected below 3)"
    assert hidden[2:] == printed.splitlines()[2:]


@pytest.mark.parametrize("got", [0.39, 0.61, float("nan")])
def test_fails_outside_the_tolerance(checks, got):
    with pytest.raises(AssertionError, match=r"r: got .*, want 0\.5 \+/- 0\.1"):
        checks.number("r", got, want=0.5, atol=0.1)


@pytest.mark.parametrize("got", [2.9, float("nan")])
def test_fails_outside_the_bounds(checks, got):
    with pytest.raises(AssertionError, match=r"z: got .*, want above 3"):
        checks.bounds("z", got, above=3)


@pytest.mark.parametrize("got", [float("-inf"), float("nan")])
def test_silence_is_not_within_any_tolerance(checks, got, capsys):
    checks.number("decibels", -25, want=-27, atol=5, null=float("-inf"))
    assert capsys.readouterr().out == "decibels: -25 (expected -27 +/- 5, without effect -inf)\n"
    with pytest.raises(AssertionError, match=r"decibels: got .*, want -27 \+/- 5"):
        checks.number("decibels", got, want=-27, atol=5, null=float("-inf"))


def test_refuses_a_tolerance_that_reaches_the_null(checks):
    with pytest.raises(
        ValueError, match=r"atol of 'loss' is 0\.6, expected at most half of \|3 - 4\|"
    ):
        checks.number("loss", got=3, want=3, atol=0.6, null=4)


def test_edited_settings_and_other_data_raise_nothing(monkeypatch, capsys):
    given = [Checks(unedited=False)]
    for name in OTHER_DATA:
        monkeypatch.setenv(name, "somewhere")
        given.append(Checks())
        monkeypatch.delenv(name)
    for each in given:
        each.number("r", got=0.1, want=0.5, atol=0.1)
        each.bounds("z", 0.1, above=3)
    expected = "r: 0.1 (unedited notebook: 0.5 +/- 0.1, without effect 0)\n"
    expected += "z: 0.1 (unedited notebook: above 3)\n"
    assert capsys.readouterr().out == expected * 3


def test_real_data_is_printed_as_it_came_out(capsys):
    checks = Checks(simulated=False)
    checks.number("r", got=0.01234, want=None, atol=0.1)
    checks.bounds("z", 0.5, above=3)
    assert capsys.readouterr().out == "r: 0.0123\nz: 0.5\n"
