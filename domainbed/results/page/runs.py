"""The parts of a page on single runs: those that failed or are missing, and the commands to repeat them."""

from __future__ import annotations

from domainbed.escaping import html_escape
from domainbed.results.notes import notes_on_accuracies
from domainbed.results.page.content import PageContent
from domainbed.results.printing import print_lines, print_paragraphs, print_section_table
from domainbed.results.relaunch import train_command_line
from domainbed.sweep.status import count_states, status_of
from domainbed.training.run_state import RunState
from domainbed.version import __version__

_COLUMNS = ["State", "Reason", "Dataset", "Algorithm", "Targets", "Hparams seed", "Trial", "Folder"]


def write_gaps(content: PageContent) -> None:
    """Print notes, the number of runs in each state, and a table of the unfinished runs."""
    context = content.context
    lines = [*content.notes, *notes_on_accuracies(content.accuracies, context.records)]
    if context.manifest is not None:
        runs = status_of(context.input_dir)
        numbers = ", ".join(f"{number} {state}" for state, number in count_states(runs).items() if number)
        lines.insert(0, f"Launched runs: {numbers}.")
        rows = [
            [run.state, run.error or "-", *(str(value) for value in run.about.values()), run.name]
            for run in sorted(runs, key=lambda run: run.state)
            if run.state != RunState.DONE.value
        ]
        if rows:
            print_section_table("Unfinished runs", _COLUMNS, rows, "html")
    print_paragraphs(lines or ["No failed or missing runs are known."], "html")


def write_commands(content: PageContent) -> None:
    """Print the commands that launched the sweep, that of each run, and that of the page."""
    manifest = content.context.manifest
    if manifest is not None and manifest.commands:
        _print_block("Commands that launched the sweep:", list(manifest.commands))
    commands = sorted(train_command_line(run["args"]) for run in content.runs)
    print_lines(f'<details class="screen"><summary>Each of the {len(commands)} runs</summary>')
    _print_block("Flags that do not affect results (device, workers) are omitted.", commands)
    print_lines("</details>")
    if content.command:
        _print_block("Command that made this page:", [content.command])
    print_lines(f"<p>Made with domainbed-gs {html_escape(__version__)}.</p>")


def _print_block(title: str, lines: list[str]) -> None:
    text = html_escape("\n".join(lines), keep_lines=True)
    print_lines(f'<p>{html_escape(title)}</p>\n<pre tabindex="0">{text}</pre>')
