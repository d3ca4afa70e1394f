"""ERM++: ERM with a running mean of the weights, a linear warm-up, and a search for learning rates."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Metrics, Minibatch, concatenate, scalar
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.facts import Facts
from domainbed.algorithms.optimizers import CHOICE, descend
from domainbed.algorithms.running_average import RunningAverage
from domainbed.errors import UsageError
from domainbed.hparams import Hparam, const, log10_uniform, option
from domainbed.networks.stages import frozen_names

Schedule = list[list[float]]
"""For each checkpoint, a list of one learning rate. [0.0] ends the training."""

_MAX_CHANGES = 3  # training ends when the learning rate changes for the third time


class LARS(optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017, arXiv 1708.03888) of SGD with momentum.

    A gradient g of a parameter p with two or more dimensions becomes g + weight_decay * p, and is then
    multiplied by trust_coefficient * |p| / |g|. Those of biases and norm layers stay as they are.

    Args:
        params: parameters, or groups of them.
        lr: learning rate; a number or a 0-d tensor.
        weight_decay: coupled (L2) weight decay.
        momentum: decay of the buffer mu <- momentum * mu + g, which starts at 0.
        trust_coefficient: norm of a step with lr 1, divided by the norm of the weights.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0,
        weight_decay: float = 0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # upstream's takes no closure
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if parameter.dim() > 1:
                    gradient = gradient + group["weight_decay"] * parameter
                    gradient = gradient * _trust_ratio(parameter, gradient, group["trust_coefficient"])
                state = self.state[parameter]
                if "mu" not in state:
                    state["mu"] = torch.zeros_like(parameter)
                state["mu"].mul_(group["momentum"]).add_(gradient)
                parameter.sub_(group["lr"] * state["mu"])


def _trust_ratio(parameter: Tensor, gradient: Tensor, coefficient: float) -> Tensor:
    """Factor of the gradient (0-d); 1 if the parameter or the gradient is zero."""
    weight_norm, gradient_norm = parameter.norm(), gradient.norm()
    return torch.where(
        (weight_norm > 0) & (gradient_norm > 0),
        coefficient * weight_norm / gradient_norm,
        torch.ones_like(weight_norm),
    )


class ErmPlusPlusMovingAvg:
    """Averaged copy of a network: equal to it before update `sma_start_iter`, a running mean from then on.

    Running statistics of batch norms are averaged like weights. Their counts of batches are the copy's own.

    Args:
        network: the network to average.

    Attributes:
        network_sma: the averaged copy, in evaluation mode.
        sma_start_iter: number of the first averaged update.
        global_iter: number of updates so far.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.network_sma = copy.deepcopy(network)
        self.network_sma.eval()
        self.sma_start_iter = 600
        self.global_iter = 0
        self.running_average = RunningAverage()

    @property
    def sma_count(self) -> int:
        """Number of states in the mean, not counting the first."""
        return self.running_average.count

    def update_sma(self) -> None:
        """Update the averaged copy. Call this after each update of the network."""
        self.global_iter += 1
        average, current = _averaged_tensors(self.network_sma), _averaged_tensors(self.network)
        if self.global_iter >= self.sma_start_iter:
            self.running_average.update(average, current)
        else:
            torch._foreach_copy_(list(average.values()), list(current.values()))


def _averaged_tensors(network: nn.Module) -> dict[str, Tensor]:
    left_out = frozen_names(network)
    return {
        name: value
        for name, value in network.state_dict().items()
        if "num_batches_tracked" not in name and name not in left_out
    }


