"""Things as lines of text: an overview, a table, or one in full."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

from domainbed.console import program_name, text_table
from domainbed.listing.kinds import SCRIPT, Entry

_WIDTH = 80


def overview(everything: Mapping[str, Mapping[str, Entry]]) -> list[str]:
    """Lines of one screen: how many of each kind there are, their first names, and what to type next."""
    command = program_name(SCRIPT)
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
                [f"{command} algorithms", "a table of all"],
                [f"{command} algorithms 'Agr*'", "of some"],
                [f"{command} algorithms AgrSum", "one in full"],
                [f"{command} datasets --data_dir DIR", "the data in DIR"],
                [f"{command} --json", "all, for programs"],
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
            rows.append([key, large, "" if small == large else small, _meaning(hparam)])
    lines = text_table(rows) if len(rows) > 1 else []
    as_erm = f"Hyper-parameters as those of ERM: {', '.join(shared)}."
    return [*lines, *(textwrap.wrap(as_erm, _WIDTH, break_on_hyphens=False) if shared else [])]


def _meaning(hparam: Entry) -> str:
    """The description of a hyper-parameter, and what its random values are if they are not the default."""
    large, small = (hparam[key] or "the default" for key in ("random", "random_small_images"))
    if large == small:
        return f"{hparam['help']}; random: {large}" if hparam["random"] else str(hparam["help"])
    return f"{hparam['help']}; random: {large}, for small images {small}"
