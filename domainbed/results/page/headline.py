"""The first screen of a page: the answer of a section, or a summary of what was run."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from domainbed.console import shortened_list
from domainbed.errors import DomainBedError
from domainbed.escaping import html_escape
from domainbed.results.page.content import PageContent
from domainbed.results.page.facts import print_facts, sweep_facts
from domainbed.results.printing import print_lines
from domainbed.results.report import HeadlineSection, sections


@dataclass(frozen=True)
class Headline:
    """The first screen as HTML.

    Attributes:
        body: its HTML.
        style: CSS for it.
        answers: whether it is the answer of a section.
    """

    body: str
    style: str = ""
    answers: bool = False


def render_headline(content: PageContent) -> Headline:
    """The headline of the first section that has one; without any, a summary of what was run.

    The reason why a section has no headline stands in the section's own part of the page.
    """
    for _, section in sections():
        if isinstance(section, HeadlineSection) and section.belongs(content.context):
            body = io.StringIO()
            with contextlib.redirect_stdout(body), contextlib.suppress(DomainBedError):
                section.write_headline(content.context)
                if body.getvalue().strip():
                    return Headline(body.getvalue(), section.headline_style(), answers=True)
    body = io.StringIO()
    with contextlib.redirect_stdout(body):
        _print_summary(content)
    return Headline(body.getvalue())


def _print_summary(content: PageContent) -> None:
    """Print what was run, in a sentence and a list of facts."""
    algorithms = shortened_list(content.accuracies[content.selection].algorithms, most=12)
    datasets = shortened_list(content.datasets)
    summary = f"{len(content.runs)} runs of {algorithms} on {datasets}."
    print_lines(
        f"<h1>{html_escape(f'Report on {content.context.input_dir.resolve().name}')}</h1>",
        f'<p class="summary">{html_escape(summary)}</p>',
    )
    print_facts(list(sweep_facts(content.context)))
