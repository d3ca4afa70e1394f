"""Plugins: functions that register things, found by entry point and called once a process.

A plugin is a function of no arguments named in the entry-point group `domainbed.plugins`:

    [project.entry-points."domainbed.plugins"]
    my_plugin = "my_package:register"

It may also be named, without being installed, in the environment variable DOMAINBED_PLUGINS
("module:function", separated by commas; of a "module" alone the import is all, its decorators register),
or in the pyproject.toml of the checkout that we run from.
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
    """Call every plugin's function, once a process.

    Returns: name of each plugin -> "ok", or why it was skipped. A plugin that fails is named in a
    warning and skipped; it never stops the others.
    """
    global _status
    if _status is None:
        _status = {}
        for name, target in found().items():
            _status[name] = _call(name, target)
    return _status


def found() -> dict[str, str]:
    """Name of each plugin -> its "module:function", without importing any."""
    targets = _of_checkout()
    targets |= {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    named = [part.strip() for part in os.environ.get(VARIABLE, "").split(",")]
    return targets | {part: part for part in named if part}


def _of_checkout() -> dict[str, str]:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        return dict(project["entry-points"][GROUP]) if project["name"] == "domainbed-gs" else {}
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return {}  # installed, not run from a checkout


def _call(name: str, target: str) -> str:
    module, _, function = target.partition(":")
    try:
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    except Exception as error:  # whatever somebody else's code raises, ours goes on
        _log.warning("plugin %s (%s) is skipped: %s: %s", name, target, type(error).__name__, error)
        return f"{type(error).__name__}: {error}"
    return "ok"
