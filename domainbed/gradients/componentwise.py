"""Componentwise rules: each component of the combined gradient depends on the K gradients' same component.

The rule is applied block by block, so that it makes one pass over memory whatever the gradients come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from domainbed.gradients.comparison import Combined, any_is_zero, signs_agree
from domainbed.gradients.compilation import compiled
from domainbed.gradients.pieces import OuterProducts, Piece, inner_products
from domainbed.process_group import ProcessGroup

Numbers = tuple[Tensor, Tensor, Tensor, Tensor]

_COMPILED_FROM = 2**16  # components of a block; smaller ones take longer to hand over than to compute


class Block(list[Tensor]):
    """K gradients (m,) by the same m components, and random numbers that belong to these components."""

    def __init__(self, gradients: Iterable[Tensor], draws: Tensor | None) -> None:
        super().__init__(gradients)
        self._draws = draws

    def uniform(self) -> Tensor:
        """Draws (m,) from [0, 1). Only for rules that are declared to draw."""
        assert self._draws is not None
        return self._draws


Rule = Callable[[Block], Tensor | tuple[Tensor, Tensor]]
"""Maps K gradients (m,) to the combined gradient (m,), or to that and each component's weight (m,)."""


class Componentwise:
    """Applies a componentwise rule to pieces.

    Args:
        rule: the rule; it is given a `Block`.
        scale: factor on what the rule returns.
        out: where the combined gradient (P,) is written.
        draws: draws (P,) from [0, 1) for a rule that needs some.
        compile_rule: whether large blocks are left to a compiled rule; not for a rule that draws.
    """

    def __init__(
        self, rule: Rule, scale: float, out: Tensor, draws: Tensor | None, compile_rule: bool
    ) -> None:
        self._rule, self._scale, self._out, self._draws = rule, scale, out, draws
        self._compile = compile_rule
        self._weights: Tensor | None = None
        self._grams: list[Tensor] = []
        self._numbers: list[Numbers] = []

    def combine(self, pieces: Iterator[Piece], group: ProcessGroup) -> Combined:
        """The combined gradient.

        Args:
            pieces: of all P components, or of this process's shard of them.
            group: the processes that share the update.
        """
        for piece in pieces:
            with piece.target(self._out) as target:
                self._add(piece, target)
        shard = group.shard(len(self._out))
        gradient = group.gather_shards(self._out[shard], len(self._out))
        weights = None
        if self._weights is not None:
            weights = group.gather_shards(self._weights[shard], len(self._out))
        sums = torch.stack([torch.stack(numbers).double() for numbers in self._numbers]).sum(0)
        agreeing, zeros, magnitude, squares = group.sum(sums)
        gram = group.sum(torch.stack(self._grams).sum(0))
        return Combined(gradient, gram, agreeing, zeros, squares.sqrt(), magnitude, weights)

    def _add(self, piece: Piece, out: Tensor) -> None:
        """Apply the rule to `piece` and write its combined gradient (M,) to `out`."""
        draws = None if self._draws is None else piece.gather(self._draws)
        weights: list[Tensor] = []
        closed_form = isinstance(piece.gradients, OuterProducts)
        if closed_form:
            self._grams.append(piece.gradients.gram())
        for start, gradients in piece.gradients.blocks():
            if not closed_form:
                self._grams.append(inner_products(gradients))
            part = slice(start, start + len(gradients[0]))
            if self._compile and len(gradients[0]) >= _COMPILED_FROM:
                numbers, weight = compiled(_apply)(self._rule, gradients, self._scale, out[part])
            else:
                block = Block(gradients, None if draws is None else draws[part])
                numbers, weight = _apply(self._rule, block, self._scale, out[part])
            self._numbers.append(numbers)
            weights += [] if weight is None else [weight]
        if weights:
            if self._weights is None:
                self._weights = torch.empty_like(self._out, dtype=weights[0].dtype)
            piece.scatter(torch.cat(weights), self._weights)


def _apply(rule: Rule, gradients: Block, scale: float, out: Tensor) -> tuple[Numbers, Tensor | None]:
    """Write the combined gradient of a block to `out` (m,).

    Returns: number of components that agree in sign, number that are 0 in an environment, sum of absolute
    values, sum of squares; and the weights.
    """
    result = rule(gradients)
    combined, weights = result if isinstance(result, tuple) else (result, None)
    if scale != 1:
        combined = combined * scale
    out.copy_(combined)
    counts = signs_agree(gradients).sum(), any_is_zero(gradients).sum()
    return (*counts, combined.abs().sum(), combined.square().sum()), weights
