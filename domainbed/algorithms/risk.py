"""Methods that change how the environments' risks are weighted or add a penalty on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.annealed import Annealed
from domainbed.algorithms.base import DeviceScalar, Minibatch, environment_losses, scalar
from domainbed.algorithms.erm import ERM
from domainbed.hparams import Hparam, log10_int, log10_uniform


@REGISTRY.register()
class IRM(Annealed):
    """Invariant risk minimisation (Arjovsky et al. 2019, arXiv 1907.02893), penalty IRMv1.

    One forward pass over all environments; mean risk plus lambda times the mean penalty. When the
    penalty takes effect, after `irm_penalty_anneal_iters` updates, the optimizer starts anew.
    """

    HPARAMS = {
        "irm_lambda": Hparam(100.0, log10_uniform(-1, 5), "weight of the penalty", at_least=0),
        "irm_penalty_anneal_iters": Hparam(
            500, log10_int(0, 4), "updates before the penalty has its weight", at_least=0
        ),
    }

    @staticmethod
    def _irm_penalty(logits: Tensor, y: Tensor) -> Tensor:
        """Squared gradient of the risk by a scale of the logits, without bias: from two halves of the batch.

        It may be negative. A minibatch of one sample has an empty half, and no penalty.
        """
        scale = torch.ones((), device=logits.device, dtype=logits.dtype, requires_grad=True)
        gradients = [
            torch.autograd.grad(F.cross_entropy(logits[half] * scale, y[half]), [scale], create_graph=True)[0]
            for half in (slice(0, None, 2), slice(1, None, 2))
        ]
        return gradients[0] * gradients[1]

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        anneal = self.hparams["irm_penalty_anneal_iters"]
        weight = self.hparams["irm_lambda"] if self.updates >= anneal else 1.0
        logits = self.joint_logits(minibatches)
        nll = environment_losses(logits, minibatches).mean()
        penalties = [self._irm_penalty(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)]
        penalty = torch.stack(penalties).mean()
        loss = nll + weight * penalty
        self.annealed_step(loss, anneal)
        return {"loss": scalar(loss), "nll": scalar(nll), "penalty": scalar(penalty)}


@REGISTRY.register()
class GroupDRO(ERM):
    """Group distributionally robust optimisation (Sagawa et al. 2020, arXiv 1911.08731, algorithm 1).

    Environments with high risk gain weight, exponentially.
    """

    HPARAMS = {"groupdro_eta": Hparam(0.01, log10_uniform(-3, -1), "step size of the weights q", at_least=0)}

    q: Tensor

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        # Empty until the first update, as in upstream's checkpoints.
        self.register_buffer("q", torch.tensor([]))

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        losses = torch.stack([F.cross_entropy(self.predict(x), y) for x, y in minibatches])
        q = self.q if len(self.q) else torch.ones_like(losses)
        q = q * (self.hparams["groupdro_eta"] * losses.detach()).exp()
        self.q = q / q.sum()
        loss = self.q @ losses
        self.step(loss)
        return {"loss": scalar(loss)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        # A new object's q is empty, a used one's has K entries.
        self.q = torch.empty_like(state_dict.get(prefix + "q", self.q), device=self.q.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
