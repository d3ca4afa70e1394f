"""SelfReg: features of samples of one class are made similar across environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, const


@REGISTRY.register()
class SelfReg(ERM):
    """Self-supervised contrastive regularisation (Kim et al. 2021).

    The logits of a sample are pulled toward those of another sample of its class (weight lambda) and toward a
    mixture of two (weight 1 - lambda). Its features are pulled in the same way toward the projected features
    of those samples. As in upstream, the projection `cdpl` is not trained unless `selfreg_train_projection`
    is set. The minibatches together need two samples or more.

    Draws lambda ~ Beta(1/2, 1/2) from NumPy's global generator and then, for each class in ascending order,
    two permutations of its samples from torch's.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Kim et al., SelfReg: Self-supervised contrastive regularization for domain generalization, "
            "arXiv 2104.09841"
        ),
        idea="Pulls features and logits of samples of one class together, also toward their mixtures",
        cost="A pass of three linear layers.",
        departures="The projection is not trained, as upstream, unless `selfreg_train_projection` is set.",
    )

    SWITCHES = {
        "selfreg_train_projection": Hparam(
            False, const(False), "train the projection cdpl (upstream does not)"
        )
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.num_classes = num_classes
        self.MSEloss = nn.MSELoss()
        width = self.featurizer.n_outputs
        hidden = width if width == 2048 else 2 * width
        self.cdpl = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
            nn.BatchNorm1d(width),
        )
        if self.switch("selfreg_train_projection"):
            self.optimizer.add_param_group({"params": list(self.cdpl.parameters())})
        else:
            self.cdpl.requires_grad_(False)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        lam = float(np.random.beta(0.5, 0.5))
        x, y = concatenate(minibatches)
        order, partners, others = (index.to(y.device) for index in same_class_partners(y.cpu()))
        x, y = x[order], y[order]
        features = self.featurizer(x)
        projected = self.cdpl(features)
        logits = self.classifier(features)

        def dissimilarity(values: Tensor, views: Tensor) -> Tensor:
            partner = views[partners]
            mixed = lam * partner + (1 - lam) * views[others]
            return torch.lerp(self.MSEloss(values, mixed), self.MSEloss(values, partner), lam)

        loss = F.cross_entropy(logits, y)
        penalty = dissimilarity(logits, logits) + 0.3 * dissimilarity(features, projected)
        loss = loss + loss.detach().clamp(max=1.0) * penalty
        self.step(loss)
        return {"loss": scalar(loss)}


def same_class_partners(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An order of the samples by label, and two random permutations of the result within the classes.

    Draws two permutations for each class, in ascending order of the classes.

    Args:
        y: labels (B,) on the CPU.

    Returns: three index tensors (B,).
    """
    # Not stable, as in upstream: the order within a class decides which samples the permutations select.
    labels, order = torch.sort(y)
    sizes = labels.unique_consecutive(return_counts=True)[1].tolist()
    partners, others, start = [], [], 0
    for size in sizes:
        partners.append(start + torch.randperm(size))
        others.append(start + torch.randperm(size))
        start += size
    return order, torch.cat(partners), torch.cat(others)
