"""Metrics of an evaluation by name, computed from the logits and labels of a whole part.

Records have each as `env{i}_{part}_{name}`, beside the accuracy `env{i}_{part}_acc`. A plugin registers
its own:

    @METRICS.register("brier")
    @metric("Brier score", unit="", larger_is_better=False, rope=0.01)
    def brier(logits, labels):
        probabilities = logits.softmax(1)
        ...

Logits are what `Algorithm.predict` returns. Probabilities are their softmax, also if an algorithm returns
log-probabilities, which the softmax leaves as they are, or other scores.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domainbed.errors import UnknownName, UsageError
from domainbed.registry import Registry

if TYPE_CHECKING:  # tables of metrics do not need torch, which is slow to import
    from torch import Tensor

BINS = 15
"""Number of bins of the expected calibration error."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_KEY = re.compile(r"env(\d+)_(in|out|test|uda)_(\w+)")


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation computes for each part.

    Attributes:
        compute: a function of logits (N, C) and labels (N,). Both are on the algorithm's device; logits are
            float32 with at least two columns, labels int64 from 0 to C - 1. Returns a tensor of one element.
            It should not read tensors on the host, which would wait for the device.
        title: what tables and pages call it.
        unit: unit in tables. "%" for shares, which records have in [0, 1]; empty for none.
        larger_is_better: its direction.
        rope: region of practical equivalence, in the unit of tables: a difference of two methods that is
            smaller in size does not matter in practice.
        needs_all_classes: whether it reads more of the probabilities than those of the label and of the most
            probable classes. With more than 100 classes, saved predictions have no others.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    title: str
    unit: str
    larger_is_better: bool
    rope: float
    needs_all_classes: bool = True

    @property
    def scale(self) -> float:
        """Factor from records to tables."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def sign(self) -> int:
        """1 if larger is better, else -1: the better of two values has the larger product with it."""
        return 1 if self.larger_is_better else -1

    @property
    def extra_digits(self) -> int:
        """Digits after the decimal point that tables show beyond those of accuracies, to resolve the rope."""
        return max(0, -math.floor(math.log10(self.rope))) if self.rope else 0

    @property
    def points(self) -> str:
        """Unit of a difference, in words."""
        return "percentage points" if self.unit == "%" else self.unit or "units"

    @property
    def short_points(self) -> str:
        """The same where space is short."""
        return "points" if self.unit == "%" else self.points

    @property
    def capitalized(self) -> str:
        """Title as the beginning of a sentence."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def heading(self) -> str:
        """Title and unit, such as "accuracy (%)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def described(self) -> str:
        """Title, unit and direction, such as "accuracy (%), higher is better"."""
        return f"{self.heading}, {'higher' if self.larger_is_better else 'lower'} is better"

    def text(self, value: float, digits: int) -> str:
        """A value of records as tables show it, with `digits` digits for an accuracy in %."""
        return f"{self.scale * value:.{digits + self.extra_digits}f}"

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`compute` of logits (N, C) and labels (N,) of any numeric dtype; see `two_columns`."""
        return self.compute(two_columns(logits.float()), labels.view(-1).long())


class MetricRegistry(Registry[Metric]):
    """Metrics by name. A name consists of lower-case letters, digits and single underscores.

    No name may end with "acc": the keys of accuracies do.
    """

    def register(self, name: str | None = None, override: bool = False) -> Callable[[Any], Any]:
        """As that of `Registry`, but `name` is required. Raises: UsageError if it is not allowed."""
        if name is None or not _NAME.fullmatch(name) or name.endswith("acc"):
            raise UsageError(
                f"a metric cannot be called {name!r}: use lower-case letters, digits and underscores, and "
                'another end than "acc", which belongs to accuracies'
            )
        return super().register(name, override)


METRICS = MetricRegistry.of_module("Metric")
"""The metrics that records have beside the accuracy."""


def metric(
    title: str, unit: str, larger_is_better: bool, rope: float, needs_all_classes: bool = True
) -> Callable[[Callable[[Tensor, Tensor], Tensor]], Metric]:
    """Decorator that makes a `Metric` of a function. Arguments are the attributes of `Metric`."""
    return lambda compute: Metric(compute, title, unit, larger_is_better, rope, needs_all_classes)


