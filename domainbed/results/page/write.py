"""The page as a whole."""

from __future__ import annotations

import contextlib
import html
import io
import logging
from collections.abc import Callable, Iterator
from importlib.resources import files
from string import Template
from typing import NamedTuple

from domainbed.errors import DomainBedError
from domainbed.records.runs import listing
from domainbed.results.page import gaps, hyperparameters, learning, overview, repeat, results
from domainbed.results.page.content import Content
from domainbed.results.plots import HOW_TO_GET, have_matplotlib
from domainbed.results.report import PageSection, ReportContext, ReportSection, sections
from domainbed.results.writing import print_paragraphs

_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """A part of the page: a name to link to, a heading, and HTML."""

    name: str
    title: str
    body: str


BEFORE = (("overview", "What was run", overview.write), ("results", "Results", results.write))
AFTER = (
    ("curves", "Learning curves", learning.write),
    ("sensitivity", "Hyper-parameter sensitivity", hyperparameters.write),
    ("gaps", "Failures and gaps", gaps.write),
    ("repeat", "How to repeat it", repeat.write),
)
"""The parts of every page, before and after those of plugins."""


def page_of(content: Content) -> str:
    """The page; it refers to nothing outside itself, and the same content gives the same text.

    Raises: DomainBedError of a section that the command line asks for. One that belongs there by itself says
        on the page why it is missing.
    """
    drawn = [_part(name, title, write, content) for name, title, write in (*BEFORE, *AFTER)]
    drawn[len(BEFORE) : len(BEFORE)] = _of_sections(content.context)
    parts = [part for part in drawn if part.body.strip()]
    folder = files(__package__) / "assets"
    page, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "sort.js")
    )
    return Template(page).substitute(
        title=html.escape(f"Report on {content.context.input_dir.resolve().name}"),
        summary=html.escape(_summary(content)),
        contents="\n".join(f'<li><a href="#{it.name}">{html.escape(it.title)}</a></li>' for it in parts),
        parts="\n".join(
            f'<section id="{it.name}">\n<h2>{html.escape(it.title)}</h2>\n{it.body}</section>' for it in parts
        ),
        style=style,
        script=script,
    )


def _summary(content: Content) -> str:
    algorithms = listing(content.accuracies[content.selection].algorithms, most=12)
    datasets = listing(list(dict.fromkeys(run["args"]["dataset"] for run in content.runs)))
    said = f"{len(content.runs)} runs of {algorithms} on {datasets}."
    return said if have_matplotlib() else f"{said} This page has no figures: {HOW_TO_GET}."


def _part(name: str, title: str, write: Callable[[Content], None], content: Content) -> Part:
    body = io.StringIO()
    with contextlib.redirect_stdout(body):
        write(content)
    return Part(name, title, body.getvalue())


def _of_sections(context: ReportContext) -> Iterator[Part]:
    for name, section in sections():
        asked = section.wanted(context.args)
        if asked or (isinstance(section, PageSection) and section.belongs(context)):
            body = io.StringIO()
            with contextlib.redirect_stdout(body):
                _write(section, context, asked)
            yield Part(html.escape(name), getattr(section, "title", name), body.getvalue())


def _write(section: ReportSection, context: ReportContext, asked: bool) -> None:
    try:
        section.write(context)
    except DomainBedError as error:
        if asked:
            raise
        print_paragraphs([f"Left out: {error}."], context.format)
