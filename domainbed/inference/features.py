"""Features: the outputs of an algorithm's featurizer while it predicts."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from domainbed.errors import UsageError
from domainbed.networks.base import FeaturizerModule


class FeatureRecorder:
    """A context manager that records what the featurizers of `algorithm` return."""

    def __init__(self, algorithm: nn.Module) -> None:
        self._algorithm = algorithm
        self._handles: list[Any] = []
        self._recorded: list[Tensor] = []

    def __enter__(self) -> Self:
        def record(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._recorded.append(output.detach())

        featurizers = [each for each in self._algorithm.modules() if isinstance(each, FeaturizerModule)]
        self._handles = [each.register_forward_hook(record) for each in featurizers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._handles:
            each.remove()

    def features(self, count: int) -> np.ndarray[Any, Any]:
        """The features (count, D) float32 of the recorded batch.

        Raises: UsageError if the algorithm called no featurizer, or more than once.
        """
        if len(self._recorded) != 1 or self._recorded[0].dim() != 2 or len(self._recorded[0]) != count:
            raise UsageError(
                f"{type(self._algorithm).__name__} has no features of its own: it calls a featurizer "
                f"{len(self._recorded)} times to predict, not once"
            )
        features: np.ndarray[Any, Any] = self._recorded[0].float().cpu().numpy()
        return features
