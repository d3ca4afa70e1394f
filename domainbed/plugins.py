"""Plugins: functions that register algorithms, datasets and the like.

A plugin is a function without arguments, listed in the entry-point group `domainbed.plugins` of a package:

    [project.entry-points."domainbed.plugins"]
    my_plugin = "my_package:register"

Two plugins of one name are an error, and so are two things of one name, unless the second says that it
replaces the first (`register(override=True)` of a registry).

Plugins that are not installed can be listed in the environment variable DOMAINBED_PLUGINS, separated by
commas, as "module:function" or "module". A module without a function registers things on import. Entry points
in the pyproject.toml of this checkout are found even if the checkout is not installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from domainbed.errors import NameConflict

GROUP = "domainbed.plugins"
VARIABLE = "DOMAINBED_PLUGINS"

OWN_PACKAGES = ("domainbed", "domainbed_gs")
"""Packages of this project."""
LIBRARIES = ("torch", "torchvision", "timm", "numpy")
"""Packages that plugins and this project build on."""

_log = logging.getLogger(__name__)
_status: dict[str, str] | None = None


def load() -> dict[str, str]:
    """Call every plugin, once per process. A plugin that raises is skipped with a warning.

    Returns: "ok" or the error, for each plugin by name.

    Raises: NameConflict if two plugins have one name, or use one name for different things.
    """
    global _status
    if _status is None:
        targets = found()
        _status = {}
        try:
            for name, target in targets.items():
                _status[name] = _call(name, target)
        except NameConflict:
            _status = None
            raise
    return _status


def found() -> dict[str, str]:
    """The "module:function" of each plugin by name. Imports none of them.

    Raises: NameConflict if two plugins have one name.
    """
    targets: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name, target, origin in _listed():
        before = targets.setdefault(name, target)
        origins.setdefault(name, origin)
        # The variable may name the module of an installed plugin.
        if before != target and not (name == target == before.partition(":")[0]):
            raise NameConflict(
                f"two plugins are called {name}: {before} of {origins[name]}, and {target} of {origin}; "
                "uninstall one of them, or rename its entry point"
            )
    return targets


def _listed() -> Iterator[tuple[str, str, str]]:
    """Name, target and origin of each plugin that is listed anywhere."""
    for name, target in _listed_in_checkout().items():
        yield name, target, "this checkout"
    for point in importlib.metadata.entry_points(group=GROUP):
        yield point.name, point.value, f"package {point.dist.name}" if point.dist else "a package"
    for part in os.environ.get(VARIABLE, "").split(","):
        if part.strip():
            yield part.strip(), part.strip(), f"the variable {VARIABLE}"


def is_of_plugin(thing: type) -> bool:
    """Whether a class belongs to a plugin or a user's script, not to this project or a library."""
    package = thing.__module__.partition(".")[0]
    return package not in (*OWN_PACKAGES, *LIBRARIES) and package not in sys.stdlib_module_names


def _listed_in_checkout() -> dict[str, str]:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        return dict(project["entry-points"][GROUP]) if project["name"] == "domainbed-gs" else {}
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return {}  # installed, so not in a checkout


def _call(name: str, target: str) -> str:
    module, _, function = target.partition(":")
    try:
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    except NameConflict:
        raise
    except Exception as error:  # a plugin may raise anything
        _log.warning("plugin %s (%s) is skipped: %s: %s", name, target, type(error).__name__, error)
        return f"{type(error).__name__}: {error}"
    return "ok"
