"""A forest plot whose rows are separate inline SVGs: one strip in each row of a table.

Horizontal positions are percentages, so a strip is as wide as its cell. Colours come from the classes in
`assets/first_screen.css`. All numbers are in the unit of the axis (percentage points for accuracies).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from domainbed.escaping import html_escape
from domainbed_gs.report.cells import Interval

MOST_STEPS = 6
"""Number of tick intervals that an axis has at most."""

OUTLIER = 3.0
"""A row that reaches this many times as far as the median row does not widen the axis."""

MARGIN = 1.6
"""Thin intervals and small marks widen the axis up to this many times the reach of the thick intervals."""

UNBOUNDED = (-math.inf, math.inf)
"""The interval of trials that are too few to bound anything."""


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot.

    Attributes:
        label: name of the row.
        centre: position of the dot; None for a row without numbers.
        interval: the thick interval; None if it is unknown.
        wide_interval: the thin interval; None if it is unknown.
        marks: (name, position) of the small marks.
        style: CSS class that sets the colour.
        digits: digits after the decimal point of its numbers.
    """

    label: str
    centre: float | None
    interval: Interval | None = None
    wide_interval: Interval | None = None
    marks: tuple[tuple[str, float], ...] = ()
    style: str = ""
    digits: int = 1

    @property
    def reach(self) -> float:
        """Largest finite distance from 0 of the dot and the thick interval."""
        return max((abs(value) for value in self.thick if math.isfinite(value)), default=0.0)

    @property
    def thick(self) -> list[float]:
        """Positions of the dot and of the ends of the thick interval."""
        return [] if self.centre is None else [self.centre, *(self.interval or ())]


