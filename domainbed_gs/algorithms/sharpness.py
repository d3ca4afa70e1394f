"""Sharpness-aware minimisation: ERM with gradients at perturbed weights.

Gradients, perturbations and weights are flat tensors (P,) over all trained parameters. theta is the weights,
g the gradient there, rho the length of the perturbation, and g_p the gradient at the perturbed weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.gradients.vectors import flat, inner, norm, set_gradient, set_values
from domainbed.hparams import Hparam, choice, log10_uniform
from domainbed.networks.stages import changing_buffers

_EPS = 1e-12  # added to norms, as in the public implementations

Loss = Callable[[], Tensor]
Parameters = Sequence[nn.Parameter]


@contextlib.contextmanager
def restored(parameters: Parameters) -> Iterator[Tensor]:
    """A context whose value is a copy of the parameters' values (P,), and which restores them at its end.

    They are restored bit for bit, also after an error.
    """
    values = flat(parameters)
    try:
        yield values
    finally:
        set_values(parameters, values)


def sam_perturbation(gradient: Tensor, rho: float) -> Tensor:
    """SAM's perturbation rho g / |g|; 0 for a zero gradient."""
    return gradient * sam_factor(gradient, rho)


def sam_factor(gradient: Tensor, rho: float) -> Tensor:
    """rho / |g| (0-d)."""
    return rho / (norm(gradient) + _EPS)


def orthogonal_part(vector: Tensor, direction: Tensor) -> Tensor:
    """The part (P,) of a vector that is orthogonal to `direction`; all of it if that is zero."""
    share = inner(vector, direction) / (norm(direction).square() + _EPS**2)
    return vector - share * direction


def loss_and_gradient(loss_of: Loss, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """A loss (0-d, detached) and its gradient (P,); a parameter without a gradient counts as 0."""
    loss = loss_of()
    gradients = torch.autograd.grad(loss, list(parameters), materialize_grads=True)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


class SharpnessAware(ERM):
    """Base: ERM whose optimizer gets a gradient from perturbed weights."""

    HPARAMS = {"rho": Hparam(0.05, choice(0.01, 0.02, 0.05, 0.1), "length of the perturbation", at_least=0)}

    def sample_losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss (B,) of each sample."""
        return F.cross_entropy(self.predict(x), y, reduction="none")

    def loss_without_statistics(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss (0-d), without an update of the running statistics of batch norms."""
        buffers = {name: buffer.clone() for name, buffer in changing_buffers(self.network).items()}
        return F.cross_entropy(functional_call(self.network, buffers, (x,)), y)


@REGISTRY.register()
class SAM(SharpnessAware):
    """Sharpness-aware minimisation (Foret et al. 2021, algorithm 1 with p = 2).

    The gradient of the risk at theta + rho g / |g|. Running statistics of batch norms are updated in the
    first forward pass only. Dropout draws new masks in the second. Besides `loss`, `sharpness` is logged: the
    risk at the perturbed weights minus the risk at theta.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Foret et al., Sharpness-aware minimization for efficiently improving generalization, ICLR, "
            "arXiv 2010.01412"
        ),
        idea="Follows the gradient at weights perturbed along the gradient, to find flat minima",
        time="2",
        memory="4",
    )

    def perturbation(self, gradient: Tensor, weights: Tensor) -> Tensor:
        """The perturbation of theta = `weights`, given g = `gradient`."""
        return sam_perturbation(gradient, self.hparams["rho"])

    def ascent_loss(self, losses: Tensor, sizes: Sequence[int]) -> Tensor:
        """The loss (0-d) whose gradient is g.

        Args:
            losses: losses of all samples, one environment after the other.
            sizes: number of samples of each environment.
        """
        return losses.mean()

    def combine(self, gradient: Tensor, perturbed_gradient: Tensor) -> Tensor:
        """The gradient for the optimizer, given g and g_p."""
        return perturbed_gradient

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        sizes = [len(labels) for _, labels in minibatches]
        risks: list[Tensor] = []

        def ascent_loss() -> Tensor:
            losses = self.sample_losses(x, y)
            risks.append(losses.detach().mean())
            return self.ascent_loss(losses, sizes)

        parameters = self.trained_parameters()
        _, gradient = loss_and_gradient(ascent_loss, parameters)
        with restored(parameters) as weights:
            set_values(parameters, weights + self.perturbation(gradient, weights))
            descent_loss = partial(self.loss_without_statistics, x, y)
            perturbed_risk, perturbed_gradient = loss_and_gradient(descent_loss, parameters)
        set_gradient(parameters, self.combine(gradient, perturbed_gradient))
        self.optimizer.step()
        return {"loss": scalar(risks[0]), "sharpness": scalar(perturbed_risk - risks[0])}


@REGISTRY.register()
class ASAM(SAM):
    """Adaptive SAM (Kwon et al. 2021, algorithm 1).

    The perturbation is rho theta^2 g / |theta g|, whose length is measured relative to each weight, so that
    it is invariant to rescaling of layers.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Kwon et al., ASAM: Adaptive sharpness-aware minimization for scale-invariant learning of "
            "deep neural networks, ICML, arXiv 2102.11600"
        ),
        idea="SAM whose perturbation is measured relative to each weight",
        time="2",
        memory="4",
    )

    HPARAMS = {
        "rho": Hparam(0.5, choice(0.1, 0.2, 0.5, 1.0), "relative length of the perturbation", at_least=0)
    }

    def perturbation(self, gradient: Tensor, weights: Tensor) -> Tensor:
        rho: float = self.hparams["rho"]
        return weights.square() * gradient * (rho / (norm(weights * gradient) + _EPS))