@REGISTRY.register()
class ERMPlusPlus(ERM, ErmPlusPlusMovingAvg):
    """ERM++ (Teterwak et al. 2023).

    Updates 0 to `linear_steps` train the classifier only, with `linear_lr`. Predictions use the running mean
    of the weights. Unless `freeze_bn` is set, its batch norms see the minibatches of each update. With
    `set_lr`, a first training can search for the learning rates that a second one, on all images, follows. A
    run's own schedule (`schedule`, `warmup_steps`) multiplies both learning rates, those of LARS too, over
    all updates; `set_lr` then raises an error.

    Attributes:
        lr_schedule: learning rates that `set_lr` has found so far.
        lr_schedule_changes: how often they have changed.
    """

    FACTS = Facts(
        year=2023,
        paper="Teterwak et al., ERM++: An improved baseline for domain generalization, arXiv 2304.01973",
        idea="ERM with a warm-up of the classifier and a running mean of the weights, which predicts",
        time="4 / 3",
        memory="1",
        cost=(
            "A forward pass of the averaged network in each update, unless `freeze_bn` is set; a third of "
            "an ERM step in each of the first `linear_steps` updates, which train the classifier alone."
        ),
        departures="`lars` works (upstream's fails). Counters and the schedule are saved with a run.",
    )

    HPARAMS = {
        "lars": Hparam(False, const(False), "LARS as optimizer"),
        "linear_steps": Hparam(
            500, const(500), "updates of the classifier alone", at_least=0, counts_updates=True
        ),
        "linear_lr": Hparam(5e-5, log10_uniform(-5, -3.5), "learning rate of the classifier alone", above=0),
    }
    STATE = ("global_iter", "lr_schedule", "lr_schedule_changes")

    FIXED_RATES = ("scheduler",)

    network: nn.Sequential

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.linear_optimizer = self._optimizer(self.classifier, hparams["linear_lr"])
        self.lr_schedule: Schedule = []
        self.lr_schedule_changes = 0
        self.scheduler = optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, "min", patience=1)
        ErmPlusPlusMovingAvg.__init__(self, self.network)

    @classmethod
    def unread_hparams(cls, given: Mapping[str, object]) -> dict[str, str]:
        found = super().unread_hparams(given)
        return found | dict.fromkeys(CHOICE, "'lars' is true") if given.get("lars") else found

    def new_optimizer(self, lr: float | None = None) -> optim.Optimizer:
        return self._optimizer(self.network, self.hparams["lr"] if lr is None else lr)

    def _optimizer(self, module: nn.Module, lr: float) -> optim.Optimizer:
        decay = self.hparams["weight_decay"]
        if self.hparams["lars"]:
            return LARS(module.parameters(), lr=lr, weight_decay=decay)
        return self.optimizer_over(module.parameters(), lr, decay)

    def update(self, minibatches: Sequence[Minibatch], unlabeled: Sequence[Tensor] | None = None) -> Metrics:
        x, y = concatenate(minibatches)
        full = self._trains_featurizer()
        with torch.set_grad_enabled(full):
            features = self.featurizer(x)
        loss = F.cross_entropy(self.classifier(features), y)
        descend(loss, self.optimizer if full else self.linear_optimizer)
        self.update_sma()
        if not self.hparams["freeze_bn"]:
            self._update_averaged_batch_norms(x)
        return {"loss": scalar(loss)}

    def _trains_featurizer(self) -> bool:
        """Whether the next update trains the featurizer too."""
        return self.global_iter > int(self.hparams["linear_steps"])

    @torch.no_grad()
    def _update_averaged_batch_norms(self, x: Tensor) -> None:
        """Update the averaged network's running statistics with a forward pass."""
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
        """Search for the next learning rate, or follow a schedule from an earlier search.

        While only the classifier is trained, this does nothing.

        Args:
            eval_loaders_iid: batches of each source environment's validation part, for the search. The
                learning rate is divided by 10 each time their mean loss has twice not improved.
            schedule: schedule to follow. Its first entry becomes the learning rate.
            device: device to move the batches to; None for the model's.

        Returns: in a search, `lr_schedule`, whose last entry is [0.0] when training should end (at the third
            change). With a schedule, its remaining entries. Otherwise `schedule`.

        Raises: UsageError without loaders and schedule, with an empty schedule, or if the hyper-parameter
            `schedule` or `warmup_steps` sets the learning rates.
        """
        if option(self.hparams, "schedule") != "none" or option(self.hparams, "warmup_steps"):
            raise UsageError(
                "set_lr changes the learning rate, and so do the hyper-parameters schedule and warmup_steps; "
                "leave them out"
            )
        if not self._trains_featurizer():
            return schedule
        if schedule is not None:
            return self._follow(schedule)
        if eval_loaders_iid is None:
            raise UsageError(
                "set_lr needs eval_loaders_iid to search for learning rates, or a schedule to follow"
            )
        self.scheduler.step(self._validation_loss(eval_loaders_iid, device))
        self.lr_schedule.append([float(lr) for lr in self.scheduler.get_last_lr()])
        if len(self.lr_schedule) > 1 and self.lr_schedule[-1] != self.lr_schedule[-2]:
            self.lr_schedule_changes += 1
        if self.lr_schedule_changes == _MAX_CHANGES:
            self.lr_schedule[-1] = [0.0]
        return self.lr_schedule

    def _follow(self, schedule: Schedule) -> Schedule:
        if not schedule:
            raise UsageError(
                "set_lr was given an empty schedule; call it only while the schedule has entries"
            )
        # A tensor as in upstream, on the CPU, where optimizers can read it without waiting for the device.
        self.optimizer.param_groups[0]["lr"] = torch.tensor(schedule[0][0], dtype=torch.float32)
        return schedule[1:]

    def _validation_loss(
        self, loaders: Iterable[Iterable[Minibatch]], device: torch.device | str | None
    ) -> float:
        """The averaged network's loss, mean over batches and then over loaders."""
        device = next(self.network_sma.parameters()).device if device is None else device
        self.network_sma.eval()
        means = []
        for loader in loaders:
            losses = [F.cross_entropy(self.network_sma(x.to(device)), y.to(device)) for x, y in loader]
            means.append(torch.stack(losses).mean())
        return float(torch.stack(means).mean())
