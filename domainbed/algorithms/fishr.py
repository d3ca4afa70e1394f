"""Fishr: invariance of the variance of gradients over environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.precision import full_precision
from domainbed.algorithms.update_count import AnnealedERM
from domainbed.errors import UsageError
from domainbed.gradients.recording import LayerPass
from domainbed.gradients.variance import logits_and_passes, require_linear_layers, variances_by_environment
from domainbed.hparams import Hparam, log10_uniform, uniform, uniform_int


class MovingAverage:
    """Exponential moving average m <- ema * m + (1 - ema) * data of named tensors, from m = 0.

    Args:
        ema: weight of the past, less than 1.
        oneminusema_correction: whether `update` returns m / (1 - ema), whose derivative by the newest data is
            1.

    Attributes:
        ema_data: averages m (1, N) by name, detached.
    """

    def __init__(self, ema: float, oneminusema_correction: bool = True) -> None:
        self.ema = ema
        self.ema_data: dict[str, Tensor] = {}
        self._updates = 0
        self._oneminusema_correction = oneminusema_correction

    def update(self, dict_data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add `dict_data`, tensors of N entries by name, and return the averages (1, N).

        The result is differentiable by `dict_data`. Past averages are moved to its device and dtype.
        """
        result = {}
        for name, data in dict_data.items():
            average = (1 - self.ema) * data.reshape(1, -1)
            if name in self.ema_data:
                average = average + self.ema * self.ema_data[name].to(average)
            self.ema_data[name] = average.detach()
            result[name] = average / (1 - self.ema) if self._oneminusema_correction else average
        self._updates += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {"ema_data": self.ema_data, "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the averages and the number of updates."""
        self.ema_data = dict(state_dict["ema_data"])
        self._updates = state_dict["updates"]


def l2_between_dicts(d1: Mapping[str, Tensor], d2: Mapping[str, Tensor]) -> Tensor:
    """Mean squared difference (0-d) over all entries of two dictionaries of tensors with the same keys."""
    assert len(d1) == len(d2), f"dictionaries of {len(d1)} and {len(d2)} tensors"
    differences = [(d1[key] - d2[key]).flatten() for key in sorted(d1)]
    return torch.cat(differences).square().mean()


@REGISTRY.register()
class Fishr(AnnealedERM):
    """Fishr (Rame et al., ICML 2022).

    The risk over all samples plus lambda times the mean squared distance of the environments' gradient
    variances from their mean. The variance is that of the per-sample gradients of the classifier, as a moving
    average over updates for each environment. The averages start at the first update; the penalty is added
    after `penalty_anneal_iters` updates, with a new optimizer.

    Raises: UsageError if the classifier has layers without a closed form.
    """

    FACTS = Facts(
        year=2022,
        paper=(
            "Rame et al., Fishr: Invariant gradient variances for out-of-distribution generalization, "
            "arXiv 2109.02934"
        ),
        idea="A penalty on the distances of the environments' gradient variances, of the classifier",
        cost=(
            "Two small matrix products for each environment and layer of the classifier; K averages of "
            "the classifier's size."
        ),
        one_environment="ERM",
        departures=(
            "Variances have a closed form (upstream: per-sample gradients by BackPACK). Averages are "
            "saved with a run."
        ),
    )

    HPARAMS = {
        "lambda": Hparam(1000.0, log10_uniform(1, 4), "weight of the penalty", at_least=0),
        "penalty_anneal_iters": Hparam(
            1500,
            uniform_int(0, 5000),
            "number of updates without the penalty",
            at_least=0,
            counts_updates=True,
        ),
        "ema": Hparam(
            0.95, uniform(0.90, 0.99), "weight of the past in the moving averages", at_least=0, below=1
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        require_linear_layers(self.classifier)
        self.num_domains = num_domains
        self.ema_per_domain = [MovingAverage(hparams["ema"]) for _ in range(num_domains)]

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        if len(minibatches) != self.num_domains:
            raise UsageError(
                f"Fishr averages the gradient variance of each of {self.num_domains} source environments and "
                f"needs as many minibatches, not {len(minibatches)}"
            )
        anneal = self.hparams["penalty_anneal_iters"]
        penalised = self.updates >= anneal
        x, y = concatenate(minibatches)
        features = self.featurizer(x)
        with full_precision(features):
            features = features.to(next(self.classifier.parameters()).dtype)
            logits, passes = logits_and_passes(self.classifier, features, y, differentiable=penalised)
            nll = F.cross_entropy(logits, y)
            penalty = self._penalty(passes, [len(y) for _, y in minibatches])
            loss = nll + (self.hparams["lambda"] if penalised else 0.0) * penalty
        self.annealed_step(loss, anneal)
        return {"loss": scalar(loss), "nll": scalar(nll), "penalty": scalar(penalty)}

    def _penalty(self, passes: dict[str, LayerPass], sizes: Sequence[int]) -> Tensor:
        """Mean squared distance (0-d) of the averaged variances from their mean over environments.

        Args:
            passes: inputs and output gradients of each linear layer, by name.
            sizes: number of samples of each environment.
        """
        variances = variances_by_environment(passes, sizes)
        averaged = [ema.update(own) for ema, own in zip(self.ema_per_domain, variances, strict=True)]
        # Detached: the derivative by the mean is the sum of the deviations from it, which is 0.
        mean = {name: torch.stack([own[name].detach() for own in averaged]).mean(0) for name in averaged[0]}
        return torch.stack([l2_between_dicts(own, mean) for own in averaged]).mean()
