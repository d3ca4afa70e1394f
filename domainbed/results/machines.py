"""The machines that computed the runs of a sweep, from each run's run.json."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from domainbed.training.run_state import read_json

Machine = dict[str, Any]
"""Processor, kernels, threads, device and library versions (see `domainbed.training.machine`)."""


def machines_of(run: Path) -> list[Machine]:
    """The machines that worked on the run in the directory `run`, in order; empty if it does not say."""
    machines = (read_json(run / "run.json") or {}).get("machines", [])
    return (
        [machine for machine in machines if isinstance(machine, dict)] if isinstance(machines, list) else []
    )


def describe_machines(runs: Iterable[Path]) -> list[str]:
    """One line for each machine, the one with most runs first: "AMD EPYC, AVX512, ... (96 runs)"."""
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update({_line(machine) for machine in machines_of(run)})
    return [f"{line} ({count} {'run' if count == 1 else 'runs'})" for line, count in counts.most_common()]


def notes_on_machines(runs: Iterable[Path]) -> list[str]:
    """A note if the runs, or the parts of a resumed run, were computed on different machines."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for machine in machines_of(run):
            for name, value in machine.items():
                values[name][str(value)] += 1
    differences = [
        f"{name} ({', '.join(f'{value}: {count}' for value, count in counts.most_common())})"
        for name, counts in values.items()
        if len(counts) > 1
    ]
    if not differences:
        return []
    return [
        f"runs were computed with different {'; '.join(differences)}; equal settings may differ in numbers"
    ]


def _line(machine: Machine) -> str:
    named = ("processor", "kernels", "threads", "device")
    words = {"threads": " thread" if machine.get("threads") == 1 else " threads"}
    first = [f"{machine[name]}{words.get(name, '')}" for name in named if name in machine]
    return ", ".join([*first, *(f"{name} {value}" for name, value in machine.items() if name not in named)])
