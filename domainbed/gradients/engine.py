"""How the environments' gradients of an update are made and combined; a method only gives its rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import Tensor, nn

from domainbed.datasets.minibatch import Minibatch
from domainbed.errors import UsageError
from domainbed.gradients.comparison import Combined, any_is_zero, signs_agree
from domainbed.gradients.compilation import compiled, compiles
from domainbed.gradients.componentwise import Componentwise, Rule
from domainbed.gradients.gram import Weights, combine_by_weights
from domainbed.gradients.passes import Passes, joint_pass, separate_passes, shared_passes
from domainbed.gradients.pieces import inner_products
from domainbed.gradients.random_numbers import normal_parts, uniform
from domainbed.gradients.recording import NotSeparable
from domainbed.gradients.vectors import copied, norm, total
from domainbed.process_group import ProcessGroup

PASSES = ("auto", "joint", "separate")
RULES = ("auto", "plain")


class Model(Protocol):
    """What the engine needs of an algorithm."""

    network: nn.Sequential
    process_group: ProcessGroup

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss (0-d) of one environment's minibatch."""

    def trained_parameters(self) -> list[nn.Parameter]:
        """What to differentiate by."""


class GradientEngine:
    """Makes K gradients and combines them, in the cheapest of the ways that give the same result to rounding.

    Args:
        model: the algorithm.
        samplewise: whether a sample's loss depends on that sample alone, as far as the algorithm knows.
        passes: auto decides by the network alone, so that a run repeats its numbers; joint and separate force
            one way.
        rules: auto compiles rules over large gradients; plain compiles nothing.
    """

    def __init__(
        self,
        model: Model,
        samplewise: bool,
        passes: str,
        rules: str,
    ) -> None:
        self._model = model
        self._samplewise, self._passes, self._rules = samplewise, passes, rules
        self._joint: bool | None = None  # decided in the first update
        self._out: Tensor | None = None

    def componentwise(
        self,
        minibatches: Sequence[Minibatch],
        seeds: Sequence[int],
        rule: Rule,
        scale: float = 1.0,
        draw_seed: int | None = None,
    ) -> tuple[Tensor, Combined]:
        """Losses of this process's environments, and the gradient that a componentwise rule makes.

        Args:
            minibatches: one an environment; of this process's environments, where several share the update.
            seeds: seed of each environment's draws in its passes.
            rule: see `componentwise.Rule`.
            scale: factor on what the rule returns.
            draw_seed: of the uniform draws, for a rule that needs some.
        """
        passes, out = self._run_passes(minibatches, seeds)
        draws = None if draw_seed is None else uniform(out, draw_seed)
        compile_rule = draws is None and self._compiles(out)
        combination = Componentwise(rule, scale, out, draws, compile_rule)
        with torch.no_grad():
            return passes.losses, combination.combine(passes.pieces, self._model.process_group)

    def by_weights(
        self,
        minibatches: Sequence[Minibatch],
        seeds: Sequence[int],
        rule: Weights,
        fallback: float,
        scale: float = 1.0,
    ) -> tuple[Tensor, Combined]:
        """Like `componentwise`, for a Gram rule; see `gram.combine_by_weights`."""
        passes, out = self._run_passes(minibatches, seeds)
        with torch.no_grad():
            combined = combine_by_weights(
                passes.pieces, rule, fallback, scale, out, self._compiles(out), self._model.process_group
            )
        return passes.losses, combined

    def inner_products(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Losses of this process's environments, and inner products (K, K) of all gradients.

        They are float64 and on the device; no gradient is combined.
        """
        model = self._model
        passes = self._passes_by_network(minibatches, seeds, model.trained_parameters())
        with torch.no_grad():
            gram = total(piece.gradients.gram() for piece in passes.pieces)
            return passes.losses, model.process_group.sum(gram)

    def as_matrix(
        self,
        minibatches: Sequence[Minibatch],
        seeds: Sequence[int],
        rule: Callable[[Tensor], Tensor],
        scale: float = 1.0,
    ) -> tuple[Tensor, Combined]:
        """Like `componentwise`, for a rule that maps the whole matrix (K, P) to (P,); in one process only."""
        passes, out = self._run_passes(minibatches, seeds)
        matrix = out.new_empty(len(minibatches), len(out))
        with torch.no_grad():
            for piece in passes.pieces:
                with ExitStack() as stack:
                    targets = [stack.enter_context(piece.target(row)) for row in matrix]
                    for start, rows in piece.gradients.blocks():
                        for target, row in zip(targets, rows, strict=True):
                            target[start : start + len(row)] = row
            gradient = rule(matrix) * scale
            agreeing, zeros = signs_agree(matrix.unbind()).sum(), any_is_zero(matrix.unbind()).sum()
            chunks = matrix.split(copied(matrix.device), dim=1)
            gram = total(inner_products(part.double().unbind()) for part in chunks)
        return passes.losses, Combined(gradient, gram, agreeing, zeros, norm(gradient))

    def add_noise_where_zero(self, values: Tensor, sigma: Tensor, seed: int) -> None:
        """Add draws from Normal(0, sigma^2) to the components of `values` (P,) that are 0.

        Args:
            values: changed in place.
            sigma: 0-d, or for each component (P,).
            seed: of the draws; each belongs to its component.
        """
        add = compiled(_add_where_zero) if self._compiles(values) else _add_where_zero
        sigma = sigma.to(values.dtype)
        for start, noise in normal_parts(values, seed):
            part = slice(start, start + len(noise))
            add(values[part], noise, sigma[part] if sigma.dim() else sigma)

    def _run_passes(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Passes, Tensor]:
        """The environments' gradients, and memory for the combined one (P,)."""
        parameters = self._model.trained_parameters()
        return self._passes_by_network(minibatches, seeds, parameters), self._buffer(parameters)

    def _passes_by_network(
        self,
        minibatches: Sequence[Minibatch],
        seeds: Sequence[int],
        parameters: Sequence[nn.Parameter],
    ) -> Passes:
        model = self._model
        if model.process_group.world_size > 1:
            return shared_passes(model.loss_of, minibatches, parameters, seeds, model.process_group)
        first = self._joint is None
        if self._joint is None:
            self._joint = self.wants_joint_pass(parameters)
        if self._joint:
            try:
                return joint_pass(model.network, minibatches, parameters, seeds, check=first)
            except NotSeparable as error:
                if self._passes == "joint":
                    raise UsageError(
                        f'a joint pass is not possible: {error}; give "passes": "separate"'
                    ) from None
                self._joint = False
        return separate_passes(model.loss_of, minibatches, parameters, seeds)

    def wants_joint_pass(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether to try a joint pass: it pays where linear layers hold most of the parameters.

        With few samples such layers cost memory traffic, which a pass for each environment pays K times.
        """
        if self._passes == "separate" or not self._samplewise:
            return False
        linear = {
            id(parameter)
            for layer in self._model.network.modules()
            if isinstance(layer, nn.Linear)
            for parameter in layer.parameters()
        }
        sizes = [(parameter.numel(), id(parameter) in linear) for parameter in parameters]
        of_linear = sum(size for size, is_linear in sizes if is_linear)
        return self._passes == "joint" or 2 * of_linear >= sum(size for size, _ in sizes)

    def _compiles(self, out: Tensor) -> bool:
        return self._rules == "auto" and compiles(len(out), out.device)

    def _buffer(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The same memory in every update: new memory costs a pass over it."""
        size = sum(parameter.numel() for parameter in parameters)
        if self._out is None or len(self._out) != size:
            self._out = torch.empty(size, dtype=parameters[0].dtype, device=parameters[0].device)
        return self._out


def _add_where_zero(values: Tensor, noise: Tensor, sigma: Tensor) -> None:
    values += (1 - values.sign().abs()) * (noise * sigma)  # 1 where the value is 0
