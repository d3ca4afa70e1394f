"""ExcessMTL (He et al. 2024, "Robust multi-task learning with excess risks")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import full_precision
from domainbed.gradients.comparison import Combined
from domainbed.hparams import Hparam, const, log10_uniform
from domainbed_gs.algorithms.surgery import GradientSurgery

_EPS = 1e-7


@REGISTRY.register()
class ExcessMTL(GradientSurgery):
    """ExcessMTL (He et al. 2024): environments whose excess risk stays high gain weight.

    Environment k's excess risk is estimated by e_k = sum_j g_kj^2 / sqrt(S_kj + 1e-7), where S_kj is the sum
    of g_kj^2 over all updates, this one included. At the first update the weights are equal and e_k is the
    unit of later ones. Then each weight is multiplied by exp(`excess_eta` e_k / unit_k), and the weights are
    divided by their sum. As the factors compound, one environment may end up with all the weight; the logged
    `largest_weight` shows it.

    Attributes:
        squares: S (K, M) by the M components that count; None before the first update.
        unit: of the excess risks, (K,); None before the first update.
        log_weights: logarithms of the weights (K,), without their normalisation.
    """

    FACTS = Facts(
        year=2024,
        paper="He et al., Robust multi-task learning with excess risks, ICML, arXiv 2402.02009",
        idea="Environments whose excess risk stays high gain weight",
        memory="5 * K + 1",
        cost=(
            "2 K between updates and at the least: gradients, and sums of their squares. With `excess_of` "
            "classifier the sums are of the classifier's parameters alone."
        ),
        one_environment="ERM",
        departures="Weights add up to 1 (the authors' code: to K).",
    )

    DISTRIBUTED = False
    HPARAMS = {
        "excess_eta": Hparam(0.01, log10_uniform(-4, -1), "step size of the weights' logarithms", at_least=0),
        "excess_of": Hparam(
            "all",
            const("all"),
            "parameters that measure excess risks: all or classifier",
            choices=("all", "classifier"),
        ),
        "reduction": Hparam(
            "mean", const("mean"), "scale of the combined gradient: sum or mean", choices=("sum", "mean")
        ),
    }
    STATE = ("squares", "unit", "log_weights")

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.squares: Tensor | None = None
        self.unit: Tensor | None = None
        self.log_weights: Tensor = torch.zeros(num_domains, dtype=torch.float64)

    def combined(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Combined]:
        return self.engine.as_matrix(minibatches, seeds, self._direction, self.factor(len(minibatches)))

    def _direction(self, matrix: Tensor) -> Tensor:
        """(P,) of the gradients (K, P)."""
        gradients = matrix
        if self.hparams["excess_of"] == "classifier":
            of_classifier = {id(parameter) for parameter in self.classifier.parameters()}
            sizes = [each.numel() for each in self.trained_parameters() if id(each) in of_classifier]
            gradients = matrix[:, matrix.shape[1] - sum(sizes) :]  # they come last
        weights = self.environment_weights(gradients)
        with full_precision(matrix):
            return weights.to(matrix.dtype) @ matrix

    def environment_weights(self, gradients: Tensor) -> Tensor:
        """Add gradients (K, M) to the state; the weights (K,) float64, whose sum is 1."""
        squares, device = gradients.square(), gradients.device
        self.log_weights = self.log_weights.to(device)
        if self.squares is None or self.unit is None:
            self.squares = squares.clone()
            self.unit = self._excess(squares, self.squares)
        else:
            # What a checkpoint restores is on the CPU.
            self.squares, self.unit = self.squares.to(device) + squares, self.unit.to(device)
            relative = self._excess(squares, self.squares) / self.unit.clamp_min(_EPS)
            self.log_weights = self.log_weights + self.hparams["excess_eta"] * relative
        return self.log_weights.softmax(0)

    @staticmethod
    def _excess(squares: Tensor, total: Tensor) -> Tensor:
        """e (K,) float64 of the gradients' squares (K, M) and their sum over all updates (K, M)."""
        return (squares / (total + _EPS).sqrt()).sum(1, dtype=torch.float64)

    def finish(self, combined: Combined) -> None:
        super().finish(combined)
        combined.logged["largest_weight"] = self.log_weights.softmax(0).max()
