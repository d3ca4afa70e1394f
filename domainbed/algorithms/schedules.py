"""Learning rates over a run: constant, cosine, and a linear warm-up before either.

The training loop owns the schedule, since it knows the number of updates. Before each update it multiplies
the learning rates of the algorithm's optimizers by a factor that depends on the number of the update alone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler

from domainbed.algorithms.optimizers import optimizers_of, scale
from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, Hparam, const, option

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm

OPTIONS["schedule"] = Hparam(
    "none",
    const("none"),
    "learning rates over the run: none (constant), or cosine (to 0 after the last update)",
    choices=("none", "cosine"),
)
OPTIONS["warmup_steps"] = Hparam(
    0, const(0), "number of first updates in which learning rates rise linearly", at_least=0
)

_NAMES = ("schedule", "warmup_steps")


@dataclass(frozen=True)
class Schedule:
    """Factors of all learning rates: update t of T, counted from 0, has

        (t + 1) / w for t < w;  then 1, or with cosine (1 + cos(pi (t - w) / (T - w))) / 2.

    The cosine is that of SGDR (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5) without restarts,
    the warm-up that of Goyal et al. (2017, arXiv 1706.02677, section 2.2) from 0.

    Attributes:
        kind: none or cosine.
        warmup_steps: w.
        n_steps: T.
    """

    kind: str
    warmup_steps: int
    n_steps: int

    def factor(self, update: int) -> float:
        """The factor of update `update`."""
        after = update - self.warmup_steps
        if after < 0:
            return (update + 1) / self.warmup_steps
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * after / (self.n_steps - self.warmup_steps))) / 2
        return 1.0

    def check(self, algorithm: Algorithm) -> None:
        """Raise UsageError if `algorithm` has a schedule of its own, or no learning rate to change."""
        name = type(algorithm).__name__
        for attribute, value in vars(algorithm).items():
            if isinstance(value, LRScheduler) and attribute not in algorithm.FIXED_RATES:
                raise UsageError(
                    f"{name} has a schedule of its own ({attribute}); leave out the hyper-parameters "
                    "schedule and warmup_steps"
                )
        if all(each in algorithm.FIXED_RATES for each, _ in optimizers_of(algorithm)):
            raise UsageError(
                f"{name} has no optimizer whose learning rate could change; leave out the hyper-parameters "
                "schedule and warmup_steps"
            )

    def apply(self, algorithm: Algorithm, update: int) -> None:
        """Set the learning rates of update `update`."""
        algorithm.rate_factor = self.factor(update)
        for name, optimizer in optimizers_of(algorithm):
            if name not in algorithm.FIXED_RATES:
                scale(optimizer, algorithm.rate_factor)


def make_schedule(hparams: Mapping[str, Any], n_steps: int, own: Container[str] = ()) -> Schedule | None:
    """The schedule that a run's hyper-parameters choose; None if learning rates are left as they are.

    Args:
        hparams: values of hyper-parameters, by name.
        n_steps: number of updates of the run.
        own: names that the algorithm declares itself. They mean what it says, and choose nothing here.

    Raises: UsageError for a warm-up that is as long as the run.
    """
    visible = {name: hparams[name] for name in _NAMES if name in hparams and name not in own}
    kind, warmup_steps = str(option(visible, "schedule")), int(option(visible, "warmup_steps"))
    if kind == "none" and not warmup_steps:
        return None
    if warmup_steps >= n_steps:
        raise UsageError(
            f"hyper-parameter warmup_steps must be less than the run's {n_steps} updates, not {warmup_steps}"
        )
    return Schedule(kind, warmup_steps, n_steps)
