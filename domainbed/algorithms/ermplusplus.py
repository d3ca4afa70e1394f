"""ERM++: ERM with what is known to help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import DeviceScalar, Minibatch, concatenate, descend, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.lars import LARS
from domainbed.algorithms.optimizers import adam
from domainbed.algorithms.weight_average import ErmPlusPlusMovingAvg
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const, log10_uniform

Schedule = list[list[float]]
"""One list of one learning rate a checkpoint; [0.0] ends the training."""

_CHANGES = 3  # the change of the learning rate at which training ends


@REGISTRY.register()
class ERMPlusPlus(ERM, ErmPlusPlusMovingAvg):
    """ERM++ (Teterwak et al. 2023, arXiv 2304.01973).

    Updates 0 to `linear_steps` train the classifier alone, with `linear_lr`. Predictions come from a running
    mean of the weights, whose batch norms see each update's minibatches once more (unless `freeze_bn`), so
    that an update costs one forward pass more than ERM's; memory: one more copy of the network. With `set_lr`
    a first training can look for the learning rates that a second one, on all images, follows.

    Attributes:
        lr_schedule: learning rates that `set_lr` has found so far.
        lr_schedule_changes: how often they have changed.
    """

    HPARAMS = {
        "lars": Hparam(False, const(False), "LARS as optimizer"),
        "linear_steps": Hparam(500, const(500), "updates of the classifier alone", at_least=0),
        "linear_lr": Hparam(5e-5, log10_uniform(-5, -3.5), "learning rate of the classifier alone", above=0),
    }
    network: nn.Sequential
    STATE = ("global_iter", "lr_schedule", "lr_schedule_changes")

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.linear_optimizer = self._optimizer(self.classifier, hparams["linear_lr"])
        self.lr_schedule: Schedule = []
        self.lr_schedule_changes = 0
        self.scheduler = optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, "min", patience=1)
        ErmPlusPlusMovingAvg.__init__(self, self.network)

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        return self._optimizer(self.network, self.hparams["lr"] if lr is None else lr)

    def _optimizer(self, module: nn.Module, lr: float) -> optim.Optimizer:
        decay = self.hparams["weight_decay"]
        if self.hparams["lars"]:
            return LARS(module.parameters(), lr=lr, weight_decay=decay)
        return adam(module.parameters(), lr=lr, weight_decay=decay)

    def update(
        self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None
    ) -> Mapping[str, float | DeviceScalar]:
        x, y = concatenate(minibatches)
        linear = not self._is_full()
        with torch.set_grad_enabled(not linear):
            features = self.featurizer(x)
        loss = F.cross_entropy(self.classifier(features), y)
        descend(loss, self.linear_optimizer if linear else self.optimizer)
        self.update_sma()
        if not self.hparams["freeze_bn"]:
            self._refresh_batch_norms(x)
        return {"loss": scalar(loss)}

    def _is_full(self) -> bool:
        """Whether the next update trains the featurizer too."""
        return self.global_iter > int(self.hparams["linear_steps"])

    @torch.no_grad()
    def _refresh_batch_norms(self, x: Tensor) -> None:
        """Let the averaged network's running statistics, which are averages too, follow its weights."""
        self.network_sma.train()
        self.network_sma(x)

    def predict(self, x: Tensor) -> Tensor:
        self.network_sma.eval()
        logits: Tensor = self.network_sma(x)
        return logits

    @torch.no_grad()
    def set_lr(
        self,
        eval_loaders_iid: Iterable[Iterable[Minibatch]] | None = None,
        schedule: Schedule | None = None,
        device: torch.device | str | None = None,
    ) -> Schedule | None:
        """Look for learning rates, or follow those found before; not while the classifier trains alone.

        Args:
            eval_loaders_iid: batches of each source's validation part, to look for the next learning rate: it
                falls to a tenth each time that their mean loss has twice not improved.
            schedule: what a search has found, to follow: its first entry becomes the learning rate.
            device: where the batches go; the model's if None.

        Returns: when looking, `lr_schedule`, which ends with [0.0] where training should end (the third
            change). When following, the rest of `schedule`. Otherwise `schedule` as it was given.

        Raises: UsageError with neither loaders nor a schedule, or with one that is used up.
        """
        if not self._is_full():
            return schedule
        if schedule is not None:
            return self._follow(schedule)
        if eval_loaders_iid is None:
            raise UsageError(
                "set_lr needs eval_loaders_iid to look for learning rates, or a schedule to follow"
            )
        self.scheduler.step(self._validation_loss(eval_loaders_iid, device))
        self.lr_schedule.append([float(lr) for lr in self.scheduler.get_last_lr()])
        if len(self.lr_schedule) > 1 and self.lr_schedule[-1] != self.lr_schedule[-2]:
            self.lr_schedule_changes += 1
        if self.lr_schedule_changes == _CHANGES:
            self.lr_schedule[-1] = [0.0]
        return self.lr_schedule

    def _follow(self, schedule: Schedule) -> Schedule:
        if not schedule:
            raise UsageError("set_lr was given an empty schedule; follow one as long as it has entries")
        # A tensor, as upstream's; on the CPU, where optimizers read it without waiting for the device.
        self.optimizer.param_groups[0]["lr"] = torch.tensor(schedule[0][0], dtype=torch.float32)
        return schedule[1:]

    def _validation_loss(
        self, loaders: Iterable[Iterable[Minibatch]], device: torch.device | str | None
    ) -> float:
        """Mean over loaders of the mean over batches of the averaged network's loss."""
        device = next(self.network_sma.parameters()).device if device is None else device
        self.network_sma.eval()
        means = []
        for loader in loaders:
            losses = [F.cross_entropy(self.network_sma(x.to(device)), y.to(device)) for x, y in loader]
            means.append(torch.stack(losses).mean())
        return float(torch.stack(means).mean())
