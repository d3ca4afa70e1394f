"""The part of a page on what failed, and what is missing."""

from __future__ import annotations

from domainbed.results import notes
from domainbed.results.page.content import Content
from domainbed.results.writing import print_paragraphs, print_table
from domainbed.sweep.status import count_states, status_of
from domainbed.training.run_dir import RunState

COLUMNS = ["State", "Reason", "Dataset", "Algorithm", "Targets", "Hparams seed", "Trial", "Folder"]


def write(content: Content) -> None:
    """Print notes, the states of the runs, and a row for each run that has no end."""
    context = content.context
    lines = [*content.notes, *notes.on_tables(content.accuracies, context.records)]
    if context.manifest is not None:
        runs = status_of(context.input_dir)
        numbers = ", ".join(f"{number} {state}" for state, number in count_states(runs).items() if number)
        lines.insert(0, f"Runs that were asked for: {numbers}.")
        rows = [
            [run.state, run.error or "-", *(str(value) for value in run.about.values()), run.name]
            for run in sorted(runs, key=lambda run: run.state)
            if run.state != RunState.DONE.value
        ]
        if rows:
            print_table("Runs without an end", COLUMNS, rows, "html")
    print_paragraphs(lines or ["Nothing is known to be missing."], "html")
