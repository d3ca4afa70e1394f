"""Rules that look at each component of K gradients by itself, applied while the gradients are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from domainbed.gradients.fused import fused
from domainbed.gradients.parameter_gradients import ParameterGradients

_FUSED_FROM = 2**16  # components of a block


@dataclass(frozen=True)
class Rule:
    """What becomes of K gradients, component by component.

    Attributes:
        combine: makes of K gradients (m,) of some components, of `constants`, and of those components of the
            vectors that belong to the rule: the combined gradient (m,), and a second vector (m,) to be
            measured with it.
        measure: makes of these two numbers (0-d) to be added up.
        numbers: how many.
        constants: further arguments.
    """

    combine: Callable[..., tuple[Tensor, Tensor]]
    measure: Callable[[Tensor, Tensor], Sequence[Tensor]]
    numbers: int
    constants: tuple[float, ...] = ()

    def __call__(
        self, gradients: Sequence[Tensor], vectors: Sequence[Tensor], out: Tensor
    ) -> tuple[Tensor, ...]:
        """Write the combined gradient into `out` (m,); returns the numbers."""
        combined, second = self.combine(gradients, *self.constants, *vectors)
        out.copy_(combined)
        return tuple(self.measure(combined, second))


class Blockwise:
    """Visits parameters' gradients and writes what a rule makes of them; none is ever there as a whole.

    Args:
        parameters: in the order of the combined gradient.
        gradient: where it is written (P,).
        rule: see there.
        vectors: (P,) each, which belong to the rule.
        fuse: whether large blocks are left to a compiled rule.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        gradient: Tensor,
        rule: Rule,
        vectors: Sequence[Tensor] = (),
        fuse: bool = False,
    ) -> None:
        self.gradient = gradient
        self._sizes = [parameter.numel() for parameter in parameters]
        self._starts = [0, *accumulate(self._sizes)]
        self._rule, self._vectors = rule, vectors
        self._fused = fused(rule) if fuse else rule
        self._found: list[tuple[int, Tensor]] = []

    def __call__(self, positions: Sequence[int], gradients: ParameterGradients) -> None:
        for start, stack in gradients.blocks():
            if len(positions) == 1:
                self._one(positions[0], start, stack.unbind())
            else:
                self._several(positions, stack.unbind())

    @property
    def measured(self) -> torch.dtype:
        """Type of the numbers that the rule measured."""
        return self._found[-1][1].dtype if self._found else self.gradient.dtype

    def _one(self, position: int, start: int, gradients: Sequence[Tensor]) -> None:
        """Apply the rule to components of one parameter, from `start` on."""
        start += self._starts[position]
        part = slice(start, start + len(gradients[0]))
        rule = self._fused if len(gradients[0]) >= _FUSED_FROM else self._rule
        numbers = rule(gradients, [vector[part] for vector in self._vectors], self.gradient[part])
        self._found += [(position, number) for number in numbers]

    def _several(self, positions: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """Apply the rule to all components of several parameters."""
        parts = [slice(self._starts[i], self._starts[i] + self._sizes[i]) for i in positions]
        vectors = [torch.cat([vector[part] for part in parts]) for vector in self._vectors]
        combined, second = self._rule.combine(gradients, *self._rule.constants, *vectors)
        sizes = [self._sizes[position] for position in positions]
        pieces = combined.split(sizes)
        torch._foreach_copy_([self.gradient[part] for part in parts], pieces)
        for position, values, others in zip(positions, pieces, second.split(sizes), strict=True):
            self._found += [(position, number) for number in self._rule.measure(values, others)]

    def finish(self) -> Tensor:
        """The numbers added up for each parameter tensor: (number of tensors, `numbers`) float64.

        The combined gradient is 0 for parameters that were not visited.
        """
        width = self._rule.numbers
        sums = self.gradient.new_zeros(len(self._sizes), width, dtype=torch.float64)
        if self._found:
            positions = torch.tensor([position for position, _ in self._found[::width]])
            numbers = torch.stack([number for _, number in self._found]).double().view(-1, width)
            sums.index_add_(0, positions.to(sums.device), numbers)
        for position in set(range(len(self._sizes))) - {position for position, _ in self._found}:
            start = self._starts[position]
            self.gradient[start : start + self._sizes[position]] = 0
        return sums
