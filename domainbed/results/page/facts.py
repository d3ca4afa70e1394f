"""The facts at the top of a page: how many runs, trials and held-out environments its numbers rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainbed.escaping import html_escape
from domainbed.records.sweep_records import by_run
from domainbed.results.printing import print_lines
from domainbed.results.report import ReportContext
from domainbed.sweep.status import count_states, status_of
from domainbed.training.run_state import RunState


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes:
        number: its number or numbers, shown in bold.
        after: words after the number.
        before: words before the number.
        limits: whether it limits what can be claimed, and is highlighted.
    """

    number: str
    after: str = ""
    before: str = ""
    limits: bool = False


def sweep_facts(context: ReportContext) -> Iterator[Fact]:
    """Number of runs, of trials, and of held-out environments."""
    yield runs_done(context)
    runs = _runs(context)
    yield counted(len({args["trial_seed"] for args in runs}), "trial")
    targets = {(args["dataset"], target) for args in runs for target in args["test_envs"]}
    yield counted(len(targets), "held-out environment")


def runs_done(context: ReportContext) -> Fact:
    """Number of finished runs, out of those that the sweep launched if that is known."""
    if context.manifest is None:
        return counted(len(_runs(context)), "run")
    runs = status_of(context.input_dir)
    done = count_states(runs)[RunState.DONE.value]
    return Fact(str(done), f"of {len(runs)} runs", limits=done < len(runs))


def _runs(context: ReportContext) -> list[dict[str, Any]]:
    """Arguments of each run with records."""
    return [args for args, _ in by_run(context.records)]


def counted(number: int, noun: str) -> Fact:
    """`number` of `noun`, in the plural unless it is one."""
    return Fact(str(number), noun if number == 1 else f"{noun}s")


def print_facts(facts: Sequence[Fact]) -> None:
    """Print the facts as a list in one line."""
    print_lines('<ul class="facts">', *(f"<li{_class(fact)}>{_html(fact)}</li>" for fact in facts), "</ul>")


def _class(fact: Fact) -> str:
    return ' class="limits"' if fact.limits else ""


def _html(fact: Fact) -> str:
    before, number, after = (html_escape(text) for text in (fact.before, fact.number, fact.after))
    return " ".join(part for part in (before, f"<b>{number}</b>" if number else "", after) if part)
