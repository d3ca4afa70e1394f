"""The page as a whole: its parts in order, and the HTML around them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from domainbed.errors import DomainBedError
from domainbed.escaping import html_escape
from domainbed.results.domainbed_tables import print_rendered_tables
from domainbed.results.ensembles import print_ensembles
from domainbed.results.page import confusion, learning_curves, overview, runs, sensitivity
from domainbed.results.page.content import PageContent
from domainbed.results.page.headline import render_headline
from domainbed.results.printing import print_paragraphs
from domainbed.results.report import PageSection, ReportContext, ReportSection, sections


@dataclass(frozen=True)
class PagePart:
    """A part of every page.

    Attributes:
        name: its id, to which the contents link.
        title: its heading.
        write: prints its HTML to the current `sys.stdout`. A part that prints nothing is left out.
    """

    name: str
    title: str
    write: Callable[[PageContent], None]


@dataclass(frozen=True)
class RenderedPart:
    """A part with its HTML, `body`; `name` and `title` as in `PagePart`."""

    name: str
    title: str
    body: str


def print_result_tables(content: PageContent) -> None:
    """Print the DomainBed tables of each selection method."""
    for accuracies in content.accuracies.values():
        print_rendered_tables(accuracies, content.context.format)


def print_ensemble_tables(content: PageContent) -> None:
    """Print the ensembles of trials, if they were asked for."""
    for tables in content.ensembles.values():
        for table in tables:
            print_ensembles(table, content.context.format)


PARTS_BEFORE_SECTIONS = (
    PagePart("overview", "What was run", overview.write),
    PagePart("results", "DomainBed tables", print_result_tables),
    PagePart("ensembles", "Ensembles of trials", print_ensemble_tables),
)
PARTS_AFTER_SECTIONS = (
    PagePart("curves", "Learning curves", learning_curves.write),
    PagePart("confusion", "Confusion matrices", confusion.write),
    PagePart("sensitivity", "Hyper-parameter sensitivity", sensitivity.write),
    PagePart("gaps", "Failed and missing runs", runs.write_gaps),
    PagePart("repeat", "How to reproduce it", runs.write_commands),
)
"""The parts of every page, before and after the sections of plugins."""

SCRIPTS = ("sort.js", "copy.js", "fold.js", "cards.js")
"""The scripts of a page, in order."""


def render_page(content: PageContent) -> str:
    """The HTML of the page. It refers to nothing outside itself, and is a function of `content` alone.

    Raises: DomainBedError of a section that the options ask for. If a section that is included by default
        fails, the page shows the reason instead.
    """
    headline = render_headline(content)
    parts = [
        *(_render_part(part, content) for part in PARTS_BEFORE_SECTIONS),
        *_render_sections(content.context),
        *(_render_part(part, content) for part in PARTS_AFTER_SECTIONS),
    ]
    parts = [part for part in parts if part.body.strip()]
    unfolded = () if headline.answers else ("results",)
    title = html_escape(f"Report on {content.context.input_dir.resolve().name}")
    return Template(_asset("page.html")).substitute(
        title=title,
        name=title if headline.answers else "",
        headline=headline.body,
        contents="\n".join(
            f'<li><a href="#{part.name}">{html_escape(part.title)}</a></li>' for part in parts
        ),
        parts="\n".join(_folded(part, unfolded=part.name in unfolded) for part in parts),
        style=_asset("style.css") + headline.style,
        script="".join(_asset(name) for name in SCRIPTS),
    )


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _folded(part: RenderedPart, *, unfolded: bool) -> str:
    """A part below its heading, folded unless `unfolded`."""
    title = html_escape(part.title)
    return (
        f'<section id="{part.name}">\n<details{" open" if unfolded else ""}>'
        f"<summary><h2>{title}</h2></summary>\n{part.body}</details></section>"
    )


def _render_part(part: PagePart, content: PageContent) -> RenderedPart:
    body = io.StringIO()
    with contextlib.redirect_stdout(body):
        part.write(content)
    return RenderedPart(part.name, part.title, body.getvalue())


def _render_sections(context: ReportContext) -> Iterator[RenderedPart]:
    for name, section in sections():
        wanted = section.wanted(context.args)
        if wanted or (isinstance(section, PageSection) and section.belongs(context)):
            body = io.StringIO()
            with contextlib.redirect_stdout(body):
                _write_section(section, context, wanted)
            yield RenderedPart(html_escape(name), getattr(section, "title", name), body.getvalue())


def _write_section(section: ReportSection, context: ReportContext, wanted: bool) -> None:
    try:
        section.write(context)
    except DomainBedError as error:
        if wanted:
            raise
        print_paragraphs([f"Left out: {error}."], context.format)