def get_metric(name: str) -> Metric:
    """The metric whose keys in records end with `name`: "acc", or one of `METRICS`. Raises: UnknownName."""
    if name == "acc":
        return ACCURACY
    if name not in METRICS:
        raise UnknownName(METRICS.kind, name, ["acc", *METRICS])
    return METRICS[name]


@functools.lru_cache(maxsize=4096)  # the records of a run have the same keys
def is_metric_key(key: str) -> bool:
    """Whether a record's entry `key` is a metric of a part other than its accuracy."""
    match = _KEY.fullmatch(key)
    return match is not None and match[3] != "acc"


def two_columns(logits: Tensor) -> Tensor:
    """`logits` (N, C), or (N, 2) for a single column z, which is the logit of class 1: (0, z)."""
    import torch

    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.size(1) == 1 else logits


def predicted_classes(logits: Tensor) -> Tensor:
    """(N,) int64: the first maximum of each row of logits (N, C).

    With a single column, class 1 is predicted where the logit is positive.
    """
    return (logits[:, 0] > 0).long() if logits.size(1) == 1 else logits.argmax(1)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (predicted_classes(logits) == labels).float().mean()


ACCURACY = metric("accuracy", unit="%", larger_is_better=True, rope=1.0)(_accuracy)
"""Share of the samples whose class is predicted. It is not among `METRICS`, since all records have it."""


@METRICS.register("nll")
@metric("negative log-likelihood", unit="nats", larger_is_better=False, rope=0.02, needs_all_classes=False)
def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log p(label), where p is the softmax of the logits; infinite if one of them is 0."""
    return (logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]).mean()


@METRICS.register("ece")
@metric("expected calibration error", unit="%", larger_is_better=False, rope=1.0, needs_all_classes=False)
def ece(logits: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) with 15 bins of equal width.

    The confidence of a sample is the largest probability. Bin m has the confidences in ((m - 1)/15, m/15].
    The error is the mean over samples of |accuracy - mean confidence| of the sample's bin.
    """
    import torch

    # Samples last: with few classes, sums over the last dimension take several times as long.
    confidences = logits.T.contiguous().softmax(0).amax(0)
    # Not `bincount` or `scatter_add`, whose sums of floats depend on the order of threads on a GPU.
    bins = torch.arange(1, BINS + 1, device=logits.device)[:, None] == (confidences * BINS).ceil()
    gaps = (predicted_classes(logits) == labels).float() - confidences
    return (gaps * bins).sum(1).abs().sum() / len(labels)


@METRICS.register("balanced")
@metric("balanced accuracy", unit="%", larger_is_better=True, rope=1.0, needs_all_classes=False)
def balanced(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the accuracies on each class, over the classes that have samples."""
    correct, labelled, _ = _class_counts(logits, labels)
    return (correct / labelled.clamp(min=1)).sum() / (labelled > 0).sum()


@METRICS.register("worst")
@metric("accuracy on the worst class", unit="%", larger_is_better=True, rope=1.0, needs_all_classes=False)
def worst(logits: Tensor, labels: Tensor) -> Tensor:
    """Smallest of the accuracies on each class, over the classes that have samples."""
    correct, labelled, _ = _class_counts(logits, labels)
    return (correct / labelled).nan_to_num(nan=1.0).min()


@METRICS.register("f1")
@metric("macro F1", unit="%", larger_is_better=True, rope=1.0, needs_all_classes=False)
def f1(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), over the classes with samples or predictions."""
    correct, labelled, predicted = _class_counts(logits, labels)
    either = labelled + predicted
    return (2 * correct / either.clamp(min=1)).sum() / (either > 0).sum()


def _class_counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers (C,), int64, of correct predictions, samples, and predictions of each class."""
    import torch

    classes = torch.arange(logits.size(1), device=logits.device)[:, None]
    is_label = labels == classes
    is_predicted = predicted_classes(logits) == classes
    return (is_label & is_predicted).sum(1), is_label.sum(1), is_predicted.sum(1)
