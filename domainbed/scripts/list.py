"""List what is available by name.

python -m domainbed.scripts.list                        what there is, on one screen
python -m domainbed.scripts.list algorithms             a table of all
python -m domainbed.scripts.list algorithms 'Agr*'      of some
python -m domainbed.scripts.list algorithms AgrSum      one in full
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from domainbed.command_line import CommandParser
from domainbed.console import program_name, text_table
from domainbed.errors import UnknownName, UsageError, run_script

Entry = dict[str, Any]
_COMMAND = program_name("domainbed.scripts.list")
_GLOB = "*?["
_WIDTH = 80


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def algorithms(_: str | None) -> dict[str, Entry]:
    """Name -> description, facts and hyper-parameters (defaults for large and small images, description)."""
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
        if any(letter in pattern for letter in _GLOB):
            if not names and patterns:
                raise UsageError(f"no {kind} match {pattern!r}; {_COMMAND} {kind} lists all")
        else:
            names = [pattern]
            if pattern not in entries:
                raise UnknownName(_singular(kind), pattern, entries)
        found |= {name: entries[name] for name in names}
    return found


def _singular(kind: str) -> str:
    return {"selection": "Selection method"}.get(kind, kind.removesuffix("s").capitalize())


def overview(everything: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    """Lines of one screen: how many of each kind there are, their first names, and what to type next."""
    rows = []
    for kind, entries in everything.items():
        room = _WIDTH - 20
        names = ", ".join(entries) or "none"
        shown = names if len(names) <= room else names[: room - 5].rpartition(",")[0] + ", ..."
        rows.append([kind, str(len(entries)), shown])
    return [
        *text_table(rows),
        "",
        *text_table(
            [
                [f"{_COMMAND} algorithms", "a table of all"],
                [f"{_COMMAND} algorithms 'Agr*'", "of some"],
                [f"{_COMMAND} algorithms AgrSum", "one in full"],
                [f"{_COMMAND} datasets --data_dir DIR", "the data in DIR"],
                [f"{_COMMAND} --json", "all, for programs"],
            ]
        ),
    ]


def table(kind: str, entries: Mapping[str, Entry]) -> list[str]:
    """Lines of a table of the entries, with a heading."""
    heading, cells = _COLUMNS.get(kind, (("name", "about"), _about))
    return text_table([heading, *([name, *cells(entry)] for name, entry in entries.items())])


def _about(entry: Entry) -> list[str]:
    return [entry["about"]]


def _algorithm_cells(entry: Entry) -> list[str]:
    from domainbed.algorithms.catalogue import readable

    facts = entry["facts"]
    year, time, memory = (str(facts.get(key, "?")) for key in ("year", "time", "memory"))
    return [year, readable(time), readable(memory), facts.get("idea", entry["about"])]


def _dataset_cells(entry: Entry) -> list[str]:
    return ["ready" if entry["missing"] is None else "no data", ", ".join(entry["environments"])]


def _featurizer_cells(entry: Entry) -> list[str]:
    words = {"weights at hand": "here", "weights not at hand": "not here"}
    return [words.get(entry["weights"].partition(":")[0], "none"), entry["about"]]


def _option_cells(entry: Entry) -> list[str]:
    return [repr(entry["default"]), entry["about"]]


_COLUMNS: dict[str, tuple[tuple[str, ...], Callable[[Entry], list[str]]]] = {
    "algorithms": (("name", "year", "time", "memory", "idea"), _algorithm_cells),
    "datasets": (("name", "data", "environments"), _dataset_cells),
    "featurizers": (("name", "weights", "about"), _featurizer_cells),
    "options": (("name", "default", "about"), _option_cells),
}
_FACTS = {
    "paper": "paper",
    "time": "time (ERM is 1)",
    "memory": "memory (ERM is 0)",
    "cost": "cost",
    "one_environment": "with K = 1",
    "pretrained": "pretrained weights",
    "shared": "several processes",
    "departures": "departures",
    "module": "module",
}
_WORDS: Mapping[str, Mapping[object, str]] = {
    "pretrained": {True: "needed", False: "not needed"},
    "shared": {True: "can share an update", False: "cannot share an update"},
}


def _fact_text(key: str, value: object) -> str:
    """A fact as the catalogue in docs/algorithms.md has it."""
    from domainbed.algorithms.catalogue import readable

    text = str(_WORDS.get(key, {}).get(value, value))
    return readable(text) if key in ("time", "memory") else text


def in_full(name: str, entry: Entry, of_erm: Mapping[str, Entry]) -> list[str]:
    """Lines with all that is known of one thing; `of_erm` are ERM's hyper-parameters."""
    facts = entry.get("facts", {})
    year = f" ({facts['year']})" if "year" in facts else ""
    rows = [[label, _fact_text(key, facts[key])] for key, label in _FACTS.items() if facts.get(key, "") != ""]
    for key, value in entry.items():
        if key not in ("facts", "hparams") and not (key == "about" and "idea" in facts):
            rows.append([key, ", ".join(value) if isinstance(value, list) else str(value)])
    if "idea" in facts:
        rows.insert(0, ["idea", facts["idea"]])
    lines = [f"{name}{year}", *text_table(rows, indent=2)]
    if entry.get("hparams"):
        lines += ["", *_hparams_table(entry["hparams"], {} if name == "ERM" else of_erm)]
    return lines


