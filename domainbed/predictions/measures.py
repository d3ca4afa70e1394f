"""Numbers computed from the saved predictions for a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import UsageError
from domainbed.metrics import BINS, METRICS
from domainbed.predictions.content import PartPredictions

_PATTERN = frozenset("*?[")


def accuracy(part: PartPredictions) -> float:
    """Share of correctly classified samples, exactly that of the run's record."""
    return int((part.predicted == part.labels).sum()) / len(part)


def metric_value(part: PartPredictions, name: str) -> float:
    """A metric of `domainbed.metrics.METRICS`, as records have it (shares in [0, 1]).

    Metrics of the predicted classes alone equal the record's. Those of probabilities differ from it by the
    rounding of log-probabilities to float16.

    Raises:
        UnknownName: no metric has the name.
        UsageError: it needs the probabilities of all classes, and only the most probable were saved.
    """
    metric = METRICS[name]
    if metric.needs_all_classes:
        part.require_all_classes(f"metric {name}")
    import torch

    return float(metric(torch.from_numpy(part.logits()), torch.from_numpy(part.labels)))


def confusion_matrix(part: PartPredictions) -> NDArray[np.int64]:
    """(C, C) numbers of samples by label (rows) and predicted class (columns)."""
    pairs = part.labels * part.num_classes + part.predicted
    counts = np.bincount(pairs, minlength=part.num_classes**2)
    return counts.reshape(part.num_classes, part.num_classes)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram (Guo et al. 2017, arXiv 1706.04599, section 2), in B bins of equal width.

    Attributes:
        edges: (B + 1,) limits of the bins. A bin includes its upper limit.
        counts: (B,) number of samples whose largest probability falls into the bin.
        confidences: (B,) mean of these probabilities; NaN in an empty bin.
        accuracies: (B,) share of correct predictions; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidences: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over samples of |accuracy - confidence| of their bin."""
        gaps = np.abs(self.accuracies - self.confidences)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def reliability(part: PartPredictions, bins: int = BINS) -> Reliability:
    """The reliability diagram of a part.

    Args:
        part: the predictions. The most probable classes are enough.
        bins: B.
    """
    confidences = np.exp(part.log_probabilities.astype(np.float64)).max(1)
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    correct = (part.predicted == part.labels).astype(np.float64)
    sums = [np.bincount(places, weights=values, minlength=bins) for values in (confidences, correct)]
    with np.errstate(invalid="ignore"):
        means = [values / counts for values in sums]
    return Reliability(np.linspace(0, 1, bins + 1), counts, *means)


def subset_accuracies(
    part: PartPredictions, subsets: Mapping[str, Iterable[str | int]]
) -> dict[str, tuple[float, int]]:
    """Accuracy on named subsets of a part, and their numbers of samples.

    Args:
        part: the predictions.
        subsets: name -> samples: paths relative to the dataset's folder, patterns of them such as
            `photo/dog/*`, or positions in the environment where samples have no files. Samples that the part
            does not have are in another part, or unknown; they do not count.

    Raises: UsageError if the part has no sample of a subset.
    """
    found = {}
    for name, samples in subsets.items():
        rows = _rows_of(part, samples)
        if not rows.any():
            example = part.identities[0] if len(part) else "none"
            raise UsageError(
                f"subset {name!r} has no sample of {part.name}, whose samples are called like {example!r}"
            )
        found[name] = accuracy(part.at(rows)), int(rows.sum())
    return found


def _rows_of(part: PartPredictions, samples: Iterable[str | int]) -> NDArray[np.bool_]:
    """(N,) whether each sample of the part is among `samples`."""
    samples = [samples] if isinstance(samples, str) else list(samples)
    patterns = [each for each in samples if isinstance(each, str) and _PATTERN.intersection(each)]
    exact = {each for each in samples if each not in patterns}
    return np.array(
        [
            each in exact or any(fnmatchcase(str(each), pattern) for pattern in patterns)
            for each in part.identities.tolist()
        ],
        dtype=bool,
    )
