"""Registries: algorithms, datasets, featurizers and the like by name. Plugins can add to them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from importlib.abc import InspectLoader
from typing import TypeVar

from domainbed import plugins
from domainbed.errors import UnknownName

T = TypeVar("T")

_DECORATED = re.compile(
    r"""^@[\w.]+\.register\((?:["']([^"']+)["'])?\)\n(?:@.*\n)*(?:class|def) (\w+)""", re.MULTILINE
)


class Registry(MutableMapping[str, T]):
    """A mapping from names to objects of one kind, in order of registration.

    The first look-up searches `home`, calls `setup` and loads the plugins (see `domainbed.plugins`). An
    object registered with `add_lazy` or `add_package` is imported on its own first look-up, so that listing
    names does not import it.

    Args:
        kind: kind of the objects, as in "<kind> not found: <name>".
        home: a package to search on the first look-up; see `add_package`.
        setup: registers more objects on the first look-up.
        first: names to list first, in this order.
    """

    def __init__(
        self,
        kind: str,
        home: str | None = None,
        setup: Callable[[], object] | None = None,
        first: tuple[str, ...] = (),
    ) -> None:
        self.kind = kind
        self._home = home
        self._setup = setup
        self._first = first
        self._names: dict[str, None] = {}  # an ordered set
        self._objects: dict[str, T] = {}
        self._lazy: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that registers a class or function, by default under its own name."""

        def add(thing: T) -> T:
            self[name if name is not None else getattr(thing, "__name__")] = thing  # noqa: B009 - T has no bound
            return thing

        return add

    def add_lazy(self, name: str, target: str) -> None:
        """Register the object that `target` ("module:attribute") names, without importing it."""
        self._names[name] = None
        self._lazy[name] = target

    def add_package(self, package: str, first: Sequence[str] = ()) -> None:
        """Register what the modules of `package` decorate with `@NAME.register()`, without importing them.

        The names are read from the modules' source code. They are listed by module, those in `first` before.
        """
        found: dict[str, str] = {}
        home = importlib.import_module(package)
        for module in pkgutil.iter_modules(home.__path__, prefix=f"{package}."):
            spec = module.module_finder.find_spec(module.name, None)
            loader = spec.loader if spec is not None else None
            source = loader.get_source(module.name) if isinstance(loader, InspectLoader) else None
            for given, own in _DECORATED.findall(source or ""):
                found[given or own] = f"{module.name}:{own}"
        for name in sorted(found, key=lambda name: first.index(name) if name in first else len(first)):
            self._names.pop(name, None)  # the order is the same if a module was imported before
            self.add_lazy(name, found[name])

    def order(self, names: list[str]) -> list[str]:
        """`names` without duplicates, in listing order. Unknown names come last and keep their order.

        Imports plugins, but no registered object.
        """
        plugins.load()
        rank = {name: i for i, name in enumerate(dict.fromkeys((*self._first, *self._names)))}
        return sorted(dict.fromkeys(names), key=lambda name: rank.get(name, len(rank)))

    def __getitem__(self, name: str) -> T:
        if name not in self._objects:
            if name not in self._lazy:
                self._load()
            if name in self._lazy:
                target, _, attribute = self._lazy[name].partition(":")
                module = importlib.import_module(target)  # which may itself register the object
                self._objects.setdefault(name, getattr(module, attribute))
        if name not in self._objects:
            raise UnknownName(self.kind, name, self)
        return self._objects[name]

    def __setitem__(self, name: str, thing: T) -> None:
        self._names[name] = None
        self._objects[name] = thing

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise UnknownName(self.kind, name, self)
        del self._names[name]
        self._objects.pop(name, None)
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
            self.add_package(self._home)
        if self._setup is not None:
            self._setup()
        plugins.load()
