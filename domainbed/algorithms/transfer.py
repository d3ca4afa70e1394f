"""Transfer: features on which no nearby classifier has very different risks on the environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import CHOICE, descend
from domainbed.gradients.vectors import norm
from domainbed.hparams import Hparam, Kind, choice, const, log10_uniform, uniform

M = TypeVar("M", bound=nn.Module)


def distance(h1: nn.Module, h2: nn.Module) -> Tensor:
    """Euclidean distance (0-d) between the state dicts of two networks, including buffers."""
    other = h2.state_dict()
    return norm(torch.cat([(value - other[name]).flatten() for name, value in h1.state_dict().items()]))


@torch.no_grad()
def proj(delta: float, adv_h: M, h: nn.Module) -> M:
    """Project `adv_h` onto the ball of radius `delta` around `h`, in place, and return it.

    A network inside the ball is unchanged, bit for bit. Does not wait for the device.
    """
    length = distance(adv_h, h)
    for projected, centre in zip(adv_h.parameters(), h.parameters(), strict=True):
        on_sphere = centre + (delta / length).to(projected.dtype) * (projected - centre)
        projected.copy_(torch.where(length <= delta, projected, on_sphere))
    return adv_h


@REGISTRY.register()
class Transfer(Algorithm):
    """Transferability (Zhang et al. 2021, algorithm 1).

    The gap is the largest minus the smallest risk of an adversary, another classifier, on the environments;
    it is 0 for one environment. An update takes one step down the risk and one down the gap. Then the
    adversary starts from the classifier and takes `d_steps_per_g` steps up the gap, projected onto the ball
    of radius `delta` around the classifier.

    With `gda`, which all random hyper-parameters have, SGD trains the featurizer and the classifier. Upstream
    gives that SGD the adversary's parameters instead, so nothing is trained; `upstream_gda` restores that.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Zhang et al., Quantifying and improving transferability in domain generalization, arXiv "
            "2106.03632"
        ),
        idea="No nearby classifier may have very different risks on the environments",
        time="16 / 3",
        cost=(
            "Two ERM steps, and a forward pass for each of `d_steps_per_g` = 10 steps of the adversary; "
            "random hyper-parameters have 1 to 5 of them."
        ),
        one_environment="ERM",
        departures=(
            "With `gda`, SGD trains featurizer and classifier; upstream's trains the adversary alone, so "
            "nothing (`upstream_gda`)."
        ),
    )

    HPARAMS = {
        "t_lambda": Hparam(1.0, log10_uniform(-2, 1), "weight of the gap", at_least=0),
        "delta": Hparam(2.0, uniform(0.1, 3.0), "radius of the adversary's ball", at_least=0),
        "d_steps_per_g": Hparam(10, choice(1, 2, 5), "steps of the adversary in an update", at_least=1),
        "weight_decay_d": Hparam(
            0.0, log10_uniform(-6, -2), "no effect (as in upstream)", kind=Kind.INCIDENTAL
        ),
        "gda": Hparam(False, const(True), "plain SGD as optimizer, unless the run chooses one"),
        "beta1": Hparam(0.5, choice(0.0, 0.5), "no effect (as in upstream)", kind=Kind.INCIDENTAL),
        "lr_d": Hparam(1e-3, log10_uniform(-4.5, -2.5), "learning rate of the adversary", above=0),
    }
    SWITCHES = {
        "upstream_gda": Hparam(
            False, const(False), "with gda, do not train featurizer and classifier (as in upstream)"
        )
    }

    FIXED_RATES = ("adv_opt",)

    update_count: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Unused, but part of upstream's checkpoints.
        self.register_buffer("update_count", torch.tensor([0]))
        self.d_steps_per_g = hparams["d_steps_per_g"]
        self.featurizer = networks.Featurizer(input_shape, hparams)
        width, nonlinear = self.featurizer.n_outputs, hparams["nonlinear_classifier"]
        self.classifier = networks.Classifier(width, num_classes, nonlinear)
        networks.start_from_text(self.classifier, self.featurizer)
        self.adv_classifier = networks.Classifier(width, num_classes, nonlinear)
        self.adv_classifier.load_state_dict(self.classifier.state_dict())
        self.optimizer = self._new_optimizer()
        self.adv_opt = optim.SGD(self.adv_classifier.parameters(), lr=hparams["lr_d"])

    def _new_optimizer(self) -> optim.Optimizer:
        lr = self.hparams["lr"]
        parameters = [*self.featurizer.parameters(), *self.classifier.parameters()]
        if self.hparams["gda"] and self.switch("upstream_gda"):
            parameters = list(self.adv_classifier.parameters())
        if self.hparams["gda"] and not any(name in self.hparams for name in CHOICE):
            return optim.SGD(parameters, lr=lr)
        return self.optimizer_over(parameters, lr, self.hparams["weight_decay"])

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        weight = self.hparams["t_lambda"]
        x, y = concatenate(minibatches)
        loss = F.cross_entropy(self.predict(x), y)
        descend(loss, self.optimizer)
        descend(weight * self.loss_gap(minibatches), self.optimizer)

        self.adv_classifier.load_state_dict(self.classifier.state_dict())
        gap = torch.zeros_like(loss)
        for _ in range(self.d_steps_per_g):
            gap = weight * self.loss_gap(minibatches, features_grad=False)
            descend(-gap, self.adv_opt)
            proj(self.hparams["delta"], self.adv_classifier, self.classifier)
        return {"loss": scalar(loss), "gap": scalar(gap)}

    def loss_gap(self, minibatches: Sequence[Minibatch], features_grad: bool = True) -> Tensor:
        """Largest minus smallest risk (0-d) of the adversary on the environments.

        Args:
            minibatches: one for each environment.
            features_grad: whether to differentiate through the featurizer.
        """
        losses = []
        for x, y in minibatches:
            with torch.set_grad_enabled(features_grad):
                features = self.featurizer(x)
            losses.append(F.cross_entropy(self.adv_classifier(features), y))
        risks = torch.stack(losses)
        return risks.max(dim=0).values - risks.min(dim=0).values

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits
