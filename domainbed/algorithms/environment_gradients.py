"""What algorithms share that need the gradient of each environment's own loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.erm import ERM
from domainbed.errors import check_choice
from domainbed.gradients.domain_gradients import environment_gradients
from domainbed.gradients.fused import WORTHWHILE, can_fuse
from domainbed.gradients.joint_pass import JointPass, NotSamplewise
from domainbed.hparams import Hparam, Kind, const


class EnvironmentGradients(ERM):
    """Base: K gradients, one for each source environment, either way at the price of one ERM step.

    Where no layer mixes samples, they come from one forward and one backward pass over all samples, piece
    by piece; else from a pass for each environment. Both give the same gradients up to rounding, dropout
    included on the CPU (elsewhere its masks differ). The switch `passes` can ask for the second way, and
    `rules` for the same without compiled functions.
    """

    SWITCHES = {
        "passes": Hparam(
            "auto",
            const("auto"),
            "gradients of environments: auto (jointly where possible) or separate",
            choices=("auto", "separate"),
            kind=Kind.INCIDENTAL,
        ),
        "rules": Hparam(
            "auto",
            const("auto"),
            "rules over gradients: auto (compiled where they are large) or plain",
            choices=("auto", "plain"),
            kind=Kind.INCIDENTAL,
        ),
    }

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        check_choice("hyper-parameter passes is", self.switch("passes"), ("auto", "separate"))
        check_choice("hyper-parameter rules is", self.switch("rules"), ("auto", "plain"))
        self._joint: bool | None = None  # not known yet
        self._fuses: bool | None = None  # likewise
        self._buffer: Tensor | None = None

    def environment_seeds(self, minibatches: Sequence[Minibatch]) -> list[int]:
        """Seeds of the random numbers, dropout's for instance, that each environment's loss draws."""
        return torch.randint(2**62, (len(minibatches),)).tolist()

    def joint_pass(
        self,
        minibatches: Sequence[Minibatch],
        parameters: Sequence[nn.Parameter],
        seeds: Sequence[int],
    ) -> JointPass | None:
        """The pass over all samples, forward only yet; None where it would not do."""
        if self._joint is None:
            self._joint = self._takes_samples_one_by_one() and self.switch("passes") == "auto"
        if self._joint and self.process_group.world_size == 1:
            try:
                return JointPass(self.predict, minibatches, parameters, seeds)
            except NotSamplewise:
                self._joint = False
        return None

    def _takes_samples_one_by_one(self) -> bool:
        """Whether a sample's loss and gradient depend on that sample alone, as far as is known."""
        # A class of a user's that predicts or measures in its own way may mix samples.
        plain = type(self).predict is ERM.predict and type(self).loss_of is EnvironmentGradients.loss_of
        live = any(layer.training for layer in self.modules() if isinstance(layer, _BatchNorm))
        return plain and self.featurizer.SAMPLEWISE and not live

    def separate_passes(
        self,
        minibatches: Sequence[Minibatch],
        parameters: Sequence[nn.Parameter],
        seeds: Sequence[int],
        losses: list[Tensor],
    ) -> Iterator[Tensor]:
        """The environments' gradients (P,) one by one; their losses are appended to `losses`."""
        for loss, gradient in environment_gradients(self.loss_of, minibatches, parameters, seeds):
            losses.append(loss)
            yield gradient

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss (0-d) of one environment."""
        return F.cross_entropy(self.predict(x), y)

    def fuses(self, gradient: Tensor) -> bool:
        """Whether rules that make `gradient` (P,) are compiled; found out once."""
        if self._fuses is None:
            large = len(gradient) >= WORTHWHILE
            self._fuses = self.switch("rules") == "auto" and large and can_fuse(gradient.device)
        return self._fuses

    def gradient_buffer(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Where the combined gradient (P,) is written, in every update anew.

        Memory that is asked for afresh costs a pass over it, page by page.
        """
        size = sum(parameter.numel() for parameter in parameters)
        if self._buffer is None or self._buffer.numel() != size:
            self._buffer = torch.empty(size, dtype=parameters[0].dtype, device=parameters[0].device)
        return self._buffer
