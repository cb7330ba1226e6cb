"""Numbers in notebooks that hold on every machine."""

import math


def check(name: str, got: float, want: float, atol: float, null: float = 0.0, planted: bool = True) -> None:
    """Assert a planted result, then print the expected value, so that stored outputs do not drift.

    Parameters
    ----------
    got, want : float
        The result, and what is expected within `atol`.
    null : float
        What would be expected if nothing were planted; the tolerance must exclude it.
    planted : bool
        False on real data: then nothing is asserted and what came out is printed.

    Raises
    ------
    AssertionError
        If the result is not within the tolerance.
    ValueError
        If the tolerance is more than half of |want - null|: such a check could pass without the effect.
    """
    if not planted:
        print(f"{name}: {got:.3g}")
        return
    if atol > abs(want - null) / 2:
        raise ValueError(f"atol of {name!r} is {atol}, expected at most half of |{want} - {null}|.")
    if not abs(got - want) <= atol:
        raise AssertionError(f"{name}: got {got:.4g}, want {want:.4g} +/- {atol:.2g}")
    print(f"{name}: {want:g} (+/- {atol:g}, without effect {null:g})")


def check_bounds(
    name: str, got: float, above: float = -math.inf, below: float = math.inf, planted: bool = True
) -> None:
    """Assert that a score lies between two bounds, then print them; on real data print what came out."""
    if not planted:
        print(f"{name}: {got:.3g}")
        return
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"below {below:g}"] * (below < math.inf)
    if not above < got < below:
        raise AssertionError(f"{name}: got {got:.4g}, want {' and '.join(bounds)}")
    print(f"{name}: {' and '.join(bounds)}")
