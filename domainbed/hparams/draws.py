"""Random draws of a hyper-parameter's value, each with its distribution in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Value = bool | int | float | str
Draw = Callable[[np.random.RandomState], Value]


@dataclass(frozen=True)
class Constant:
    """A draw that always gives `value`."""

    value: Value

    def __call__(self, r: np.random.RandomState) -> Value:
        return self.value


@dataclass(frozen=True)
class Described:
    """A draw, and its distribution in words.

    Attributes:
        draw: the draw.
        words: the distribution, such as "U(0, 1)".
    """

    draw: Draw
    words: str

    def __call__(self, r: np.random.RandomState) -> Value:
        return self.draw(r)


def const(value: Value) -> Draw:
    """`value`, without a draw."""
    return Constant(value)


def uniform(low: float, high: float) -> Draw:
    """U(low, high)."""
    return Described(lambda r: float(r.uniform(low, high)), f"U({low:g}, {high:g})")


def uniform_int(low: float, high: float) -> Draw:
    """U(low, high), truncated toward zero."""
    return Described(lambda r: int(r.uniform(low, high)), f"U({low:g}, {high:g}), truncated")


def log10_uniform(low: float, high: float) -> Draw:
    """10^U(low, high)."""
    return Described(lambda r: float(10 ** r.uniform(low, high)), f"10^U({low:g}, {high:g})")


def log10_int(low: float, high: float) -> Draw:
    """10^U(low, high), truncated toward zero."""
    return Described(lambda r: int(10 ** r.uniform(low, high)), f"10^U({low:g}, {high:g}), truncated")


def log2_int(low: float, high: float) -> Draw:
    """2^U(low, high), truncated toward zero."""
    return Described(lambda r: int(2 ** r.uniform(low, high)), f"2^U({low:g}, {high:g}), truncated")


def choice(*values: Value) -> Draw:
    """One of `values`, all equally likely. NumPy converts them to one type."""

    def draw(r: np.random.RandomState) -> Value:
        picked: Value = r.choice(list(values)).item()
        return picked

    return Described(draw, f"one of {', '.join(map(str, values))}")
