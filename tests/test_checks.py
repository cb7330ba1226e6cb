import pytest

from giblet.checks import check, check_bounds


def test_prints_what_was_expected(capsys):
    check("r", got=0.48, want=0.5, atol=0.1)
    check("r", got=0.4012, want=0.5, atol=0.1)
    assert capsys.readouterr().out == "r: 0.5 (+/- 0.1, without effect 0)\n" * 2


@pytest.mark.parametrize("got", [0.39, 0.61, float("nan")])
def test_fails_outside_the_tolerance(got):
    with pytest.raises(AssertionError, match=r"r: got .*, want 0\.5 \+/- 0\.1"):
        check("r", got, want=0.5, atol=0.1)


@pytest.mark.parametrize("got", [float("-inf"), float("nan")])
def test_silence_is_not_within_any_tolerance(got, capsys):
    check("decibels", -25, want=-27, atol=5, null=float("-inf"))
    assert capsys.readouterr().out == "decibels: -27 (+/- 5, without effect -inf)\n"
    with pytest.raises(AssertionError, match=r"decibels: got .*, want -27 \+/- 5"):
        check("decibels", got, want=-27, atol=5, null=float("-inf"))


def test_refuses_a_tolerance_that_reaches_the_null():
    with pytest.raises(ValueError, match=r"atol of 'loss' is 0\.6, expected at most half of \|3 - 4\|"):
        check("loss", got=3, want=3, atol=0.6, null=4)


def test_bounds(capsys):
    check_bounds("z", 4.2, above=3)
    check_bounds("z", 0.2, above=-3, below=3)
    assert capsys.readouterr().out == "z: above 3\nz: above -3 and below 3\n"
    for value in (2.9, float("nan")):
        with pytest.raises(AssertionError, match=r"z: got .*, want above 3"):
            check_bounds("z", value, above=3)


def test_real_data_is_printed_as_it_came_out(capsys):
    check("r", got=0.01234, want=0.5, atol=0.1, planted=False)
    check_bounds("z", 0.5, above=3, planted=False)
    assert capsys.readouterr().out == "r: 0.0123\nz: 0.5\n"
