"""Arithmetic of dictionaries of tensors, such as state dicts."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Operand = float | Mapping[str, Tensor]


class ParamDict(OrderedDict[str, Tensor]):
    """A dictionary of tensors that can be added, subtracted, multiplied and divided entry by entry.

    The other operand is a number, or a dictionary with at least the keys of the left one, which are the
    result's.
    """

    def _each(self, other: Operand, operation: Callable[[Any, Any], Tensor]) -> ParamDict:
        if isinstance(other, Mapping):
            return ParamDict((key, operation(value, other[key])) for key, value in self.items())
        return ParamDict((key, operation(value, other)) for key, value in self.items())

    def __add__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.add)

    def __sub__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.sub)

    def __mul__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.mul)

    def __truediv__(self, other: Operand) -> ParamDict:
        return self._each(other, operator.truediv)

    def __neg__(self) -> ParamDict:
        return self * -1

    def __rsub__(self, other: float) -> ParamDict:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def l2_between_dicts(d1: Mapping[str, Tensor], d2: Mapping[str, Tensor]) -> Tensor:
    """Mean squared difference over all entries of two dictionaries of tensors with the same keys; 0-d."""
    assert len(d1) == len(d2), f"dictionaries of {len(d1)} and {len(d2)} tensors"
    differences = [(d1[key] - d2[key]).flatten() for key in sorted(d1)]
    return torch.cat(differences).square().mean()
