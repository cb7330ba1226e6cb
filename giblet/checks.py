"""Numbers in notebooks beside what is expected of them, which hold on every machine."""

import math
import os

OTHER_DATA = ("GIBLET_DATA", "GIBLET_RUN")  # where they are set, the numbers are not the notebook's


class Checks:
    """Print results next to what is expected of them, and enforce it where that is known.

    On the kit's simulated data and with unedited settings a number outside its tolerance is an
    error. With edited settings or another simulated data set the expected value is printed for
    comparison, and on real data the result alone.

    Parameters
    ----------
    simulated : bool
        The data are simulated.
    unedited : bool
        The settings are those that the expected values belong to.
    """

    def __init__(self, simulated: bool = True, unedited: bool = True):
        given = any(name in os.environ for name in OTHER_DATA)
        self.simulated = simulated
        self.enforced = simulated and unedited and not given

    def number(self, name: str, got: float, want: float, atol: float, null: float = 0.0) -> None:
        """A result that is expected within a tolerance.

        Parameters
        ----------
        got, want : float
            The result, and what is expected within `atol`.
        null : float
            What would be expected if nothing were planted; the tolerance must exclude it.

        Raises
        ------
        AssertionError
            If the result is not within the tolerance, and that is enforced.
        ValueError
            If the tolerance is more than half of |want - null|: such a check could pass without the
            effect.
        """
        if self.enforced:
            if atol > abs(want - null) / 2:
                raise ValueError(
                    f"atol of {name!r} is {atol}, expected at most half of |{want} - {null}|."
                )
            if not abs(got - want) <= atol:
                raise AssertionError(f"{name}: got {got:.4g}, want {want:.4g} +/- {atol:.2g}")
        self._print(
            name, got, f"{want:g} +/- {atol:g}, without effect {null:g}" if self.simulated else ""
        )

    def bounds(
        self, name: str, got: float, above: float = -math.inf, below: float = math.inf
    ) -> None:
        """A result that is expected between two bounds.

        Raises
        ------
        AssertionError
            If it does not lie between them, and that is enforced.
        """
        bounds = [f"above {above:g}"] * (above > -math.inf) + [f"below {below:g}"] * (
            below < math.inf
        )
        if self.enforced and not above < got < below:
            raise AssertionError(f"{name}: got {got:.4g}, want {' and '.join(bounds)}")
        self._print(name, got, " and ".join(bounds) if self.simulated else "")

    def _print(self, name: str, got: float, expected: str) -> None:
        """`notebooks/sanitize.cfg` hides the number where what is expected of it is enforced."""
        if not expected:
            print(f"{name}: {got:.3g}")
        elif self.enforced:
            print(f"{name}: {got:.3g} (expected {expected})")
        else:
            print(f"{name}: {got:.3g} (unedited notebook: {expected})")
