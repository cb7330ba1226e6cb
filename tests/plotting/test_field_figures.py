import numpy as np

from giblet.plotting.fields import plot_fields


def test_fields_are_centred_on_0_and_marked(rng):
    maps = {"planted": rng.random((9, 16)), "Jacobian": -1e-3 * rng.random((9, 16))}
    figure = plot_fields(maps, "SIMULATED data: one voxel", field=(11.0, 4.0, 2.5))
    for ax, (name, values) in zip(figure.axes, maps.items(), strict=True):
        limit = np.abs(values).max()
        assert ax.get_title() == name
        assert np.array_equal(ax.images[0].get_array(), values)
        assert ax.images[0].get_clim() == (-limit, limit)
        assert ax.lines[0].get_xydata().tolist() == [[11, 4]]
        assert (ax.patches[0].center, ax.patches[0].radius) == ((11, 4), 2.5)
    assert figure.get_suptitle() == "SIMULATED data: one voxel"


def test_five_fields_take_two_lines():
    figure = plot_fields({name: np.eye(3) for name in "abcde"})
    assert len(figure.axes) == 8
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert not figure.axes[0].patches
