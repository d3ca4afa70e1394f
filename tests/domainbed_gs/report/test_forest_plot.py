"""The forest plot: its axis, and what its strips show."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.report.forest_plot import (
    MOST_STEPS,
    OUTLIER,
    UNBOUNDED,
    Axis,
    ForestRow,
    axis_for,
    axis_labels,
    interval_text,
    number,
    strip,
)

points = st.floats(-60, 60).map(lambda value: round(value, 3))


@st.composite
def forest_rows(draw):
    low, centre, high = sorted(draw(st.tuples(points, points, points)))
    wide = draw(st.sampled_from([None, UNBOUNDED, (low - 1, high + 1), (low - 50, math.inf)]))
    marks = tuple((f"env{i}", mark) for i, mark in enumerate(draw(st.lists(points, max_size=4))))
    return ForestRow("AgrSum", centre, draw(st.sampled_from([None, UNBOUNDED, (low, high)])), wide, marks)


@given(st.lists(forest_rows(), max_size=8), st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_an_axis_contains_zero_the_rope_and_all_but_outliers(rows, rope):
    axis = axis_for(rows, rope)
    assert axis.low < 0 < axis.high
    assert 1 <= len(axis.ticks) <= MOST_STEPS + 3
    assert 0 in axis.ticks
    assert axis.contains(rope)
    assert axis.contains(-rope)
    reaches = sorted(row.reach for row in rows)
    for row in rows:
        if row.reach <= reaches[len(rows) // 2]:  # no outlier, whatever its factor
            assert all(
                axis.contains(end) for end in (row.centre, *(row.interval or ())) if math.isfinite(end)
            )
        for place in (row.centre, *(row.wide_interval or ())):
            assert 0 <= axis.percent(place) <= 100


@given(st.lists(forest_rows(), min_size=1, max_size=4))
def test_strips_are_well_formed_and_draw_nothing_outside(rows):
    axis = axis_for(rows, 1.0)
    for row in rows:
        drawn = ElementTree.fromstring(strip(row, axis, 1.0))
        places = [element.get(name) for element in drawn.iter() for name in ("x", "x1", "x2", "cx", "width")]
        shares = [float(place.removesuffix("%")) for place in places if place is not None]
        assert all(0 <= share <= 100 for share in shares)
        dots, arrows = drawn.findall(".//circle"), drawn.findall(".//path[@class='arrow dot']")
        assert len(dots) + len(arrows) == 1
        assert bool(dots) == axis.contains(row.centre)
        assert len(drawn.findall(".//title")) == sum(
            axis.contains(mark) or axis.side(mark) != axis.side(row.centre) for _, mark in row.marks
        )


def test_a_far_outlier_does_not_widen_the_axis():
    rows = [ForestRow(f"m{i}", 0.2 * i, (0.2 * i - 1, 0.2 * i + 1)) for i in range(5)]
    far = ForestRow("IRM", -8.3, (-9.2, -7.3), (-9.6, -6.7))
    axis = axis_for([*rows, far], rope=1.0)
    assert axis == axis_for(rows, rope=1.0) == Axis(-1.5, 2.0, 1.0)
    assert far.reach > OUTLIER * 1.4  # that of the median row
    assert 'x="0"' in strip(far, axis, 1.0)


def test_an_unbounded_interval_is_a_thin_dashed_line():
    row = ForestRow("AgrSum", 0.5, UNBOUNDED, UNBOUNDED)
    drawn = ElementTree.fromstring(strip(row, Axis(-2.0, 2.0, 1.0), 1.0))
    assert [line.get("class") for line in drawn.findall("./svg/line")] == ["thin open"]


def test_a_row_without_numbers_is_empty():
    row = ForestRow("IRM", None)
    assert axis_for([row], rope=1.0) == Axis(-1.5, 1.5, 0.5)
    drawn = ElementTree.fromstring(strip(row, Axis(-1.5, 1.5, 0.5), 1.0))
    assert len(drawn.find("./svg")) == 0
    assert drawn.get("aria-label") == "IRM: no shared trials"


def test_a_row_draws_its_intervals_to_scale():
    axis = Axis(-2.0, 2.0, 1.0)
    row = ForestRow("AgrSum", 0.5, (0.0, 1.0), (-math.inf, 2.0), (("Flat", -1.0), ("Line", 3.0)), "better")
    drawn = ElementTree.fromstring(strip(row, axis, 1.0))
    found = {line.get("class"): (line.get("x1"), line.get("x2")) for line in drawn.findall("./svg/line")}
    assert found == {
        "thin": ("0.00%", "100.00%"),
        "thick": ("50.00%", "75.00%"),
        "mark": ("25.00%", "25.00%"),
    }
    assert drawn.find(".//circle").get("cx") == "62.50%"
    assert [(each.get("x"), each[0].get("class")) for each in drawn.findall("./svg/svg")] == [
        ("0", "arrow thin"),
        ("100%", "arrow mark"),
    ]
    assert drawn.get("aria-label") == (
        "AgrSum: +0.5, 95 % interval 0.0 to +1.0, simultaneous interval unbounded to +2.0, "
        "Flat −1.0, Line +3.0"
    )


def test_the_labels_of_the_axis():
    labels = axis_labels(Axis(-0.75, 1.0, 0.5), "A & B better", "method better")
    assert re.findall(r"left:([\d.]+)%\">([^<]+)", labels) == [
        ("14.29", "−0.5"),
        ("42.86", "0"),
        ("71.43", "+0.5"),
    ]
    assert "◀ A &amp; B better" in labels


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (0.04, "+0.0"), (-0.04, "−0.0"), (1.26, "+1.3"), (-12.0, "−12.0")]
)
def test_a_rounded_number_keeps_its_sign(value, text):
    assert number(value) == text


def test_unbounded_intervals():
    assert interval_text((-math.inf, 1.25)) == "unbounded to +1.2"
    assert interval_text((-0.5, math.inf)) == "−0.5 to unbounded"
    assert interval_text(UNBOUNDED) == "unbounded"