def _hparams_table(hparams: Mapping[str, Entry], of_erm: Mapping[str, Entry]) -> list[str]:
    """A table of the hyper-parameters that ERM does not have or has with other defaults."""
    rows = [["hyper-parameter", "default", "small images", "meaning"]]
    shared = [key for key, hparam in hparams.items() if of_erm.get(key) == hparam]
    for key, hparam in hparams.items():
        if key not in shared:
            large, small = (repr(hparam[size]) for size in ("default", "default_small_images"))
            rows.append([key, large, "" if small == large else small, hparam["help"]])
    lines = text_table(rows) if len(rows) > 1 else []
    as_erm = f"Hyper-parameters as those of ERM: {', '.join(shared)}."
    return [*lines, *(textwrap.wrap(as_erm, _WIDTH, break_on_hyphens=False) if shared else [])]


def requests(words: Sequence[str]) -> dict[str, list[str]]:
    """Kind -> patterns, of the arguments "KIND [PATTERN ...] [KIND ...]".

    Raises: UnknownName if the first word is no kind.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        if word in KINDS:
            found.setdefault(word, [])
        elif found:
            list(found.values())[-1].append(word)
        else:
            raise UnknownName("Kind", word, KINDS)
    return found


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.list",
        "List algorithms, datasets, featurizers and other things that are available by name.",
        "[KIND [NAME ...]]",
        {
            "": "how many there are of each kind",
            "algorithms": "a table of all algorithms",
            "algorithms 'Agr*'": "of some",
            "algorithms AgrSum": "one in full, with its hyper-parameters",
            "datasets --data_dir DATA": "which datasets are in DATA",
        },
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KIND [NAME]",
        help=f"a kind ({', '.join(KINDS)}), then names or globs such as 'Agr*'",
    )
    parser.add_argument("--data_dir", type=str, help="data directory, to see which datasets are installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object: kind -> name -> facts")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = build_parser().parse_args(argv)
    wanted = requests(args.words)
    everything = {kind: KINDS[kind](args.data_dir) for kind in wanted or KINDS}
    shown = {kind: chosen(entries, kind, wanted.get(kind, [])) for kind, entries in everything.items()}
    if args.json:
        print(json.dumps(shown, indent=1))
    elif not wanted:
        print("\n".join(overview(shown)))
    else:
        of_erm = everything.get("algorithms", {}).get("ERM", {}).get("hparams", {})
        blocks = []
        for kind, patterns in wanted.items():
            if not patterns or any(letter in pattern for pattern in patterns for letter in _GLOB):
                blocks.append(table(kind, shown[kind]))
            else:
                blocks += [in_full(name, entry, of_erm) for name, entry in shown[kind].items()]
        print("\n\n".join("\n".join(block) for block in blocks))
    return 0


if __name__ == "__main__":
    run_script(main)
