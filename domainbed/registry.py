"""Registries: algorithms, datasets, featurizers and the like by name. Plugins can add to them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from importlib.abc import InspectLoader
from typing import Any, Self, TypeVar

from domainbed import plugins
from domainbed.errors import NameConflict, UnknownName

T = TypeVar("T")

_DECORATED = re.compile(
    r"""^@[\w.]+\.register\((?:["']([^"']+)["'])?\)\n(?:@.*\n)*(?:class|def) (\w+)""", re.MULTILINE
)


class Registry(MutableMapping[str, T]):
    """A mapping from names to objects of one kind, in order of registration.

    The first look-up searches `home`, calls `setup` and loads the plugins (see `domainbed.plugins`). An
    object registered with `add_lazy` or `add_package` is imported on its own first look-up, so that listing
    names does not import it.

    A name belongs to the module that registers it. Another module may replace the object only by
    `register(name, override=True)`; see `replacement`.

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
        self._modules: dict[str, str] = {}
        self._replacements: dict[str, str] = {}
        self._replaced: dict[str, str] = {}  # the modules whose objects they have replaced
        self._loaded = False

    @classmethod
    def of_module(
        cls,
        kind: str,
        home: str | None = None,
        setup: Callable[[], object] | None = None,
        first: tuple[str, ...] = (),
    ) -> Self:
        """The registry of the calling module. `importlib.reload` of that module gets the same one again.

        Other modules keep the registry that they have imported, and plugins register only once. Arguments
        are those of the constructor.
        """
        key = (_calling_module(), kind)
        if key not in _of_modules:
            _of_modules[key] = cls(kind, home, setup, first)
        known = _of_modules[key]
        assert isinstance(known, cls)
        return known

    def register(self, name: str | None = None, override: bool = False) -> Callable[[T], T]:
        """Decorator that registers a class or function.

        Args:
            name: by default the name of the object.
            override: replace what another module has registered, or will register, under this name.

        Raises: NameConflict, when it decorates, if another module uses the name and `override` is False.
        """

        def add(thing: T) -> T:
            own = name if name is not None else getattr(thing, "__name__")  # noqa: B009 - T has no bound
            if self._claim(own, _calling_module(), override):
                self._names[own] = None
                self._objects[own] = thing
            return thing

        return add

    def replacement(self, name: str) -> str | None:
        """The module that has replaced the object `name` by `override=True`, or None."""
        return self._replacements.get(name)

    def _claim(self, name: str, module: str, override: bool = False) -> bool:
        """Whether `module` may register `name`: not if another one has replaced what it registers.

        Raises: NameConflict if another module uses the name.
        """
        replaced_by = self._replacements.get(name)
        if override:
            other = replaced_by
        elif replaced_by not in (None, module):
            other = self._replaced.setdefault(name, module)  # built-in objects may be registered later
        else:
            other = self._modules.get(name)
        if other not in (None, module):
            raise NameConflict(
                f"{self.kind} {name} is registered by {other} and by {module}; "
                "rename one of them, or register the one that is meant with override=True"
            )
        if override:
            if self._modules.get(name, module) != module:
                self._replaced[name] = self._modules[name]
            self._replacements[name] = module
        elif replaced_by not in (None, module):
            return False
        self._modules[name] = module
        return True

    def add_lazy(self, name: str, target: str) -> None:
        """Register the object that `target` ("module:attribute") names, without importing it.

        Raises: NameConflict if another module uses the name.
        """
        self._search_home()
        self._names[name] = None
        if self._claim(name, target.partition(":")[0]):
            self._lazy[name] = target

    def add_package(self, package: str, first: Sequence[str] = ()) -> None:
        """Register what the modules of `package` decorate with `@NAME.register()`, without importing them.

        The names are read from the modules' source code. They are listed by module, those in `first` before.
        """
        self._search_home()
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

    def order(self, names: Iterable[str]) -> list[str]:
        """`names` without duplicates, in listing order; unknown names come last, by name.

        Imports plugins, but no registered object.
        """
        plugins.load()
        rank = {name: i for i, name in enumerate(dict.fromkeys((*self._first, *self._names)))}
        return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))

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
        self.register(name)(thing)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise UnknownName(self.kind, name, self)
        del self._names[name]
        self._objects.pop(name, None)
        for table in (self._lazy, self._modules, self._replacements, self._replaced):
            table.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        self._load()
        yield from [name for name in self._first if name in self._names]
        yield from [name for name in self._names if name not in self._first]

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._names

    def _search_home(self) -> None:
        """Search `home`, once; before anything is added, so that its objects are listed first."""
        home, self._home = self._home, None
        try:
            if home is not None:
                self.add_package(home)
        except NameConflict:
            self._home = home  # so that the next look-up does not pass in silence
            raise

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            self._search_home()
            if self._setup is not None:
                self._setup()
            plugins.load()
        except NameConflict:
            self._loaded = False  # so that the next look-up does not pass in silence
            raise


_of_modules: dict[tuple[str, str], Registry[Any]] = {}
"""The registries of modules, by the module's name and their kind."""


def _calling_module() -> str:
    """Name of the module whose code registers something."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "collections.abc"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))
