import threading

import matplotlib

from giblet.plotting.style import LOOK, styled


def settings() -> dict:
    return {name: matplotlib.rcParams[name] for name in LOOK}


def test_the_look_is_that_of_the_figure_alone():
    before = settings()
    assert before != LOOK
    assert styled(settings)() == LOOK
    assert settings() == before


def test_styled_keeps_name_and_arguments():
    @styled
    def draw(a: int, b: int = 2) -> tuple[int, int]:
        """Something."""
        return a, b

    assert draw(1, b=3) == (1, 3)
    assert (draw.__name__, draw.__doc__) == ("draw", "Something.")


def test_figures_of_several_threads_leave_the_settings_as_they_were():
    """Each has the look from its begin to its end, whoever else draws."""
    before = settings()
    seen = []

    @styled
    def draw() -> None:
        seen.append(settings())
        styled(settings)()  # figures may be made of others
        seen.append(settings())

    threads = [threading.Thread(target=lambda: [draw() for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert all(look == LOOK for look in seen)
    assert settings() == before
