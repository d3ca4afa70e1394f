"""The catalogue in docs/algorithms.md: `python -m domainbed.algorithms.catalogue_page docs/algorithms.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.catalogue import facts_of, readable
from domainbed.errors import UsageError
from domainbed.plugins import OWN_PACKAGES

BEGIN = (
    "<!-- The catalogue begins: made by python -m domainbed.algorithms.catalogue_page docs/algorithms.md -->"
)
END = "<!-- The catalogue ends. -->"
_TITLES = ("Method", "Year", "Idea", "Time", "Memory", "K = 1", "Shared")


def with_catalogue(page: str) -> str:
    """The Markdown `page` with the current catalogue between its two marks.

    Raises: UsageError if a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the page lacks the line {BEGIN if not begin else END!r}")
    return f"{before}{begin}\n\n{catalogue()}\n{end}{after}"


def catalogue() -> str:
    """A table of this project's methods, and a list of their papers, costs and departures, in Markdown."""
    methods = {name: facts_of(name) for name in REGISTRY}
    own = {name: each for name, each in methods.items() if each["module"].split(".")[0] in OWN_PACKAGES}
    rows = [_row(_TITLES), _row(["---"] * len(_TITLES)), *map(_method_row, own, own.values())]
    return "\n".join([*rows, "", *map(_details, own, own.values())]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _method_row(name: str, facts: dict[str, Any]) -> str:
    idea = facts["idea"] + (" (needs pretrained weights)" if facts["pretrained"] else "")
    memory = "" if facts["memory"] == "0" else readable(facts["memory"])
    shared = "yes" if facts["shared"] else ""
    time, alone = readable(facts["time"]), facts["one_environment"]
    return _row([f"`{name}`", str(facts["year"]), idea, time, memory, alone, shared])


def _details(name: str, facts: dict[str, Any]) -> str:
    return f"- `{name}` " + " ".join(_sentences(facts))


def _sentences(facts: dict[str, Any]) -> Iterator[str]:
    yield f"({facts['module'].replace('.', '/')}.py): {facts['paper']}."
    if facts["cost"]:
        yield f"*Cost:* {facts['cost']}"
    if facts["departures"]:
        yield f"*Departures:* {facts['departures']}"


def main() -> None:
    """Rewrite the page that the command line names."""
    page = Path(sys.argv[1])
    page.write_text(with_catalogue(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
