"""Registry: a name for each algorithm, dataset, featurizer, ..., open to plugins."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, MutableMapping
from typing import TypeVar

from domainbed import plugins
from domainbed.errors import UnknownName

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping from names to things of one kind, in order of registration.

    Args:
        kind: what the things are, as it stands in "<kind> not found: <name>".
        home: a package whose modules register things by decorator. They are imported at the first
            look-up, not before, so that importing the registry costs nothing.
        first: names that come first when the registry is listed, in this order (upstream's).

    Plugins (see `domainbed.plugins`) are loaded at the first look-up too. A thing registered with
    `add_lazy` is imported when it is asked for.
    """

    def __init__(self, kind: str, home: str | None = None, first: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._home = home
        self._first = first
        self._names: dict[str, None] = {}  # an ordered set
        self._things: dict[str, T] = {}
        self._lazy: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator: register a class or function under `name`, by default its own."""

        def add(thing: T) -> T:
            self[name if name is not None else getattr(thing, "__name__")] = thing  # noqa: B009 - T has no bound
            return thing

        return add

    def add_lazy(self, name: str, target: str) -> None:
        """Register what `target` ("module:attribute") names; it is imported when it is asked for."""
        self._names[name] = None
        self._lazy[name] = target

    def order(self, names: list[str]) -> list[str]:
        """`names` without repetitions in the order of listing; unknown ones last, as they come.

        Imports nothing but plugins, so a report can use it without torch.
        """
        plugins.load()
        rank = {name: i for i, name in enumerate(dict.fromkeys((*self._first, *self._names)))}
        return sorted(dict.fromkeys(names), key=lambda name: rank.get(name, len(rank)))

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            if name not in self._lazy:
                self._load()
            if name in self._lazy:
                module, _, attribute = self._lazy[name].partition(":")
                self._things[name] = getattr(importlib.import_module(module), attribute)
        if name not in self._things:
            raise UnknownName(self.kind, name, self)
        return self._things[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self._names[name] = None
        self._things[name] = thing

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise UnknownName(self.kind, name, self)
        del self._names[name]
        self._things.pop(name, None)
        self._lazy.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        self._load()
        yield from [name for name in self._first if name in self._names]
        yield from [name for name in self._names if name not in self._first]

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._names

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self._home is not None:
            for module in pkgutil.iter_modules(importlib.import_module(self._home).__path__):
                importlib.import_module(f"{self._home}.{module.name}")
        plugins.load()
