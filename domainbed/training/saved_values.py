"""Python values as trees that a checkpoint holds and that are loaded without executing code.

An encoded value is an atom (None, a bool, a number, a string), or a tuple that begins with a kind, such as
("list", key, items). The key of an object that existed when the algorithm was constructed is its path, such
as "queue/0". `Decoder` puts the saved content into the object with that path of the new algorithm, so that
whoever else refers to the object, such as an optimizer, sees the content too.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import inspect
import io
import os
import pickle
import random
import types
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domainbed.algorithms.base import Algorithm, Stateful
from domainbed.plugins import OWN_PACKAGES, is_of_plugin
from domainbed.training.original_objects import Originals, device_of, named_tensors

Node = Any
"""An encoded value."""

_ATOMS = (type(None), bool, int, float, str)
_LISTS: Mapping[type, str] = {list: "list", set: "set", deque: "deque"}
_DICTS: Mapping[type, str] = {
    dict: "dict",
    OrderedDict: "OrderedDict",
    defaultdict: "defaultdict",
    Counter: "Counter",
}
_TUPLES: Mapping[type, str] = {tuple: "tuple", frozenset: "frozenset", torch.Size: "Size"}
FACTORIES: Mapping[str, Callable[[], Any]] = {
    each.__name__: each for each in (bool, int, float, list, dict, set)
}
BY_KIND = {kind: each for table in (_LISTS, _DICTS, _TUPLES) for each, kind in table.items()}
_BY_IDENTITY = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.ModuleType,
    io.IOBase,
    partial,
    type,
)


class Encoder:
    """Encodes values of one algorithm.

    Args:
        algorithm: the algorithm.
        originals: its objects.
        recording: add the objects that are met to `originals`.

    Attributes:
        problems: why parts of the values encoded so far could not be restored, in a few words each.
        owners: objects of plugins' classes that were met, by path. Their attributes are encoded separately.
    """

    def __init__(self, algorithm: Algorithm, originals: Originals, recording: bool) -> None:
        self.problems: list[str] = []
        self.owners: dict[str, object] = {}
        self._originals = originals
        self._recording = recording
        self._device = device_of(algorithm)
        self._keys: dict[int, str | int] = {}
        self._alive: list[object] = []  # so that no identity is used twice
        self._named: dict[int, Node] = {id(part): ("part", name) for name, part in algorithm.parts()}
        self._named |= {id(module): ("module", name) for name, module in algorithm.named_modules()}
        self._tensors = dict(named_tensors(algorithm))
        self._named |= {id(tensor): ("of model", name) for name, tensor in self._tensors.items()}
        self._storages = {_storage(tensor): name for name, tensor in self._tensors.items() if tensor.numel()}

    def encode(self, value: object, path: str) -> Node:
        """The encoded `value`, which is at `path`."""
        if type(value) in _ATOMS:
            return value
        if type(value) in (complex, bytes, torch.dtype, torch.device) or isinstance(value, np.generic):
            return self._scalar(value)
        if isinstance(value, tuple | frozenset) or type(value) is torch.Size:
            kind = _TUPLES.get(type(value))
            if kind is None:
                self._problem(value, "a class of tuples of its own")
            return (kind or _name(value), [self.encode(item, f"{path}/{i}") for i, item in enumerate(value)])
        if isinstance(value, enum.Enum):
            self._problem(value, "a member of an enumeration")
            return ("enum", _name(value), value.name)
        if id(value) in self._named:
            return self._named[id(value)]
        if id(value) in self._keys:
            return ("same", self._keys[id(value)])
        return self._object(value, path)

    def _object(self, value: object, path: str) -> Node:
        """An object with an identity: it may be referred to from several places, and changed in place."""
        original = self._originals.path_of(value)
        if self._recording and original is None:
            self._originals.add(path, value)
            original = path
        key = len(self._keys) if original is None else original
        self._keys[id(value)] = key
        self._alive.append(value)
        if isinstance(value, Tensor):
            return self._tensor(value, key)
        if isinstance(value, np.ndarray):
            return self._array(value, key)
        if isinstance(value, (dict, *_LISTS)):
            return self._container(value, key, path)
        state = generator_state(value)
        if state is not None:
            return ("generator", key, type(value).__name__, _plain(state))
        if isinstance(value, Stateful):
            if original is None:
                self._problem(value, "created after construction")
            return ("stateful", key, value.state_dict())
        if _has_attributes(value):
            if original is None:
                self._problem(value, "created after construction")
            self.owners[str(key)] = value
            return ("at", key)
        return self._opaque(value, key)

    def _container(self, value: Any, key: str | int, path: str) -> Node:  # noqa: ANN401 - a list, dict or the like
        table = _DICTS if isinstance(value, dict) else _LISTS
        if type(value) not in table:
            if isinstance(key, int):
                self._problem(value, "a container of a class of its own")
            if hasattr(value, "__dict__"):
                self.owners[str(key)] = value
        kind = [kind for base, kind in table.items() if isinstance(value, base)][-1]
        encode = self._entries if table is _DICTS else self._items
        return encode(value, key, path, kind)

    def _scalar(self, value: Any) -> Node:  # noqa: ANN401 - one of several types
        if isinstance(value, complex) and not isinstance(value, np.generic):
            return ("complex", value.real, value.imag)
        if isinstance(value, bytes) and not isinstance(value, np.generic):
            return ("bytes", _as_tensor(value))
        if isinstance(value, np.generic):
            if value.dtype.hasobject or value.dtype.names:
                self._problem(value, "a record of NumPy")
            return ("scalar", value.dtype.str, _as_tensor(value.tobytes()))
        return (type(value).__name__, str(value))

    def _tensor(self, value: Tensor, key: str | int) -> Node:
        if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
            self._problem(value, "a tensor of another layout or class")
            return ("tensor", key, _fingerprint(value))
        if value.numel() and _storage(value) in self._storages:
            # Its values are saved with the model.
            if value.dtype != self._tensors[self._storages[_storage(value)]].dtype:
                self._problem(value, "a view of a parameter as another type")
            place = (list(value.shape), list(value.stride()), value.storage_offset())
            return ("view", self._storages[_storage(value)], *place)
        content = value.detach()
        if content.untyped_storage().nbytes() > content.numel() * content.element_size():
            content = content.clone()  # a file would hold the whole storage
        return ("tensor", key, content, value.device == self._device, _sort_of(value))

    def _array(self, value: np.ndarray[Any, Any], key: str | int) -> Node:
        if value.dtype.hasobject or value.dtype.names or type(value) is not np.ndarray:
            self._problem(value, "an array of objects or records")
            return ("array", key, _fingerprint(value))
        return ("array", key, value.dtype.str, list(value.shape), _as_tensor(value.tobytes()))

    def _items(self, value: Any, key: str | int, path: str, kind: str) -> Node:  # noqa: ANN401 - list, set or deque
        items = [self.encode(item, f"{path}/{i}") for i, item in enumerate(value)]
        return (kind, key, items, value.maxlen) if kind == "deque" else (kind, key, items)

    def _entries(self, value: dict[Any, Any], key: str | int, path: str, kind: str) -> Node:
        entries = [
            (self.encode(name, f"{path}/key {i}"), self.encode(item, f"{path}/{i}"))
            for i, (name, item) in enumerate(value.items())
        ]
        factory = getattr(value, "default_factory", None)
        name = None if factory is None else getattr(factory, "__name__", "?")
        if name is not None and isinstance(key, int) and FACTORIES.get(name) is not factory:
            self._problem(value, "a defaultdict with a function of its own")
        return (kind, key, entries, name)

    def _opaque(self, value: object, key: str | int) -> Node:
        """An object of a kind that cannot be saved. A resume keeps the original one if it has not changed."""
        if isinstance(key, str):
            content = _fingerprint(value)
            if self._recording:
                self._originals.fingerprints[key] = content
            if self._originals.fingerprints.get(key) == content:
                return ("at", key)
        self._problem(value, "a kind that is not safe to load")
        return ("opaque", key, os.urandom(8))

    def _problem(self, value: object, reason: str) -> None:
        self.problems.append(f"{_name(value)}, {reason}")


def generator_state(value: object) -> Any:  # noqa: ANN401 - each generator has its own kind of state
    """The state of a random number generator, or None for any other object."""
    if type(value) is random.Random:
        return value.getstate()
    if type(value) is np.random.RandomState:
        return value.get_state(legacy=False)
    if type(value) is np.random.Generator:
        return value.bit_generator.state
    if isinstance(value, torch.Generator):
        return (str(value.device), value.get_state())
    return None


def _plain(state: Any) -> Node:  # noqa: ANN401 - of a generator
    """The encoded state of a generator, whose parts have no identity: they are new at each look."""
    if isinstance(state, dict):
        return ("plain", [(name, _plain(part)) for name, part in state.items()])
    if isinstance(state, tuple):
        return ("tuple", [_plain(part) for part in state])
    if isinstance(state, np.ndarray):
        return ("values", state.dtype.str, list(state.shape), _as_tensor(state.tobytes()))
    return state


def digest(node: Node) -> bytes:
    """A hash of an encoded value: values that differ, also in the kind of a number, have different ones."""
    found = hashlib.blake2b(digest_size=16)
    _add_to_digest(node, found)
    return found.digest()


def _add_to_digest(node: Node, found: hashlib.blake2b) -> None:
    if isinstance(node, tuple | list):
        if node[:1] == ("stateful",):
            found.update(os.urandom(8))  # comparing states would cost more than saving them
            return
        found.update(f"{type(node).__name__} {len(node)};".encode())
        for each in node:
            _add_to_digest(each, found)
    elif isinstance(node, Tensor):
        flat = node.detach().cpu().contiguous().reshape(-1)
        found.update(f"{node.dtype} {tuple(node.shape)};".encode())
        found.update(flat.resolve_conj().resolve_neg().view(torch.uint8).numpy().data)
    else:
        found.update(f"{node!r};".encode("utf-8", "surrogatepass"))


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def _storage(tensor: Tensor) -> int:
    """Identity of the memory of `tensor`; that of the tensor where its class hides the memory."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return -id(tensor)


def _sort_of(tensor: Tensor) -> str:
    if isinstance(tensor, nn.Parameter):
        return "parameter" if tensor.requires_grad else "frozen parameter"
    return "leaf" if tensor.is_leaf and tensor.requires_grad else "constant"


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _has_attributes(value: object) -> bool:
    """Whether `value` is a plain object whose attributes can be read and set."""
    if isinstance(value, _BY_IDENTITY) or not hasattr(value, "__dict__"):
        return False
    return type(value) is types.SimpleNamespace or is_of_plugin(type(value))


def _fingerprint(value: object) -> bytes:
    """A hash of the state of `value`, as far as it can be seen; random if it cannot, and may change."""
    package = type(value).__module__.partition(".")[0]
    is_ours = package in ("torch", *OWN_PACKAGES) and not isinstance(value, Tensor)
    if is_ours or isinstance(value, _BY_IDENTITY):
        return b""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: of iterators
        return hashlib.blake2b(pickle.dumps(value), digest_size=16).digest()
    is_new = isinstance(value, types.GeneratorType) and inspect.getgeneratorstate(value) == "GEN_CREATED"
    return os.urandom(8) if isinstance(value, Iterator) and not is_new else b""