@REGISTRY.register()
class GSAM(SAM):
    """Surrogate gap guided SAM (Zhuang et al. 2022, algorithm 1).

    The gradient is g_p - alpha (g - part of g along g_p). The subtracted component of g is orthogonal to g_p,
    so this lowers the surrogate gap without changing the perturbed risk to first order. The learning rate and
    rho are constant here.
    """

    FACTS = Facts(
        year=2022,
        paper=(
            "Zhuang et al., Surrogate gap minimization improves sharpness-aware training, ICLR, arXiv "
            "2203.08065"
        ),
        idea="SAM less the part of the gradient that raises the gap between perturbed and plain risk",
        time="2",
        memory="5",
        departures="rho is constant (the authors': follows the learning rate).",
    )

    HPARAMS = {
        "gsam_alpha": Hparam(
            0.001, choice(0.01, 0.02, 0.05, 0.1), "weight alpha of the orthogonal component", at_least=0
        )
    }

    def combine(self, gradient: Tensor, perturbed_gradient: Tensor) -> Tensor:
        alpha: float = self.hparams["gsam_alpha"]
        return perturbed_gradient - alpha * orthogonal_part(gradient, perturbed_gradient)


def _sagm_alpha(dataset: str) -> Hparam:
    """The paper's value for the dataset. Random values cover all of the paper's."""
    published = 5e-4 if dataset in ("OfficeHome", "DomainNet") else 1e-3
    return Hparam(
        published, log10_uniform(-4, -2), "weight alpha of the gradient in the perturbation", at_least=0
    )


@REGISTRY.register()
class SAGM(SAM):
    """Sharpness-aware gradient matching (Wang et al. 2023).

    The perturbation is (rho / |g| - alpha) g, and the gradient is (g + g_p) / 2: both risks fall, and the
    gradients become similar.
    """

    FACTS = Facts(
        year=2023,
        paper=(
            "Wang et al., Sharpness-aware gradient matching for domain generalization, CVPR, arXiv 2303.10353"
        ),
        idea="SAM that lowers both the plain and the perturbed risk, and makes their gradients similar",
        time="2",
        memory="5",
        departures=(
            "`rho` has an effect (the authors' code: 0.05 whatever it is). Random `sagm_alpha` covers the "
            "published values (theirs excludes them)."
        ),
    )

    HPARAMS = {"sagm_alpha": _sagm_alpha}

    def perturbation(self, gradient: Tensor, weights: Tensor) -> Tensor:
        alpha: float = self.hparams["sagm_alpha"]
        return sam_perturbation(gradient, self.hparams["rho"]) - alpha * gradient

    def combine(self, gradient: Tensor, perturbed_gradient: Tensor) -> Tensor:
        return (gradient + perturbed_gradient) / 2


@REGISTRY.register()
class DISAM(SAM):
    """Domain-inspired SAM (Zhang et al. 2024).

    The perturbation follows the gradient of the risk minus lambda times the variance of the environments'
    risks (over K, not K - 1), so that it raises all of them alike. The gradient at the perturbed weights is
    that of the risk. With one environment, or with lambda = 0, it is SAM.
    """

    FACTS = Facts(
        year=2024,
        paper=(
            "Zhang et al., Domain-inspired sharpness-aware minimization under domain shifts, ICLR, arXiv "
            "2405.18861"
        ),
        idea="SAM whose perturbation raises the risks of all environments alike",
        time="2",
        memory="4",
        one_environment="SAM",
    )

    HPARAMS = {
        "disam_lambda": Hparam(0.1, choice(0.05, 0.1, 0.2), "weight lambda of the variance", at_least=0)
    }

    def ascent_loss(self, losses: Tensor, sizes: Sequence[int]) -> Tensor:
        risks = torch.stack([part.mean() for part in losses.split(list(sizes))])
        objective: Tensor = losses.mean() - self.hparams["disam_lambda"] * risks.var(unbiased=False)
        return objective
