"""The part of a page with the commands that repeat what it shows."""

from __future__ import annotations

import html
import shlex

from domainbed.results.commands import train_command
from domainbed.results.page.content import Content
from domainbed.results.writing import print_lines
from domainbed.version import __version__


def write(content: Content) -> None:
    """Print the launches as they were noted, the command of each run, and that of the report."""
    context = content.context
    launches = context.manifest.commands if context.manifest else ()
    if launches:
        _block("The sweep, as it was launched:", list(launches))
    commands = sorted(train_command(run["args"]) for run in content.runs)
    print_lines(f'<details class="screen"><summary>Each of the {len(commands)} runs by itself</summary>')
    _block("Flags that change no result (device, workers) are left out.", commands)
    print_lines("</details>")
    _block(
        "This page:", [shlex.join(["python", "-m", "domainbed.scripts.collect_results", *context.args.typed])]
    )
    print_lines(f"<p>Made with domainbed-gs {html.escape(__version__)}.</p>")


def _block(title: str, lines: list[str]) -> None:
    text = html.escape("\n".join(lines))
    print_lines(f'<p>{html.escape(title)}</p>\n<pre tabindex="0">{text}</pre>')
