"""GGA (Ballas and Diou 2025, "Gradient-guided annealing for domain generalization")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.update_count import UpdateCount
from domainbed.gradients.comparison import cosines
from domainbed.gradients.engine import GradientEngine
from domainbed.gradients.random_numbers import uniform
from domainbed.gradients.vectors import flat, set_values
from domainbed.hparams import Hparam, choice, const, log10_uniform
from domainbed.seeds import counter_seed, global_seed


def lowest_cosine(gram: Tensor) -> Tensor:
    """Lowest cosine similarity of two gradients, from inner products (K, K) with K > 1; 0-d."""
    return cosines(gram).fill_diagonal_(2).min()


@REGISTRY.register()
class GGA(UpdateCount, ERM):
    """GGA (Ballas and Diou 2025): ERM that for some updates first looks for weights where gradients agree.

    In the updates from `gga_start` on, `gga_length` + 1 of them, `gga_trials` random moves are tried before
    the step. Each moves every component of the featurizer's parameters by up to `gga_radius`, uniformly, from
    where the move before it ended. A point is accepted if the lowest cosine similarity of two environments'
    gradients (by all parameters) is above the best so far, and the loss less than `gga_slack` above that of
    the best so far. Then the moves start again from the weights that the update began with; with
    `gga_restart` "always" they do so after every move. ERM's step starts from the best point. That is the
    authors' code: a greedy search, without a temperature. With one environment, it is ERM.

    Each trial draws new dropout masks, as in the authors' code, so the search selects masks too;
    `gga_same_masks` keeps them. Running statistics of batch norms are not changed by the search. In updates
    with a search, `accepted` (number of moves) and `lowest_cosine` (at the best point) are logged.
    """

    FACTS = Facts(
        year=2025,
        paper="Ballas and Diou, Gradient-guided annealing for domain generalization, CVPR, arXiv 2502.20162",
        idea="ERM that for some updates first searches for weights where the gradients agree",
        time="6",
        memory="K + 5",
        cost=(
            "`gga_trials` + 2 = 252 ERM steps in each of the 101 updates with a search, 25,000 in all; one "
            "in each of the others. The memory is that of the search, less in a joint pass."
        ),
        one_environment="ERM",
        departures=(
            "A trial's loss is that of its gradients' pass (the authors' code: another forward pass, 6.7 "
            "times a run). Running statistics are not changed by the search. One window of updates (their "
            "command line: a second one on request)."
        ),
    )

    DISTRIBUTED = False
    HPARAMS = {
        "gga_start": Hparam(100, const(100), "first update with a search", at_least=0, counts_updates=True),
        "gga_length": Hparam(
            100,
            choice(50, 100),
            "updates from the first to the last one with a search",
            at_least=0,
            counts_updates=True,
        ),
        "gga_trials": Hparam(250, const(250), "random moves in an update with a search", at_least=0),
        "gga_radius": Hparam(1e-5, log10_uniform(-6, -4), "largest move of a component", at_least=0),
        "gga_slack": Hparam(0.1, const(0.1), "an accepted point's loss rises by less", above=0),
        "gga_restart": Hparam(
            "accepted",
            const("accepted"),
            "when moves start again from the first weights: accepted (moves alone) or always",
            choices=("accepted", "always"),
        ),
        "gga_same_masks": Hparam(False, const(False), "the same dropout masks in all trials of an update"),
    }
    STATE = ("search_seed",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.search_seed = global_seed()
        self.engine = GradientEngine(
            self, samplewise=self.featurizer.SAMPLEWISE, passes="auto", rules="plain"
        )

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss (0-d) of one environment."""
        return F.cross_entropy(self.predict(x), y)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        found: Metrics = {}
        since_start = self.updates - self.hparams["gga_start"]
        if 0 <= since_start <= self.hparams["gga_length"] and len(minibatches) > 1:
            found = self.search(minibatches)
        returned = super().update(minibatches, unlabeled)
        self.count_update()
        return {**returned, **found}

    def search(self, minibatches: Sequence[Minibatch]) -> Metrics:
        """Move the weights to the best point of a random search. Nothing waits for the device."""
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        parameters = [each for each in self.featurizer.parameters() if each.requires_grad]
        start = flat(parameters)
        best = point = start
        seeds = self._seeds(len(minibatches))
        loss, similarity = self._measure(minibatches, seeds)
        accepted = torch.zeros_like(similarity)
        for trial in range(self.hparams["gga_trials"]):
            draws = uniform(start, counter_seed(self.search_seed, self.updates, trial))
            point = point + self.hparams["gga_radius"] * (2 * draws - 1)
            set_values(parameters, point)
            if not self.hparams["gga_same_masks"]:
                seeds = self._seeds(len(minibatches))
            new_loss, new_similarity = self._measure(minibatches, seeds)
            better = (new_similarity > similarity) & (new_loss - loss < self.hparams["gga_slack"])
            best = torch.where(better, point, best)
            loss = torch.where(better, new_loss, loss)
            similarity = torch.where(better, new_similarity, similarity)
            accepted += better
            always = self.hparams["gga_restart"] == "always"
            point = start if always else torch.where(better, start, point)
        set_values(parameters, best)
        for buffer, value in zip(self.network.buffers(), statistics, strict=True):
            buffer.copy_(value)
        return {"accepted": scalar(accepted), "lowest_cosine": scalar(similarity)}

    def _measure(self, minibatches: Sequence[Minibatch], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Loss of all samples and lowest cosine of the environments' gradients, at the weights; 0-d each."""
        losses, gram = self.engine.inner_products(minibatches, seeds)
        sizes = torch.tensor([len(y) for _, y in minibatches], dtype=losses.dtype)
        shares = (sizes / sizes.sum()).to(losses.device, non_blocking=True)
        return (losses * shares).sum(), lowest_cosine(gram)

    @staticmethod
    def _seeds(k: int) -> list[int]:
        """Seeds of the dropout masks of K environments."""
        return torch.randint(2**62, (k,)).tolist()
