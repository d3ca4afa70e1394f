"""Surgery by inner products of gradients of independent minibatches, which estimate those of the risks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms.base import Minibatch
from domainbed.errors import UsageError
from domainbed.gradients.comparison import Combined
from domainbed_gs.algorithms.surgery import GramSurgery


class IndependentMinibatches(GramSurgery):
    """Base of surgeries that cut each environment's minibatch into parts. A subclass gives `part_weights`.

    The inner product of the gradients of two parts estimates that of the gradients of the risks without bias,
    where that of a minibatch's gradient with itself includes its variance. All parts together cost the
    arithmetic of an ERM step.

    `cosine` and `removed` are those of each environment's mean gradient over its parts; `agreement` is not
    logged.

    Raises: UsageError if `batch_size` is less than the number of parts.
    """

    DISTRIBUTED = True
    PARTS: ClassVar[int] = 2
    """Number of parts of each minibatch."""

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        self._check_size(int(hparams["batch_size"]))
        super().__init__(input_shape, num_classes, num_domains, hparams)

    @abstractmethod
    def part_weights(self, products: np.ndarray) -> np.ndarray:
        """Weights (PARTS, K) of the parts' gradients.

        Args:
            products: inner products (K, K) float64 of the gradients by the environments' first parts (rows)
                and second parts (columns); not symmetric.

        Raises: NoDirection where the method defines none.
        """

    def weights(self, gram: np.ndarray) -> np.ndarray:
        """Weights of all parts, (PARTS K,), of their inner products; an environment's parts are adjacent."""
        products = gram[0 :: self.PARTS, 1 :: self.PARTS]
        weights: np.ndarray = self.part_weights(products).T.flatten()
        return weights

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        parts = [part for minibatch in minibatches for part in self._cut(minibatch)]
        k = self.process_group.sum_int(len(minibatches))
        fallback = 1 / (self.PARTS * k)
        losses, combined = self.engine.by_weights(
            parts, self.environment_seeds(parts), self.weights, fallback, self.factor(k)
        )
        combined.gram = _of_environments(combined.gram, self.PARTS)
        sizes = torch.tensor([len(y) for _, y in parts], dtype=losses.dtype).view(-1, self.PARTS)
        shares = (sizes / sizes.sum(1, keepdim=True)).to(losses.device)
        return (losses.view(-1, self.PARTS) * shares).sum(1), combined

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        del combined.logged["agreement"], combined.logged["zeros"]

    def _cut(self, minibatch: Minibatch) -> list[Minibatch]:
        """The parts of a minibatch, of sizes that differ by one at most."""
        x, y = minibatch
        self._check_size(len(y))
        return list(zip(x.tensor_split(self.PARTS), y.tensor_split(self.PARTS), strict=True))

    def _check_size(self, size: int) -> None:
        if size < self.PARTS:
            raise UsageError(
                f"{type(self).__name__} cuts each minibatch into {self.PARTS} parts; batch_size must be at "
                f"least {self.PARTS}, not {size}"
            )


def _of_environments(gram: Tensor, parts: int) -> Tensor:
    """Inner products (K, K) of the mean gradients over an environment's parts, from those of all parts."""
    k = len(gram) // parts
    return gram.view(k, parts, k, parts).mean(dim=(1, 3))


def nearest_in_simplex(values: np.ndarray) -> np.ndarray:
    """The nearest vector (K,) to `values` (K,) whose components are at least 0 and add up to 1."""
    values = values - values.max()  # changes nothing but rounding, which 1 would be to values of 1e16
    descending = np.sort(values)[::-1]
    # The largest number of components that stay positive when each loses the same amount.
    losses = (descending.cumsum() - 1) / np.arange(1, len(values) + 1)
    loss = losses[np.flatnonzero(descending > losses)[-1]]
    nearest: np.ndarray = np.maximum(values - loss, 0.0)
    return nearest
