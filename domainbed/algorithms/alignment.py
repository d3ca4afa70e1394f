"""Methods that align the distributions of features of different sets of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY, discrepancy
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, log10_uniform


class Alignment(ERM):
    """Base: the mean risk plus gamma times a penalty on the features. One forward pass for each environment.

    The logged `loss` does not include the penalty.

    Args:
        gaussian: whether sets of features are compared by their maximum mean discrepancy; otherwise by their
            means and covariances. The attribute `kernel_type` is "gaussian" or "mean_cov".
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

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        gamma = self.hparams["mmd_gamma"]
        features: list[Tensor] = [self.featurizer(x) for x, _ in minibatches]
        risk = environment_losses(map(self.classifier, features), minibatches).mean()
        with torch.set_grad_enabled(gamma > 0):
            penalty = self.penalty(features)
        self.step(risk + gamma * penalty if gamma else risk)
        return {"loss": scalar(risk), "penalty": scalar(penalty)}

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        """Penalty (0-d) on the features (n_e, d) of each environment."""
        raise NotImplementedError

    def distance(self, samples: Sequence[Tensor]) -> Tensor:
        """Mean discrepancy (0-d) over pairs of sets of features (n, d); 0 for a single set."""
        if self.kernel_type == "gaussian":
            return discrepancy.gaussian_mmd(samples)
        return discrepancy.moment_distance(samples)

    def mmd(self, x: Tensor, y: Tensor) -> Tensor:
        """Discrepancy (0-d) of two sets of features (n, d) and (m, d), of either kind."""
        return self.distance([x, y])

    def my_cdist(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Squared distances (n, m) of features x1 (n, d) and x2 (m, d)."""
        return discrepancy.squared_distances(x1, x2)

    def gaussian_kernel(self, x: Tensor, y: Tensor, gamma: Sequence[float] = discrepancy.GAMMAS) -> Tensor:
        """Kernel matrix (n, m) of features x (n, d) and y (m, d), a sum of Gaussians."""
        return discrepancy.gaussian_kernel(x, y, gamma)


class AbstractMMD(Alignment):
    """Base: the penalty is the mean discrepancy over pairs of environments."""

    def penalty(self, features: Sequence[Tensor]) -> Tensor:
        return self.distance(features)


@REGISTRY.register()
class MMD(AbstractMMD):
    """Maximum mean discrepancy between the features of environments (Li et al., CVPR 2018).

    The penalty is the biased estimate of the squared discrepancy, with a sum of seven Gaussian kernels.
    """

    FACTS = Facts(
        year=2018,
        paper="Li et al., Domain generalization with adversarial feature learning, CVPR",
        idea=(
            "Aligns the features' distributions of each pair of environments by their maximum mean "
            "discrepancy"
        ),
        cost=(
            "The kernel of all features with each other: some ten matrices (N, N) of the N samples of all "
            "environments."
        ),
        one_environment="ERM",
        departures="Without the paper's adversarial autoencoder, as upstream.",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=True)


@REGISTRY.register()
class CORAL(AbstractMMD):
    """Deep CORAL (Sun and Saenko 2016, equation 1), for means as well as covariances.

    With one environment it is ERM. Otherwise each minibatch needs two samples or more.
    """

    FACTS = Facts(
        year=2016,
        paper=(
            "Sun and Saenko, Deep CORAL: Correlation alignment for deep domain adaptation, arXiv 1607.01719"
        ),
        idea="Aligns means and covariances of the features of each pair of environments",
        cost="K covariance matrices (d, d) of the d features.",
        one_environment="ERM",
        departures="One sample in an environment is refused (upstream: NaN).",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=False)


class AbstractCausIRL(Alignment):
    """Base: each minibatch is cut at a random position; the first parts are aligned with the second parts.

    The penalty is 0 if the first or the second parts have less than two samples together; NaN counts as 0.

    Draws for each environment one integer from 0 to n_e - 1 from NumPy's global generator.
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
    """Causal invariant representations with CORAL's discrepancy (Chevalley et al. 2022)."""

    FACTS = Facts(
        year=2022,
        paper="Chevalley et al., Invariant causal mechanisms through distribution matching, arXiv 2206.11646",
        idea="Aligns random parts of the minibatches by CORAL's discrepancy",
        cost="Two covariance matrices of the features.",
        one_environment="an alignment of parts of one environment",
        departures="Nothing is added to the logits (upstream: 1e-16).",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=False)


@REGISTRY.register()
class CausIRL_MMD(AbstractCausIRL):
    """Causal invariant representations with MMD's discrepancy (Chevalley et al. 2022)."""

    FACTS = Facts(
        year=2022,
        paper="Chevalley et al., Invariant causal mechanisms through distribution matching, arXiv 2206.11646",
        idea="Aligns random parts of the minibatches by MMD's discrepancy",
        cost="As MMD.",
        one_environment="an alignment of parts of one environment",
        departures="Nothing is added to the logits (upstream: 1e-16).",
    )

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, gaussian=True)
