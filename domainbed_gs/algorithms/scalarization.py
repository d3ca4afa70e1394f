"""Any scalarizer of TorchJD by name (Quinton and Rey 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Minibatch
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.loss_weights import LossWeightsMethod
from domainbed.algorithms.update_count import UpdateCount
from domainbed.errors import UsageError, misspelt
from domainbed.hparams import Hparam, const
from domainbed.seeds import counter_seed, global_seed
from domainbed_gs.algorithms.torchjd_objects import PREFIX, SCALARIZERS, TorchJDObject


@REGISTRY.register()
class Scalarization(UpdateCount, LossWeightsMethod):
    """A scalarizer of TorchJD by name (Quinton and Rey 2024): one number of the K losses.

    `scalarizer` is "torchjd:DWA", say, or "torchjd:STCH(mu=0.1)"; parameters `shape` are K by themselves. By
    default the mean, which is ERM and needs no TorchJD. What a scalarizer remembers is saved with the run.
    The network's optimizer has the parameters that it learns (UW, IMTLL) too, without weight decay. One that
    wants the losses after the step (FAMO) gets them from another forward pass, with the dropout masks of the
    first; one that counts epochs (DWA) has one every `scalarizer_epoch` updates. What one draws comes from
    torch's global generator, seeded for it by the run's seed and the update, and restored.
    """

    FACTS = Facts(
        year=2024,
        paper="Quinton and Rey, Jacobian descent for multi-objective optimization, arXiv 2406.16232",
        idea="Any scalarizer of the library TorchJD by name: one number of the losses",
        cost="By default the mean. TorchJD's FAMO costs another forward pass.",
        one_environment="ERM",
    )

    DISTRIBUTED = False
    HPARAMS = {
        "scalarizer": Hparam("Mean", const("Mean"), f"Mean, or {PREFIX}NAME, one of TorchJD's"),
        "scalarizer_epoch": Hparam(
            100, const(100), "updates of an epoch, for scalarizers that count them", at_least=1
        ),
    }
    STATE = ("scalarizer_seed",)
    TRANSIENT = ("_gradients",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        name = hparams["scalarizer"]
        scalarizer = None
        if name.startswith(PREFIX):
            scalarizer = TorchJDObject(name, SCALARIZERS, num_domains)
        elif name in REGISTRY:
            raise UsageError(f"scalarizer {name} is an algorithm of its own: choose --algorithm {name}")
        elif name != "Mean":
            raise misspelt(f"scalarizer not found: {name}", name, ["Mean", f"{PREFIX}NAME"])
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.scalarizer = scalarizer
        self.scalarizer_seed = global_seed()
        self._gradients: list[Tensor] = []
        # Registered here too, so that they are moved to a device with the network.
        self.learned = nn.ParameterList([] if scalarizer is None else scalarizer.learned())
        if len(self.learned):
            self.optimizer.add_param_group({"params": list(self.learned), "weight_decay": 0.0})

    def scalarize(self, losses: Tensor) -> Tensor:
        if self.scalarizer is None:
            return losses.mean()
        devices = [losses.device] if losses.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(counter_seed(self.scalarizer_seed, self.updates))
            return self.scalarizer(losses)

    def weighted(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        variables = losses.detach().requires_grad_()
        objective = self.scalarize(variables)
        weights, *self._gradients = torch.autograd.grad(objective, [variables, *self.learned])
        return objective.detach(), weights

    def step(self, loss: Tensor) -> None:
        # A term with the gradient that the number has by the scalarizer's parameters.
        for parameter, gradient in zip(self.learned, self._gradients, strict=True):
            loss = loss + (parameter * gradient).sum()
        super().step(loss)

    def finish(self, minibatches: Sequence[Minibatch], losses: Tensor) -> None:
        self.count_update()
        if self.scalarizer is None:
            return
        if self.scalarizer.can("update"):
            self.scalarizer.update(self.losses_again(minibatches))
        if self.scalarizer.can("step") and self.updates % self.hparams["scalarizer_epoch"] == 0:
            self.scalarizer.step()
