"""Values from their encoded form; see `saved_values`."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.algorithms.base import Algorithm
from domainbed.training.original_objects import Originals, device_of, named_tensors
from domainbed.training.saved_values import BY_KIND, FACTORIES, Node


class Decoder:
    """Decodes values into one algorithm.

    Args:
        algorithm: the algorithm, newly constructed.
        originals: its objects.
    """

    def __init__(self, algorithm: Algorithm, originals: Originals) -> None:
        self._originals = originals
        self._device = device_of(algorithm)
        self._objects: dict[str | int, Any] = {}
        self._parts = dict(algorithm.parts())
        self._modules = dict(algorithm.named_modules())
        self._tensors = dict(named_tensors(algorithm))

    def decode(self, node: Node) -> Any:  # noqa: ANN401 - a value of any kind
        """The value that `node` encodes. Raises KeyError or another error for a damaged or foreign node."""
        if not isinstance(node, tuple):
            return node
        kind, *content = node
        if kind in ("tuple", "frozenset", "Size"):
            return BY_KIND[kind](map(self.decode, content[0]))
        if kind in _SCALARS:
            return _SCALARS[kind](*content)
        if kind == "plain":
            return {name: self.decode(part) for name, part in content[0]}
        if kind == "part":
            return self._parts[content[0]]
        if kind == "module":
            return self._modules[content[0]]
        if kind == "of model":
            return self._tensors[content[0]]
        if kind == "view":
            name, shape, stride, offset = content
            return torch.as_strided(self._tensors[name].detach(), shape, stride, offset)
        if kind == "same":
            # An object whose first place has not changed is the original, unchanged.
            return self._objects[content[0]] if content[0] in self._objects else self._originals[content[0]]
        key, *content = content
        old = self._originals[key] if isinstance(key, str) else None
        return self._object(kind, key, old, content)

    def _object(self, kind: str, key: str | int, old: Any, content: list[Any]) -> Any:  # noqa: ANN401 - of any kind
        """The object with this key: the original `old` with new content, or else a new one."""
        if kind in ("list", "set", "deque", "dict", "OrderedDict", "Counter", "defaultdict"):
            value = _new_container(kind, *content[1:]) if old is None else old
            self._objects[key] = value  # before its items, which may refer to it
            _fill(value, kind, [self.decode(each) for each in _flat(kind, content[0])])
            return value
        if kind == "tensor":
            value = self._tensor(old, *content)
        elif kind == "array":
            value = _array(old, *content)
        elif kind == "generator":
            value = _generator(old, content[0], self.decode(content[1]))
        elif kind == "stateful":
            old.load_state_dict(content[0])
            value = old
        elif kind == "at":
            value = old
        else:
            raise ValueError(f"an unknown kind of value, {kind!r}")
        self._objects[key] = value
        return value

    def _tensor(self, old: Tensor | None, content: Tensor, on_device: bool, sort: str) -> Tensor:
        content = content.to(self._device if on_device else "cpu", copy=True)
        if old is not None and old.device == content.device and old.dtype == content.dtype:
            with torch.no_grad():
                if old.shape == content.shape:
                    old.copy_(content)
                else:
                    old.data = content
            return old
        if sort.endswith("parameter"):
            return nn.Parameter(content, requires_grad=sort == "parameter")
        return content.requires_grad_(sort == "leaf")


def _flat(kind: str, items: list[Any]) -> list[Any]:
    """The items in a row; those of a dict are its keys and values in turn."""
    if kind in ("list", "set", "deque"):
        return items
    return [each for pair in items for each in pair]


def _new_container(kind: str, option: Any = None) -> Any:  # noqa: ANN401 - a list, dict or the like
    if kind == "deque":
        return deque(maxlen=option)
    if kind == "defaultdict":
        return defaultdict(FACTORIES[option] if option is not None else None)
    return BY_KIND[kind]()


def _fill(value: Any, kind: str, items: list[Any]) -> None:  # noqa: ANN401 - a list, dict or the like
    value.clear()
    if kind in ("list", "deque"):
        value.extend(items)
    elif kind == "set":
        value.update(items)
    else:
        for name, item in zip(items[::2], items[1::2], strict=True):
            value[name] = item


def _array(
    old: np.ndarray[Any, Any] | None, dtype: str, shape: list[int], content: Tensor
) -> np.ndarray[Any, Any]:
    value = _values(dtype, shape, content)
    if old is not None and old.shape == value.shape and old.dtype == value.dtype and old.flags.writeable:
        old[...] = value
        return old
    return value


def _values(dtype: str, shape: list[int], content: Tensor) -> np.ndarray[Any, Any]:
    return np.frombuffer(content.numpy().tobytes(), np.dtype(dtype)).reshape(shape).copy()


def _generator(old: Any, kind: str, state: Any) -> Any:  # noqa: ANN401 - one of four kinds
    if kind == "Random":
        value = old or random.Random()
        value.setstate(state)
    elif kind == "RandomState":
        value = old or np.random.RandomState()
        value.set_state(state)
    elif kind == "Generator" and isinstance(state, dict):
        value = old or np.random.Generator(getattr(np.random, state["bit_generator"])())
        value.bit_generator.state = state
    else:
        device, numbers = state
        value = old or torch.Generator(device)
        value.set_state(numbers)
    return value


_SCALARS: Mapping[str, Callable[..., Any]] = {
    "complex": complex,
    "bytes": lambda content: content.numpy().tobytes(),
    "scalar": lambda dtype, content: np.frombuffer(content.numpy().tobytes(), np.dtype(dtype))[0],
    "values": _values,
    "dtype": lambda name: getattr(torch, name.removeprefix("torch.")),
    "device": torch.device,
}
