"""Accuracy and metrics of each evaluated part."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from domainbed.errors import RunError
from domainbed.metrics import METRICS, Metric, predicted_classes
from domainbed.training.evaluation import PartOutputs

_MOST_WAITING = 2**20
"""Number of logits that wait for their metrics at most, but for those of the last part (4 MiB in float32)."""


class Scores:
    """Consumer of an evaluation that computes the accuracy and metrics of each part.

    Numbers stay on the device until `accuracies` and `metrics` read them, once each. Metrics are computed for
    several small parts at a time: right after a network ran, the same operations take twice as long.

    Args:
        metrics: the metrics by name; by default all that are registered.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS) -> None:
        self._functions = metrics
        self._sizes: dict[str, int] = {}
        self._correct: dict[str, Tensor] = {}
        self._waiting: list[PartOutputs] = []
        self._metrics: dict[str, Tensor] = {}

    def __call__(self, outputs: PartOutputs) -> None:
        """Compute the accuracy of a part, and take its logits for its metrics.

        Raises: RunError if a metric fails, or returns more or less than one number; so does `metrics`.
        """
        key = f"{outputs.name}_acc"
        self._sizes[key] = len(outputs.labels)
        self._correct[key] = (predicted_classes(outputs.logits) == outputs.labels).sum()
        self._waiting.append(outputs)
        if sum(each.logits.numel() for each in self._waiting) > _MOST_WAITING:
            self._compute_metrics()

    def _compute_metrics(self) -> None:
        for outputs in self._waiting:
            for name, metric in self._functions.items():
                try:
                    value = torch.as_tensor(metric(outputs.logits, outputs.labels), dtype=torch.float32)
                    self._metrics[f"{outputs.name}_{name}"] = value.to(outputs.logits.device).view(())
                except Exception as error:  # a plugin's metric may raise anything
                    message = next(iter(str(error).splitlines()), type(error).__name__)
                    raise RunError(
                        f"metric {name} of {outputs.name} cannot be computed: {message}"
                    ) from error
        self._waiting.clear()

    def accuracies(self) -> dict[str, float]:
        """Share of correctly classified samples of each part, as "env0_in_acc" and so on."""
        return {key: correct / self._sizes[key] for key, correct in _on_host(self._correct).items()}

    def metrics(self) -> dict[str, float]:
        """Each metric of each part, as "env0_in_nll" and so on."""
        with torch.no_grad():
            self._compute_metrics()
        return _on_host(self._metrics)


def _on_host(values: dict[str, Tensor]) -> dict[str, float]:
    """Python numbers of tensors with one element each, with one read from the device."""
    return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True)) if values else {}
