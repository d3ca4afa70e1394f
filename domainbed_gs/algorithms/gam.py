"""GAM, gradient norm aware minimisation (Zhang et al. 2023, CVPR)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.gradients.vectors import set_gradient, set_values
from domainbed.hparams import Hparam, choice, const, uniform
from domainbed_gs.algorithms.sharpness import (
    SharpnessAware,
    loss_and_gradient,
    orthogonal_part,
    restored,
    sam_perturbation,
)


@REGISTRY.register()
class GAM(SharpnessAware):
    """GAM (Zhang et al. 2023), in its accelerated form without Hessian-vector products.

    With u(v) = v / |v|, of gradients of the risk

        g0 at theta,                g1 at theta + rho' u(g0),
        g2 at theta2 = theta + rho u(g1 - g0),    g3 at theta2 + rho' u(g2),

    the optimizer gets h+ - gamma (part of h- orthogonal to h+), where

        h+ = alpha g1 + (1 - alpha) g3,    h- = beta g0 + (1 - beta) g2.

    g1 - g0 approximates rho' times the gradient of the gradient's norm, so g3 - g2 is that of first-order
    flatness. h- is that of the authors' figure; their code has g0 + (1 - beta) g2 (`gam_h_minus` "code"). The
    weight decay is the optimizer's, and in no g. Running statistics of batch norms are updated in the first
    pass only; dropout draws new masks in each. Logs the risk at theta as `loss`, and `sharpness`, the risk at
    theta + rho' u(g0) minus it.
    """

    FACTS = Facts(
        year=2023,
        paper=(
            "Zhang et al., Gradient norm aware minimization seeks first-order flatness and improves "
            "generalization, CVPR, arXiv 2303.03108"
        ),
        idea="Flattens the norm of the gradient near the weights, without second derivatives",
        time="4",
        memory="10",
        departures="h- is the paper's; the authors' code weighs g0 by 1 (`gam_h_minus` code).",
    )

    HPARAMS = {
        "rho": Hparam(
            0.05, choice(0.01, 0.02, 0.05, 0.1), "rho, distance to the weights of g2 and g3", at_least=0
        ),
        "gam_rho_prime": Hparam(
            0.02, choice(0.01, 0.02, 0.05), "rho', length of SAM's perturbation", at_least=0
        ),
        "gam_alpha": Hparam(0.5, uniform(0, 1), "alpha, weight of g1 in h+", at_least=0, at_most=1),
        "gam_beta": Hparam(0.5, uniform(0, 1), "beta, weight of g0 in h-", at_least=0, at_most=1),
        "gam_gamma": Hparam(
            0.03, choice(0.0, 0.03, 0.05), "gamma, weight of the orthogonal part", at_least=0
        ),
        "gam_h_minus": Hparam(
            "paper",
            const("paper"),
            "h-: as in the paper or as in the authors' code",
            choices=("paper", "code"),
        ),
    }

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        parameters = self.trained_parameters()
        rho, rho_prime = self.hparams["rho"], self.hparams["gam_rho_prime"]
        later_loss = partial(self.loss_without_statistics, x, y)
        risk, g0 = loss_and_gradient(lambda: self.sample_losses(x, y).mean(), parameters)
        with restored(parameters) as theta:
            set_values(parameters, theta + sam_perturbation(g0, rho_prime))
            perturbed_risk, g1 = loss_and_gradient(later_loss, parameters)
            theta2 = theta + sam_perturbation(g1 - g0, rho)
            set_values(parameters, theta2)
            _, g2 = loss_and_gradient(later_loss, parameters)
            set_values(parameters, theta2 + sam_perturbation(g2, rho_prime))
            _, g3 = loss_and_gradient(later_loss, parameters)
        set_gradient(parameters, self.combine(g0, g1, g2, g3))
        self.optimizer.step()
        return {"loss": scalar(risk), "sharpness": scalar(perturbed_risk - risk)}

    def combine(self, g0: Tensor, g1: Tensor, g2: Tensor, g3: Tensor) -> Tensor:
        """The gradient (P,) for the optimizer."""
        alpha: float = self.hparams["gam_alpha"]
        beta: float = self.hparams["gam_beta"]
        h_plus = alpha * g1 + (1 - alpha) * g3
        of_g0 = beta if self.hparams["gam_h_minus"] == "paper" else 1.0
        h_minus = of_g0 * g0 + (1 - beta) * g2
        gamma: float = self.hparams["gam_gamma"]
        return h_plus - gamma * orthogonal_part(h_minus, h_plus)
