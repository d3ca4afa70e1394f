"""Transfer risk minimisation: a classifier fitted to one environment shall do well on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed import networks
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import (
    Algorithm,
    DeviceScalar,
    Minibatch,
    UpdateCount,
    concatenate,
    descend,
    environment_losses,
    scalar,
)
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.precision import full_precision
from domainbed.hparams import Hparam, log10_int, log10_uniform

_INNER_STEPS = 30
_NEUMANN_ROUNDS = 10
_NEUMANN_LIMIT = 10.0


@REGISTRY.register()
class TRM(UpdateCount, Algorithm):
    """Transfer risk minimisation (Xu et al. 2021, arXiv 2110.09940).

    ERM for `iters` updates. Then, beside the joint risk, each environment Q has a linear classifier of its
    own, fitted to its features by 30 steps of SGD; the features are trained to lower its risk on the
    other environments, which weigh alpha[Q], exponentially more where it is high, and the alignment of
    the gradients there with Q's own through an inverse Hessian. Beyond an ERM step: 30 K passes of linear
    classifiers on features, K^2 more with second derivatives, and 2 K + 2 classifiers' memory. The
    classifiers work in full precision under autocast.
    """

    MIN_DOMAINS = 2  # one to transfer from and one to transfer to
    HPARAMS = {
        "cos_lambda": Hparam(1e-4, log10_uniform(-5, 0), "weight of the gradients' alignment", at_least=0),
        "iters": Hparam(200, log10_int(0, 4), "updates of plain ERM at first", at_least=0),
        "groupdro_eta": Hparam(0.01, log10_uniform(-3, -1), "step size of the weights alpha", at_least=0),
    }

    alpha: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_domains = num_domains
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = nn.Linear(self.featurizer.n_outputs, num_classes)
        # Upstream draws one more than it uses.
        self.clist = nn.ModuleList(
            nn.Linear(self.featurizer.n_outputs, num_classes) for _ in range(num_domains + 1)
        )
        self.optimizer_clist = optim.SGD(self.clist.parameters(), lr=1e-1)
        self.optimizer_f = self._adam(self.featurizer)
        self.optimizer_c = self._adam(self.classifier)
        self.register_buffer("alpha", torch.ones(num_domains, num_domains) - torch.eye(num_domains))

    def _adam(self, module: nn.Module) -> optim.Adam:
        return adam(module.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"])

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
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
        """Fit each environment's own classifier to its features, which stay as they are."""
        if self.hparams["class_balanced"]:
            with torch.no_grad():
                for own in self._own_classifiers():
                    own.weight.copy_(self.classifier.weight)
        fixed = [part.detach() for part in features]
        for _ in range(_INNER_STEPS):
            logits = [own(part) for own, part in zip(self._own_classifiers(), fixed, strict=True)]
            descend(environment_losses(logits, minibatches).sum(), self.optimizer_clist)

    def _transfer_risk(self, features: Sequence[Tensor], minibatches: Sequence[Minibatch]) -> Tensor:
        """Mean over environments of the risk on the others less the gradients' alignment; moves alpha."""
        eta, alignment = self.hparams["groupdro_eta"], self.hparams["cos_lambda"]
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
            # Upstream's backward pass sees the new weights, though the value is that of the old ones.
            moved = (new * risks).sum()
            total = total + moved + (weighted.sum() - moved).detach()
            total = total - alignment * (direction * gradient).sum()
        self.alpha = torch.stack(rows)
        return total / len(features)

    def predict(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.featurizer(x))
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # Upstream's checkpoints lack the classifiers of the environments, and their weights alpha.
        for name, value in self.state_dict(prefix=prefix).items():
            if name.startswith((f"{prefix}clist.", f"{prefix}alpha")):
                state_dict.setdefault(name, value)
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.no_grad()
def neumann(direction: Tensor, classifier: nn.Linear, features: Tensor) -> Tensor:
    """Upstream's Neumann series for (inverse Hessian) times `direction` (C, F).

    The Hessian H is that of the mean cross-entropy by the weight (C, F) of a linear `classifier` on
    `features` (B, F); it does not depend on the labels. With v_k = v_(k-1) - H v_(k-1) and v_0 =
    `direction`, the sum is 2 v_1 + v_2 + v_3 + ... (the series would begin with v_0 + v_1), over ten
    terms, or fewer: up to the one whose addition takes an entry above 10 in absolute value.
    """
    probabilities: Tensor = classifier(features).softmax(1)

    def hessian_product(v: Tensor) -> Tensor:
        change = probabilities * (features @ v.T)
        change -= probabilities * change.sum(1, keepdim=True)
        return change.T @ features / len(features)

    v = direction - hessian_product(direction)
    result = 2 * v
    for _ in range(_NEUMANN_ROUNDS - 1):
        v = v - hessian_product(v)
        # A stop without asking the device: a sum beyond the limit stays as it is.
        result = torch.where(result.abs().max() > _NEUMANN_LIMIT, result, result + v)
    return result
