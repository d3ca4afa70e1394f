"""The figure of the losses along random directions."""

import numpy as np
import pytest

from domainbed_gs.sharpness.figure import COLUMNS, curves_figure, page_panels
from domainbed_gs.sharpness.settings import POOLED, SOURCE

CURVE = np.array([-0.5, 0.0, 0.5]), np.array([1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("methods", "across", "down"), [(1, 1, 1), (COLUMNS, COLUMNS, 1), (COLUMNS + 3, COLUMNS, 2)]
)
def test_methods_have_panels_in_rows_of_four(methods, across, down):
    pytest.importorskip("matplotlib")
    names = [f"method {number}" for number in range(methods)]
    figure = curves_figure({name: {(POOLED, ""): CURVE, (SOURCE, "a"): CURVE} for name in names}, "title")
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (down, across)
    drawn = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in drawn] == names
    assert len({axis.get_ylim() for axis in drawn}) == 1
    # Every column says what its axis is, and one panel or an empty place explains the lines.
    assert [bool(axis.get_xlabel()) for axis in drawn] == [n >= methods - across for n in range(methods)]
    assert sum(axis.get_legend() is not None for axis in figure.axes) == 1


def test_curves_that_are_not_finite_are_drawn_as_nothing():
    pytest.importorskip("matplotlib")
    lost = {"ERM": {(POOLED, ""): (CURVE[0], np.full(3, np.nan))}}
    for figure in (curves_figure(lost, "title"), page_panels(lost)[0][1]):
        figure.canvas.draw()
        assert np.isfinite(figure.axes[0].get_ylim()).all()
