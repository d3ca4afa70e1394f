"""SelfReg: samples of the same class, whatever their environment, are drawn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.hparams import Hparam, const


@REGISTRY.register()
class SelfReg(ERM):
    """Self-supervised contrastive regularisation (Kim et al. 2021, arXiv 2104.09841).

    Logits, and features against projected features, are pulled toward those of another sample of the class
    (weight lambda) and toward a mixture of two (weight 1 - lambda). Upstream never trains the projection
    `cdpl`; the switch `selfreg_train_projection` does. Needs a pass of three small layers beyond ERM, and
    two samples or more in all.

    Draws: lambda ~ Beta(1/2, 1/2) from NumPy's global generator; then for each class, in ascending order, two
    permutations of its samples from torch's.
    """

    SWITCHES = {"selfreg_train_projection": Hparam(False, const(False), "train the projection cdpl too")}

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

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        share = float(np.random.beta(0.5, 0.5))
        x, y = concatenate(minibatches)
        order, partners, others = (index.to(y.device) for index in same_class_partners(y.cpu()))
        x, y = x[order], y[order]
        features = self.featurizer(x)
        projected = self.cdpl(features)
        logits = self.classifier(features)

        def contrast(values: Tensor, views: Tensor) -> Tensor:
            partner = views[partners]
            mixed = share * partner + (1 - share) * views[others]
            near, far = self.MSEloss(values, partner), self.MSEloss(values, mixed)
            return torch.lerp(far, near, share)

        loss = F.cross_entropy(logits, y)
        pull = contrast(logits, logits) + 0.3 * contrast(features, projected)
        loss = loss + loss.detach().clamp(max=1.0) * pull
        self.step(loss)
        return {"loss": scalar(loss)}


def same_class_partners(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three orders (B,) of the samples with labels `y` (B,), which are on the CPU.

    Returns: one that sorts them by label; and two that, on what is sorted, give each sample another of its
        class (or itself). Draws: two permutations a class, in ascending order of the classes.
    """
    # Not stable, as upstream's: who stands where in a class decides what a permutation means.
    labels, order = torch.sort(y)
    sizes = labels.unique_consecutive(return_counts=True)[1].tolist()
    partners, others, start = [], [], 0
    for size in sizes:
        partners.append(start + torch.randperm(size))
        others.append(start + torch.randperm(size))
        start += size
    return order, torch.cat(partners), torch.cat(others)
