"""The first screen of a page without a plugin's answer, and with the answer of any section."""

from __future__ import annotations

import pytest

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.loading import load_sweep
from domainbed.results.page.content import PageContent
from domainbed.results.page.headline import render_headline
from domainbed.results.report import SECTIONS, HeadlineSection, ReportContext, default_section_args


class Oracle:
    """A section that answers every question."""

    title = "Oracle"
    answer = "<h1>42</h1>"

    def add_arguments(self, parser):
        pass

    def wanted(self, args):
        return False

    def belongs(self, context):
        return True

    def write(self, context):
        print("The number.")

    def headline_style(self):
        return "h1 { color: red; }"

    def write_headline(self, context):
        print(self.answer)
        if not self.answer:
            raise UsageError("there is no question")


@pytest.fixture
def oracle():
    SECTIONS["test_oracle"] = section = Oracle()
    yield section
    del SECTIONS["test_oracle"]


@pytest.fixture
def content(vlcs, tmp_path):
    sweep = load_sweep(vlcs.write(tmp_path / "sweep"))
    context = ReportContext(sweep.records, sweep.directory, default_section_args(), "html", sweep.manifest)
    accuracies = {"iid": compute_accuracies(sweep.records, METHODS["iid"])}
    return PageContent(context, {"iid": METHODS["iid"]}, accuracies, sweep.notes)


def test_one_algorithm_is_summarised(content):
    headline = render_headline(content)
    assert not headline.answers
    assert "<h1>Report on sweep</h1>" in headline.body
    assert "40 runs of ERM on VLCS." in headline.body
    for fact in ("<b>40</b> runs", "<b>2</b> trials", "<b>4</b> held-out environments"):
        assert f"<li>{fact}</li>" in headline.body


def test_any_section_may_answer(content, oracle):
    assert isinstance(oracle, HeadlineSection)
    headline = render_headline(content)
    assert headline.answers
    assert headline.body == "<h1>42</h1>\n"
    assert headline.style == oracle.headline_style()


def test_a_section_without_an_answer_leaves_the_summary(content, oracle):
    oracle.answer = ""
    headline = render_headline(content)
    assert "<h1>Report on sweep</h1>" in headline.body
    assert headline.style == ""