@dataclass(frozen=True)
class Axis:
    """An axis from `low` < 0 to `high` > 0 with ticks at the multiples of `step`."""

    low: float
    high: float
    step: float

    @property
    def ticks(self) -> list[float]:
        """Positions of the ticks, in ascending order."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [i * self.step for i in range(first, last + 1)]

    def contains(self, value: float) -> bool:
        """Whether `value` is on the axis."""
        return self.side(value) == 0

    def side(self, value: float) -> int:
        """-1 or 1 if `value` is beyond the left or right end, else 0."""
        return (value > self.high) - (value < self.low)

    def percent(self, value: float) -> float:
        """Position of `value` in % of the width; that of the nearer end if it is outside."""
        clipped = min(max(value, self.low), self.high)
        return 100 * (clipped - self.low) / (self.high - self.low)


def axis_for(rows: Sequence[ForestRow], rope: float) -> Axis:
    """The axis of `rows`: it contains 0, the rope, and all but far outlying rows.

    Args:
        rows: the rows, of all datasets.
        rope: half width of the shaded band.
    """
    reaches = [row.reach for row in rows if row.centre is not None]
    most = max(OUTLIER * median(reaches), 2 * rope) if reaches else 0.0
    shown = [row for row in rows if row.reach <= most]
    room = max(MARGIN * max((row.reach for row in shown), default=0.0), 2 * rope) or 1.0
    values = [-1.5 * rope, 1.5 * rope]
    for row in shown:
        values += [*row.thick, *(row.wide_interval or ())]
        values += [position for _, position in row.marks]
    inside = [value for value in values if abs(value) <= room]
    low, high = min([*inside, -room / 4]), max([*inside, room / 4])
    step = _tick_step(high - low)
    return Axis(-_round_up(-low, step / 2), _round_up(high, step / 2), step)


def strip(row: ForestRow, axis: Axis, rope: float) -> str:
    """The SVG of one row. It fills its cell, which has to be positioned."""
    low, high = axis.percent(-rope), axis.percent(rope)
    shapes = [f'<rect class="rope" x="{low:.2f}%" width="{high - low:.2f}%" height="100%"/>'] if rope else []
    shapes += [_upright("grid" if tick else "zero", axis.percent(tick)) for tick in axis.ticks]
    drawn = "".join([*_shapes(row, axis)])
    return (
        f'<svg class="strip" role="img" aria-label="{html_escape(description(row))}">{"".join(shapes)}'
        f'<svg y="50%" class="{row.style}" overflow="visible">{drawn}</svg></svg>'
    )


def axis_labels(axis: Axis, left: str, right: str) -> str:
    """HTML of the labels above the strips: what each direction means, and the ticks."""
    ticks = "".join(
        f'<span style="left:{axis.percent(tick):.2f}%">{number(tick, _decimals(axis.step), zero="0")}</span>'
        for tick in axis.ticks
        if 2 < axis.percent(tick) < 98
    )
    return (
        f'<span class="ends"><span>◀ {html_escape(left)}</span> <span>{html_escape(right)} ▶</span></span>'
        f'<span class="ticks" aria-hidden="true">{ticks}</span>'
    )


def description(row: ForestRow) -> str:
    """What the strip shows, in words, for screen readers."""
    if row.centre is None:
        return f"{row.label}: no shared trials"
    parts = [f"{row.label}: {number(row.centre, row.digits)}"]
    for name, interval in (("95 % interval", row.interval), ("simultaneous interval", row.wide_interval)):
        if interval is not None:
            parts.append(f"{name} {interval_text(interval, row.digits)}")
    parts += [f"{name} {number(position, row.digits)}" for name, position in row.marks]
    return ", ".join(parts)


def number(value: float, decimals: int = 1, zero: str | None = None) -> str:
    """`value` with its sign, which is that of the value before rounding: -0.01 is "−0.0".

    Args:
        value: the number.
        decimals: digits after the point.
        zero: text for 0; by default 0 with `decimals` digits and no sign.
    """
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return zero if zero is not None and not sign else f"{sign}{abs(value):.{decimals}f}"


def interval_text(interval: Interval, digits: int = 1) -> str:
    """An interval such as "−0.5 to +1.7"; an infinite end is "unbounded"."""
    if interval == UNBOUNDED:
        return "unbounded"
    return " to ".join("unbounded" if math.isinf(end) else number(end, digits) for end in interval)


def _shapes(row: ForestRow, axis: Axis) -> Iterator[str]:
    """The intervals, marks and dot of a row; an arrow at the border for what is outside the axis."""
    for style, interval in (("thin", row.wide_interval), ("thick", row.interval)):
        if interval is None or (interval == UNBOUNDED and style == "thick"):
            continue  # a thick line from border to border would look like much evidence
        if interval[0] <= axis.high and interval[1] >= axis.low:
            start, end = (axis.percent(value) for value in interval)
            dashes = " open" if interval == UNBOUNDED else ""
            yield f'<line class="{style}{dashes}" x1="{start:.2f}%" x2="{end:.2f}%"/>'
            yield from (_arrow(axis, value, style) for value in interval if not axis.contains(value))
    for name, position in row.marks:
        title = f"<title>{html_escape(f'{name} {number(position, row.digits)}')}</title>"
        if axis.contains(position):
            place = f'x1="{axis.percent(position):.2f}%" x2="{axis.percent(position):.2f}%"'
            yield f'<line class="mark" {place} y1="-6" y2="6">{title}</line>'
        elif row.centre is None or axis.side(position) != axis.side(row.centre):
            yield _arrow(axis, position, "mark", title)
    if row.centre is None:
        return
    if axis.contains(row.centre):
        yield f'<circle cx="{axis.percent(row.centre):.2f}%" r="4.5"/>'
    else:
        yield _arrow(axis, row.centre, "dot")


def _arrow(axis: Axis, value: float, style: str, title: str = "") -> str:
    """A triangle at the border beyond which `value` lies, larger for a "dot"."""
    length, half = (8, 6) if style == "dot" else (4, 3.5)
    x, tip, base = ("100%", -1, -1 - length) if value > axis.high else ("0", 1, 1 + length)
    shape = f'<path class="arrow {style}" d="M{tip} 0L{base} {-half}V{half}Z">{title}</path>'
    return f'<svg x="{x}" overflow="visible">{shape}</svg>'


def _upright(style: str, percent: float) -> str:
    return f'<line class="{style}" x1="{percent:.2f}%" x2="{percent:.2f}%" y2="100%"/>'


def _tick_step(span: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides `span` into at most `MOST_STEPS` steps."""
    power = 10.0 ** math.floor(math.log10(span / MOST_STEPS))
    return next(
        power * factor for factor in (1, 2, 5, 10) if span <= MOST_STEPS * power * factor * (1 + 1e-9)
    )


def _round_up(value: float, unit: float) -> float:
    return math.ceil(value / unit - 1e-9) * unit


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))
