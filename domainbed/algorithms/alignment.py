"""Methods that make the features of different sets of samples alike in distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY, discrepancy
from domainbed.algorithms.base import DeviceScalar, Minibatch, environment_losses, scalar
from domainbed.algorithms.erm import ERM
from domainbed.hparams import Hparam, log10_uniform


class Alignment(ERM):
    """Base: mean risk plus gamma times a penalty on the features; one forward pass an environment.

    `kernel_type` says how sets of features are compared: "gaussian" (maximum mean discrepancy, seven
    widths) or "mean_cov" (means and covariances). `loss` is returned without the penalty.
    """

    HPARAMS = {"mmd_gamma": Hparam(1.0, log10_uniform(-1, 1), "weight of the penalty", at_least=0)}

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        gaussian: bool,
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.kernel_type = "gaussian" if gaussian else "mean_cov"

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        weight = self.hparams["mmd_gamma"]
        features: list[Tensor] = [self.featurizer(x) for x, _ in minibatches]
        risk = environment_losses(map(self.classifier, features), minibatches).mean()
        with torch.set_grad_enabled(weight > 0):
            penalty = self.penalty(features)
        self.step(risk + weight * penalty if weight else risk)
        return {"loss": scalar(risk), "penalty": scalar(penalty)}

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        """What is added to the risk (0-d), from the features (n_e, d) of each environment."""
        raise NotImplementedError

    def distance(self, samples: Sequence[Tensor]) -> Tensor:
        """Mean distance (0-d) over the pairs of sets of features (n, d); 0 for a single set."""
        if self.kernel_type == "gaussian":
            return discrepancy.gaussian_mmd(samples)
        return discrepancy.moment_distance(samples)

    def mmd(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance (0-d) of two sets of features, whichever kind it is."""
        return self.distance([x, y])

    def my_cdist(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Squared distances (n, m) of x1 (n, d) and x2 (m, d)."""
        return discrepancy.squared_distances(x1, x2)

    def gaussian_kernel(self, x: Tensor, y: Tensor, gamma: Sequence[float] = discrepancy.GAMMAS) -> Tensor:
        """Kernel matrix (n, m) of x (n, d) and y (m, d): a sum of Gaussians."""
        return discrepancy.gaussian_kernel(x, y, gamma)


class AbstractMMD(Alignment):
    """Base: the features of all environments are alike, compared pair by pair."""

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        return self.distance(features)


@REGISTRY.register()
class MMD(AbstractMMD):
    """Maximum mean discrepancy between the environments' features (Li et al., CVPR 2018).

    Beyond ERM: the kernel of all features with each other, some ten matrices (N, N), N the number of
    samples of all environments. With one environment it is ERM.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=True)


@REGISTRY.register()
class CORAL(AbstractMMD):
    """Deep CORAL: equal means and covariances of features (Sun and Saenko 2016, arXiv 1607.01719).

    Beyond ERM: K covariance matrices of the d features, a few d x d tensors for each. With one
    environment it is ERM; otherwise every environment needs two samples in its minibatch.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=False)


class AbstractCausIRL(Alignment):
    """Base: each environment is cut at random, and the first parts are alike with the second ones.

    Draws: for each environment one number of samples, 0 to n_e - 1, from NumPy's global generator. Without
    two samples on either side there is no penalty, and none where it overflows.
    """

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        cuts = [int(np.random.randint(0, len(each))) for each in features]
        first = torch.cat([each[:cut] for each, cut in zip(features, cuts, strict=True)])
        second = torch.cat([each[cut:] for each, cut in zip(features, cuts, strict=True)])
        if min(len(first), len(second)) < 2:
            return features[0].new_zeros(())
        return torch.nan_to_num(self.mmd(first, second))


@REGISTRY.register()
class CausIRL_CORAL(AbstractCausIRL):
    """Causal invariant representations with CORAL's distance (Chevalley et al. 2022, arXiv 2206.11646).

    Beyond ERM: two covariance matrices of the features.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=False)


@REGISTRY.register()
class CausIRL_MMD(AbstractCausIRL):
    """Causal invariant representations with MMD's distance (Chevalley et al. 2022, arXiv 2206.11646).

    Beyond ERM: the kernel of all features with each other, as in MMD.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=True)
