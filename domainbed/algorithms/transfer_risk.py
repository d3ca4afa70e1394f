"""Transfer risk minimisation: a classifier fitted to one environment must do well on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm, Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import descend
from domainbed.algorithms.precision import full_precision
from domainbed.algorithms.update_count import UpdateCount
from domainbed.hparams import Hparam, log10_int, log10_uniform

_INNER_STEPS = 30
_NEUMANN_TERMS = 10
_NEUMANN_LIMIT = 10.0


@REGISTRY.register()
class TRM(UpdateCount, Algorithm):
    """Transfer risk minimisation (Xu and Jaakkola 2021).

    ERM for `iters` updates. Then a linear classifier of its own is fitted to the features of each environment
    Q, by 30 steps of SGD, whatever the run's optimizer and schedule. Beside the joint risk, the features are
    trained to lower the risk of that classifier on the other environments, and to align the gradient of this
    risk, multiplied by an inverse Hessian, with the gradient on Q. The other environments have weights
    alpha[Q], which grow exponentially with their risks.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Xu and Jaakkola, Learning representations that support robust transfer of predictors, arXiv "
            "2110.09940"
        ),
        idea="A classifier fitted to one environment must do well on the others",
        cost=(
            "30 K passes of linear classifiers on features, K^2 more with second derivatives; memory for "
            "2 K + 2 classifiers."
        ),
        departures=(
            "On any device (upstream: CUDA). The environments' classifiers and weights are saved with a run."
        ),
    )

    MIN_DOMAINS = 2  # one to transfer from and one to transfer to
    HPARAMS = {
        "cos_lambda": Hparam(1e-4, log10_uniform(-5, 0), "weight of the gradients' alignment", at_least=0),
        "iters": Hparam(
            200, log10_int(0, 4), "number of updates of plain ERM at first", at_least=0, counts_updates=True
        ),
        "groupdro_eta": Hparam(0.01, log10_uniform(-3, -1), "step size of the weights alpha", at_least=0),
    }

    FIXED_RATES = ("optimizer_clist",)

    alpha: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_domains = num_domains
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = nn.Linear(self.featurizer.n_outputs, num_classes)
        # As in upstream, one more than is used.
        self.clist = nn.ModuleList(
            nn.Linear(self.featurizer.n_outputs, num_classes) for _ in range(num_domains + 1)
        )
        self.optimizer_clist = optim.SGD(self.clist.parameters(), lr=1e-1)
        self.optimizer_f = self._optimizer(self.featurizer)
        self.optimizer_c = self._optimizer(self.classifier)
        self.register_buffer("alpha", torch.ones(num_domains, num_domains) - torch.eye(num_domains))

    def _optimizer(self, module: nn.Module) -> optim.Optimizer:
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        return self.optimizer_over(module.parameters(), lr, weight_decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        self.featurizer.train()
        x, y = concatenate(minibatches)
        joint = self.featurizer(x)
        with full_precision(joint):
            joint = joint.to(self.classifier.weight.dtype)
            nll = F.cross_entropy(self.classifier(joint), y)
            transfer = torch.zeros_like(nll)
            if self.updates >= self.hparams["iters"]:
                features = joint.split([len(y) for _, y in minibatches])
                self._fit_classifiers(features, minibatches)
                transfer = self._transfer_risk(features, minibatches)
        descend(nll + transfer, self.optimizer_f, self.optimizer_c)
        self.count_update()
        return {"nll": scalar(nll), "trm_loss": scalar(transfer)}

    def _own_classifiers(self) -> list[nn.Linear]:
        return [cast(nn.Linear, own) for own in self.clist[:-1]]

    def _fit_classifiers(self, features: Sequence[Tensor], minibatches: Sequence[Minibatch]) -> None:
        """Fit each environment's own classifier to its features, which are constants here."""
        if self.hparams["class_balanced"]:
            with torch.no_grad():
                for own in self._own_classifiers():
                    own.weight.copy_(self.classifier.weight)
        constants = [part.detach() for part in features]
        for _ in range(_INNER_STEPS):
            logits = [own(part) for own, part in zip(self._own_classifiers(), constants, strict=True)]
            descend(environment_losses(logits, minibatches).sum(), self.optimizer_clist)

    def _transfer_risk(self, features: Sequence[Tensor], minibatches: Sequence[Minibatch]) -> Tensor:
        """Mean over environments of the risk on the others minus the alignment (0-d). Updates alpha."""
        eta, cos_lambda = self.hparams["groupdro_eta"], self.hparams["cos_lambda"]
        self.alpha = self.alpha / self.alpha.sum(1, keepdim=True)
        total = torch.zeros((), device=self.alpha.device)
        rows = []
        for q, (own, old) in enumerate(zip(self._own_classifiers(), self.alpha, strict=True)):
            risks = environment_losses([own(part) for part in features], minibatches)
            (gradient,) = torch.autograd.grad(risks[q], own.weight, create_graph=True)
            weighted = old * risks  # old[q] is 0
            (others,) = torch.autograd.grad(weighted.sum(), own.weight, retain_graph=True)
            direction = neumann(others, own, features[q].detach())
            new = old * (eta * weighted.detach()).exp()
            rows.append(new)
            # As in upstream, the value is that with the old weights, the gradient that with the new ones.
            reweighted = (new * risks).sum()
            total = total + reweighted + (weighted.sum() - reweighted).detach()
            total = total - cos_lambda * (direction * gradient).sum()
        self.alpha = torch.stack(rows)
        return total / len(features)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # Upstream's checkpoints do not hold the environments' own classifiers and alpha.
        for name, value in self.state_dict(prefix=prefix).items():
            if name.startswith((f"{prefix}clist.", f"{prefix}alpha")):
                state_dict.setdefault(name, value)
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.no_grad()
def neumann(direction: Tensor, classifier: nn.Linear, features: Tensor) -> Tensor:
    """Upstream's Neumann series for the product of an inverse Hessian and `direction`, (C, F).

    The Hessian H is that of the mean cross-entropy by the classifier's weight, which does not depend on the
    labels. With v_0 = `direction` and v_k = v_(k-1) - H v_(k-1), the result is 2 v_1 + v_2 + v_3 + ... with
    ten terms; the exact series begins with v_0 + v_1. It ends early after the term that makes an entry exceed
    10 in absolute value.

    Args:
        direction: (C, F).
        classifier: linear, from F features to C classes.
        features: (B, F).
    """
    probabilities: Tensor = classifier(features).softmax(1)

    def hessian_product(v: Tensor) -> Tensor:
        change = probabilities * (features @ v.T)
        change -= probabilities * change.sum(1, keepdim=True)
        return change.T @ features / len(features)

    v = direction - hessian_product(direction)
    result = 2 * v
    for _ in range(_NEUMANN_TERMS - 1):
        v = v - hessian_product(v)
        # Ends the series without waiting for the device: a sum beyond the limit no longer changes.
        result = torch.where(result.abs().max() > _NEUMANN_LIMIT, result, result + v)
    return result
