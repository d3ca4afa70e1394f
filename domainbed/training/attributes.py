"""What an algorithm keeps in plain attributes, for checkpoints.

`Algorithm.training_state` has parameters, buffers, the states of optimizers and the like. An algorithm may
also count in a plain integer, or keep a queue of tensors. `KeptAttributes` saves every attribute that has
changed since construction: of the algorithm, of its modules that come from plugins, and of plain objects that
they hold. Attributes are compared by hashes, after construction and at checkpoints only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from domainbed.algorithms.base import Algorithm
from domainbed.plugins import is_of_plugin
from domainbed.training.original_objects import Originals, device_of
from domainbed.training.restored_values import Decoder
from domainbed.training.saved_values import Encoder, Node, digest

_OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes of every module, which `nn.Module.state_dict` and the training loop see to."""


class KeptAttributes:
    """The attributes of an algorithm that have changed since this object was made.

    Args:
        algorithm: the algorithm, constructed and on its device.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._originals = Originals()
        modules = dict(algorithm.named_modules())
        self._owners: dict[str, object] = {
            f"{name}:": module
            for name, module in modules.items()
            if module is algorithm or is_of_plugin(type(module))
        }
        encoder = Encoder(algorithm, self._originals, recording=True)
        self._digests = {place: digest(node) for place, node in self._encoded(encoder)}
        self._entries = _entries(algorithm)
        self._shapes = {name: buffer.shape for name, buffer, _ in _buffers(algorithm)}
        self._unlisted = {
            name: digest(buffer) for name, buffer, in_state_dict in _buffers(algorithm) if not in_state_dict
        }

    def state_dict(self) -> dict[str, Any]:
        """The changed attributes, in a form that is loaded without executing code. Tensors are not copied.

        Its entry `unsaved` names each attribute that has changed and cannot be saved, and says why.
        """
        encoder = Encoder(self._algorithm, self._originals, recording=False)
        changed, unsaved, removed = [], list(self._changed_entries()), set(self._digests)
        for place, node in self._encoded(encoder):
            removed.discard(place)
            problems, encoder.problems = encoder.problems, []
            if self._digests.get(place) == digest(node):
                continue
            changed.append((*place, node))
            if problems:
                unsaved.append(f"{_shown(*place)} ({problems[0]})")
        if unsaved:
            changed = []  # what cannot be saved may be part of it, and such a checkpoint is never loaded
        buffers = {
            name: buffer
            for name, buffer, in_state_dict in _buffers(self._algorithm)
            if self._has_changed(name, buffer, in_state_dict)
        }
        return {"changed": changed, "removed": sorted(removed), "buffers": buffers, "unsaved": unsaved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned for an algorithm with the same arguments."""
        decoder = Decoder(self._algorithm, self._originals)
        for owner, name, node in state["changed"]:
            vars(self._owners[owner])[name] = decoder.decode(node)
        for owner, name in state["removed"]:
            vars(self._owners[owner]).pop(name, None)
        modules, device = dict(self._algorithm.named_modules()), device_of(self._algorithm)
        for name, buffer in state["buffers"].items():
            module, _, own = name.rpartition(".")
            modules[module]._buffers[own] = buffer.to(device, copy=True)

    def _encoded(self, encoder: Encoder) -> Iterator[tuple[tuple[str, str], Node]]:
        """(owner, name) and encoded value of each attribute. The first time, further owners are found."""
        places = list(self._owners)
        for owner in places:  # which grows
            thing = self._owners[owner]
            left_out = _left_out(thing)
            for name, value in list(vars(thing).items()):
                if name not in left_out:
                    yield (owner, name), encoder.encode(value, f"{owner}{name}")
            for path, found in encoder.owners.items():
                if f"{path}/" not in self._owners and self._originals.path_of(found) == path:
                    self._owners[f"{path}/"] = found
                    places.append(f"{path}/")

    def _changed_entries(self) -> Iterator[str]:
        """Modules, parameters, optimizers and the like that only this algorithm or only a new one has."""
        now, before = _entries(self._algorithm), self._entries
        for names, when in ((now - before, "created"), (before - now, "removed")):
            for name in sorted(names):
                if not any(name.startswith(f"{module}.") for module in names):
                    yield f"{name} ({when} after construction)"

    def _has_changed(self, name: str, buffer: Tensor, in_state_dict: bool) -> bool:
        """Whether the state of the model alone would not restore this buffer."""
        if in_state_dict:
            return self._shapes.get(name) != buffer.shape
        return self._unlisted.get(name) != digest(buffer)


def _entries(algorithm: Algorithm) -> set[str]:
    """Names of modules, parameters, and of what has a state of its own."""
    named = (algorithm.named_modules(), algorithm.named_parameters(), algorithm.parts())
    return {name for each in named for name, _ in each}


def _buffers(algorithm: Algorithm) -> Iterator[tuple[str, Tensor, bool]]:
    """Name and value of each buffer, and whether `state_dict` has it."""
    for prefix, module in algorithm.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                listed = name not in module._non_persistent_buffers_set
                yield f"{prefix}.{name}".removeprefix("."), buffer, listed


def _left_out(owner: object) -> frozenset[str]:
    """Attributes of `owner` that are saved otherwise, or that later updates do not depend on."""
    transient = {name for base in type(owner).__mro__ for name in base.__dict__.get("TRANSIENT", ())}
    own = owner.state_names() if isinstance(owner, Algorithm) else ()
    return _OF_MODULES.union(own, transient) if isinstance(owner, nn.Module) else frozenset(transient)


def _shown(owner: str, name: str) -> str:
    return f"{owner}{name}".lstrip(":").replace(":", ".").replace("/", ".")
