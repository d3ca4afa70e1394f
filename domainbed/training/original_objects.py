"""The objects that an algorithm refers to when it has been constructed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms.base import Algorithm


class Originals:
    """The objects that an algorithm refers to when it has been constructed, by path and by identity."""

    def __init__(self) -> None:
        self._by_path: dict[str, Callable[[], object]] = {}
        self._paths: dict[int, str] = {}
        self.fingerprints: dict[str, bytes] = {}
        """Hashes of those that cannot be saved, by path."""

    def add(self, path: str, value: object) -> None:
        """Add `value`. Tensors and arrays that the algorithm replaces are not kept alive."""
        weak = isinstance(value, Tensor | np.ndarray)
        self._by_path[path] = weakref.ref(value) if weak else lambda: value
        self._paths[id(value)] = path

    def path_of(self, value: object) -> str | None:
        """The path of `value`, or None if it is not among the objects."""
        path = self._paths.get(id(value))
        return path if path is not None and self._by_path[path]() is value else None

    def __getitem__(self, path: str) -> Any:  # noqa: ANN401 - an object of any kind
        """The object with this path. Raises KeyError if there was none."""
        return self._by_path[path]()


def device_of(algorithm: Algorithm) -> torch.device:
    """The device of the algorithm's parameters."""
    return next((parameter.device for parameter in algorithm.parameters()), torch.device("cpu"))


def named_tensors(algorithm: Algorithm) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    yield from algorithm.named_parameters()
    yield from algorithm.named_buffers()
