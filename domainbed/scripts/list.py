"""List what is available: `python -m domainbed.scripts.list [KIND ...] [--json]`."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from domainbed.errors import UnknownName, run_script

Entry = dict[str, Any]


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def algorithms(_: str | None) -> dict[str, Entry]:
    """Name -> description and hyper-parameters (defaults for large and for small images, description)."""
    from domainbed.algorithms import REGISTRY
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
                "help": large[key].help,
            }
            for key in table
        }
        entries[name] = {"about": _first_line(REGISTRY[name]), "hparams": hparams}
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
    from domainbed.training.config import optional_hparams

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


def plugins(_: str | None) -> dict[str, Entry]:
    """Name -> "ok", or why it was skipped."""
    from domainbed import plugins

    return {name: {"about": status} for name, status in plugins.load().items()}


KINDS: dict[str, Callable[[str | None], dict[str, Entry]]] = {
    kind.__name__: kind
    for kind in (algorithms, datasets, featurizers, options, launchers, selection, splits, plugins)
}


def _print(kind: str, entries: dict[str, Entry]) -> None:
    print(f"{kind}:")
    for name, entry in entries.items():
        if kind == "datasets":
            ready = "ready" if entry["missing"] is None else entry["missing"]
            print(f"  {name}: {', '.join(entry['environments'])}  [{ready}]")
            continue
        default = f" (default {entry['default']!r})" if "default" in entry else ""
        weights = f"  [{entry['weights']}]" if "weights" in entry else ""
        print(f"  {name}: {entry['about']}{default}{weights}")
        for key, hparam in entry.get("hparams", {}).items():
            small = hparam["default_small_images"]
            also = "" if small == hparam["default"] else f" ({small!r} for small images)"
            print(f"      {key} = {hparam['default']!r}{also}  {hparam['help']}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        description="List algorithms, datasets, featurizers and other things that are available by name."
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--data_dir", type=str, help="data directory, to see which datasets are installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object: kind -> name -> facts")
    args = parser.parse_args(argv)
    for kind in args.kinds:
        if kind not in KINDS:
            raise UnknownName("Kind", kind, KINDS)
    shown = {kind: KINDS[kind](args.data_dir) for kind in args.kinds or KINDS}
    if args.json:
        print(json.dumps(shown, indent=1))
    else:
        for kind, entries in shown.items():
            _print(kind, entries)
    return 0


if __name__ == "__main__":
    run_script(main)
