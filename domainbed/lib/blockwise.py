"""Rules that look at each component of K gradients by itself, applied while the gradients are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from domainbed.lib.parameter_gradients import ParameterGradients

Pick = Callable[[Tensor], Tensor]
"""The components (m,) that a block has, of any vector (P,)."""

Rule = Callable[[Tensor, Pick], tuple[Tensor, Tensor]]
"""Of K gradients (K, m) of some components, which are its to overwrite, a rule makes the combined gradient
(m,) and a second vector (m,) to be measured with it."""

Measure = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Numbers (0-d) to be added up, of the combined gradient and the second vector in one parameter tensor."""


class Blockwise:
    """Visits parameters' gradients and writes what a rule makes of them; none is ever there as a whole.

    Args:
        parameters: in the order of the combined gradient.
        gradient: where it is written (P,).
        rule, measure: see there.
        numbers: how many `measure` gives.

    Attributes:
        measured: type of those numbers.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        gradient: Tensor,
        rule: Rule,
        measure: Measure,
        numbers: int,
    ) -> None:
        self.gradient = gradient
        self.measured = gradient.dtype
        self._sizes = [parameter.numel() for parameter in parameters]
        self._starts = [0, *accumulate(self._sizes)]
        self._rule, self._measure, self._width = rule, measure, numbers
        self._found: list[tuple[int, Tensor]] = []

    def __call__(self, positions: Sequence[int], gradients: ParameterGradients) -> None:
        for start, stack in gradients.blocks():
            parts = self._parts(positions, start, stack.shape[1])
            combined, second = self._rule(stack, partial(_picked, parts))
            sizes = [part.stop - part.start for part in parts]
            split = zip(positions, parts, combined.split(sizes), second.split(sizes), strict=True)
            for position, part, values, others in split:
                self.gradient[part] = values
                self._found += [(position, number) for number in self._measure(values, others)]
        self.measured = self._found[-1][1].dtype if self._found else self.measured

    def _parts(self, positions: Sequence[int], start: int, length: int) -> list[slice]:
        """Where in (P,) the components from `start` on lie: all of several parameters, or some of one."""
        if len(positions) > 1:
            return [slice(self._starts[i], self._starts[i] + self._sizes[i]) for i in positions]
        start += self._starts[positions[0]]
        return [slice(start, start + length)]

    def finish(self) -> Tensor:
        """The numbers added up for each parameter tensor: (number of tensors, `numbers`) float64.

        The combined gradient is 0 for parameters that were not visited.
        """
        sums = self.gradient.new_zeros(len(self._sizes), self._width, dtype=torch.float64)
        if self._found:
            positions = torch.tensor([position for position, _ in self._found[:: self._width]])
            numbers = torch.stack([number for _, number in self._found]).double().view(-1, self._width)
            sums.index_add_(0, positions.to(sums.device), numbers)
        for position in set(range(len(self._sizes))) - {position for position, _ in self._found}:
            start = self._starts[position]
            self.gradient[start : start + self._sizes[position]] = 0
        return sums


def _picked(parts: Sequence[slice], vector: Tensor) -> Tensor:
    return vector[parts[0]] if len(parts) == 1 else torch.cat([vector[part] for part in parts])
