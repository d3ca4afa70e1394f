"""The things of each kind, with what is known of them."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from domainbed.console import program_name
from domainbed.errors import UnknownName, UsageError

Entry = dict[str, Any]
"""Facts about one thing, by name."""

SCRIPT = "domainbed.scripts.list"
"""The module of the command, for messages."""

GLOB = "*?["
"""Characters that make a pattern of a name."""


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def algorithms(_: str | None) -> dict[str, Entry]:
    """Name -> description, facts and hyper-parameters: for large and small images, and their description."""
    from domainbed.algorithms import REGISTRY
    from domainbed.algorithms.catalogue import facts_of
    from domainbed.hparams import resolve

    entries = {}
    for name in REGISTRY:
        table = {**REGISTRY[name].hparams_table(), **REGISTRY[name].switches_table()}
        large, small = (
            {key: resolve(value, size) for key, value in table.items()} for size in ("", "Debug28")
        )
        hparams = {
            key: {
                "default": large[key].default,
                "default_small_images": small[key].default,
                "random": large[key].distribution,
                "random_small_images": small[key].distribution,
                "help": large[key].help,
            }
            for key in table
        }
        entries[name] = {"about": _first_line(REGISTRY[name]), "facts": facts_of(name), "hparams": hparams}
    return entries


def datasets(data_dir: str | None) -> dict[str, Entry]:
    """Name -> environments, and what is missing to use the dataset (null if nothing is)."""
    from domainbed.datasets import REGISTRY

    return {
        name: {"environments": list(REGISTRY[name].ENVIRONMENTS), "missing": REGISTRY[name].missing(data_dir)}
        for name in REGISTRY
    }


def featurizers(_: str | None) -> dict[str, Entry]:
    """Name -> description, and whether the pretrained weights are on this machine."""
    from domainbed.networks import FEATURIZERS
    from domainbed.networks.default_weights import weights_at_hand

    found = {name: FEATURIZERS[name] for name in FEATURIZERS}
    return {
        name: {"about": _first_line(each), "weights": weights_at_hand(each)} for name, each in found.items()
    }


def options(_: str | None) -> dict[str, Entry]:
    """Optional hyper-parameters of any algorithm: name -> default and description."""
    from domainbed.training.run_hparams import optional_hparams

    return {
        name: {"default": declared.default, "about": declared.help}
        for name, declared in optional_hparams().items()
    }


def launchers(_: str | None) -> dict[str, Entry]:
    """Name -> description."""
    from domainbed.command_launchers import REGISTRY

    return {name: {"about": _first_line(REGISTRY[name])} for name in REGISTRY}


def selection(_: str | None) -> dict[str, Entry]:
    """Name -> name of the method in tables."""
    from domainbed.model_selection import METHODS

    return {name: {"about": METHODS[name].name} for name in METHODS}


def splits(_: str | None) -> dict[str, Entry]:
    """Name -> description."""
    from domainbed.training.splits import SCHEMES

    return {name: {"about": _first_line(SCHEMES[name])} for name in SCHEMES}


def trackers(_: str | None) -> dict[str, Entry]:
    """Name -> description."""
    from domainbed.training.trackers import TRACKERS

    return {name: {"about": _first_line(TRACKERS[name])} for name in TRACKERS}


def plugins(_: str | None) -> dict[str, Entry]:
    """Name -> "ok", or why it was skipped."""
    from domainbed import plugins

    return {name: {"about": status} for name, status in plugins.load().items()}


KINDS: dict[str, Callable[[str | None], dict[str, Entry]]] = {
    kind.__name__: kind
    for kind in (algorithms, datasets, featurizers, options, launchers, selection, splits, trackers, plugins)
}


def chosen(entries: Mapping[str, Entry], kind: str, patterns: Sequence[str]) -> dict[str, Entry]:
    """The entries that match any of the patterns, names or globs such as "Agr*"; all without patterns.

    Raises: UnknownName for a name that is not there, UsageError for a glob without a match.
    """
    found: dict[str, Entry] = {}
    for pattern in patterns or ("*",):
        names = [name for name in entries if fnmatch.fnmatch(name.lower(), pattern.lower())]
        if any(letter in pattern for letter in GLOB):
            if not names and patterns:
                raise UsageError(f"no {kind} match {pattern!r}; {program_name(SCRIPT)} {kind} lists all")
        else:
            names = [pattern]
            if pattern not in entries:
                raise UnknownName(_singular(kind), pattern, entries)
        found |= {name: entries[name] for name in names}
    return found


def _singular(kind: str) -> str:
    return {"selection": "Selection method"}.get(kind, kind.removesuffix("s").capitalize())
