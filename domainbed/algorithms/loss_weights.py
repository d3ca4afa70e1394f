"""The third kind of rule: weights of the environments that follow from the values of their losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.environments import environment_losses
from domainbed.algorithms.erm import ERM


class LossWeightsMethod(ERM):
    """Base of rules that make one number of the K losses. A subclass gives `scalarize`.

    The update is sum_k w_k grad L_k, where w_k is the derivative of that number by L_k. No environment's own
    gradient is made: one pass over all samples, at the price of an ERM step.

    Every update returns, beside `loss` (the mean over environments):
        objective: the number;
        largest_weight: the greatest weight's share of the sum of weights, 1/K if all are equal.
    """

    DISTRIBUTED = True
    TRANSIENT: ClassVar[tuple[str, ...]] = ("_seed",)

    @abstractmethod
    def scalarize(self, losses: Tensor) -> Tensor:
        """The number (0-d) to descend, as a differentiable function of the losses (K,)."""

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        self._seed = int(torch.randint(2**62, ()))
        torch.manual_seed(self._seed)
        own = environment_losses(self.joint_logits(minibatches), minibatches)
        losses = self.all_losses(own)
        objective, weights = self.weighted(losses)
        # Not `@`: under autocast a product of vectors would be rounded to bfloat16.
        self.step((weights[self.process_group.own_environments(len(own))] * own).sum())
        self.finish(minibatches, losses)
        return {
            "loss": scalar(losses.mean()),
            "objective": scalar(objective),
            "largest_weight": scalar(weights.max() / weights.sum()),
        }

    def weighted(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """The number to descend (0-d), detached, and its derivatives by the losses (K,)."""
        variables = losses.detach().requires_grad_()
        objective = self.scalarize(variables)
        (weights,) = torch.autograd.grad(objective, [variables])
        return objective.detach(), weights

    def finish(self, minibatches: Sequence[Minibatch], losses: Tensor) -> None:
        """What remains to do after the optimizer's step; `losses` (K,) are those before it."""

    @torch.no_grad()
    def losses_again(self, minibatches: Sequence[Minibatch]) -> Tensor:
        """Losses (K,) with the present weights, and with the dropout masks that the update's pass had.

        Running statistics of batch norms stay as they are.
        """
        torch.manual_seed(self._seed)
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        logits = functional_call(self.network, buffers, (concatenate(minibatches)[0],))
        parts = logits.split([len(y) for _, y in minibatches])
        return self.all_losses(environment_losses(parts, minibatches))

    def all_losses(self, own: Tensor) -> Tensor:
        """Losses (K,) of the environments of all processes, detached, given those of this process's own."""
        losses = own.detach().new_zeros(self.process_group.sum_int(len(own)))
        losses[self.process_group.own_environments(len(own))] = own.detach()
        return self.process_group.sum(losses)
