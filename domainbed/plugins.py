"""Plugins: functions that register algorithms, datasets and the like.

A plugin is a function without arguments, listed in the entry-point group `domainbed.plugins` of a package:

    [project.entry-points."domainbed.plugins"]
    my_plugin = "my_package:register"

Plugins that are not installed can be listed in the environment variable DOMAINBED_PLUGINS, separated by
commas, as "module:function" or "module". A module without a function registers things on import. Entry points
in the pyproject.toml of this checkout are found even if the checkout is not installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import tomllib
from pathlib import Path

GROUP = "domainbed.plugins"
VARIABLE = "DOMAINBED_PLUGINS"

_log = logging.getLogger(__name__)
_status: dict[str, str] | None = None


def load() -> dict[str, str]:
    """Call every plugin, once per process. A plugin that raises is skipped with a warning.

    Returns: "ok" or the error, for each plugin by name.
    """
    global _status
    if _status is None:
        _status = {}
        for name, target in found().items():
            _status[name] = _call(name, target)
    return _status


def found() -> dict[str, str]:
    """The "module:function" of each plugin by name. Imports none of them."""
    targets = _listed_in_checkout()
    targets |= {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    listed = [part.strip() for part in os.environ.get(VARIABLE, "").split(",")]
    return targets | {part: part for part in listed if part}


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
    except Exception as error:  # a plugin may raise anything
        _log.warning("plugin %s (%s) is skipped: %s: %s", name, target, type(error).__name__, error)
        return f"{type(error).__name__}: {error}"
    return "ok"
