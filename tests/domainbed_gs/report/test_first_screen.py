"""The first screen of a page agrees with the paired report, for one dataset and for several."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest

from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.page.content import PageContent
from domainbed.results.page.headline import render_headline
from domainbed.results.report import ReportContext, default_section_args
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.verdicts import answer

TRIALS = 12


def accuracies(targets=(0, 1)):
    """{algorithm: {target: (TRIALS,)}}; AgrSum is better, IRM worse, Mixup undecided, CORAL equivalent."""
    random = np.random.default_rng(0)
    base = {target: 0.5 + 0.02 * random.standard_normal(TRIALS) for target in targets}
    gains = {"ERM": 0.0, "AgrSum": 0.02, "IRM": -0.2, "Mixup": 0.004, "CORAL": 0.0}
    spreads = {"ERM": 0.0, "AgrSum": 0.004, "IRM": 0.004, "Mixup": 0.03, "CORAL": 0.001}
    return {
        name: {
            target: np.round(base[target] + gain + spreads[name] * random.standard_normal(TRIALS), 4).tolist()
            for target in targets
        }
        for name, gain in gains.items()
    }


@pytest.fixture
def first_screen(tmp_path):
    """`first_screen(records, baseline=)`: the HTML above the folded parts of a page."""

    def make(records, baseline="ERM"):
        args = default_section_args()
        args.baseline = baseline
        context = ReportContext(records, tmp_path / "sweep", args, "html", manifest=None)
        methods = {"iccv2021": METHODS["iccv2021"]}
        found = {"iccv2021": compute_accuracies(records, METHODS["iccv2021"])}
        return render_headline(PageContent(context, methods, found, notes=())).body

    return make


def report_of(records):
    return compare_all(compute_accuracies(records, METHODS["iccv2021"]), "ERM")


def texts(fragment):
    """The text of each table cell in each row of an HTML fragment."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", fragment, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in cells]


def table(screen, kind):
    (found,) = re.findall(rf'<table class="{kind}".*?</table>', screen, re.DOTALL)
    return texts(found)


def test_the_answer_and_its_limits_come_first(sweep, first_screen):
    records = sweep(accuracies())
    screen = first_screen(records)
    report = report_of(records)
    assert answer(report) == (
        "AgrSum beats ERM. IRM is worse. CORAL is equivalent to ERM within 1 point. 1 of 4 remains undecided."
    )
    assert screen.index("kicker") < screen.index(f"<h1>{answer(report)}</h1>") < screen.index("facts")
    assert (
        '<p class="kicker">EmojiStyles · selection: source validation set (micro average over samples)'
        in screen
    )
    assert "Dashed" not in screen
    for fact in ("<b>120</b> runs", "<b>12</b> paired trials", "<b>2</b> held-out environments"):
        assert f"<li>{fact}</li>" in screen


def test_shared_splits_are_highlighted_and_own_ones_said(sweep, first_screen):
    shared, own = (first_screen(sweep(accuracies(), splits=s)) for s in ("70/10/20", "70/10/20:per_trial"))
    line = '<p class="limit">All trials share one split: claims hold for this split only</p>'
    assert line in shared
    assert line not in own
    assert "<li>a split for each trial</li>" in own


def test_the_smallest_detectable_differences_are_said(sweep, first_screen):
    records = sweep(accuracies())
    found = [100 * cell.smallest_detectable for cell in report_of(records).primary]
    fact = f"detectable with 80 % power: <b>{min(found):.1f} to {max(found):.1f}</b> points"
    assert fact in first_screen(records)


def test_rows_of_the_forest_plot_are_the_primary_family(sweep, first_screen):
    records = sweep(accuracies())
    head, *rows = table(first_screen(records), "forest")
    cells = {cell.algorithm: cell for cell in report_of(records).primary}
    assert [name.replace("\xa0", " ") for name in (head[0], *head[2:])] == [
        "Method", "Shift", "Simultaneous 95 % interval", "p (Holm)", "Better in trials", "Verdict",
    ]  # fmt: skip
    assert [row[0] for row in rows] == sorted(cells, key=lambda name: -cells[name].comparison.shift)
    for name, _, shift, interval, _, better, verdict in rows:
        comparison = cells[name].comparison
        assert float(shift.replace("−", "-")) == pytest.approx(100 * comparison.shift, abs=0.0501)
        ends = [float(end.replace("−", "-")) for end in interval.split(" to ")]
        assert ends == pytest.approx([100 * end for end in comparison.simultaneous], abs=0.0501)
        assert better == f"{100 * comparison.probability_better:.0f} %"
        shape = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?"}[cells[name].verdict.value]
        assert verdict.startswith(f"{shape} {cells[name].verdict.value}")


def test_tables_below_it_have_stars_on_corrected_significance_only(sweep, first_screen):
    records = sweep(accuracies())
    screen = first_screen(records)
    _, means, differences = (texts(part) for part in screen.split("<h2>"))
    report = report_of(records)
    cells = {(cell.algorithm, cell.target_name): cell for cell in report.cells}
    assert means[0] == ["Method", "Flat", "Gradient", "Average"]
    assert {row[0] for row in means[1:]} == {"ERM", "AgrSum", "IRM", "Mixup", "CORAL"}
    for name, *row in means[1:]:
        for target, text in zip(means[0][1:], row, strict=True):
            trials = list(cells[name, target].trials.values())
            assert text == f"{100 * np.mean(trials):.1f} ± {100 * np.std(trials) / TRIALS**0.5:.1f}"
    assert differences[0] == ["Method", "Flat", "Gradient"]
    for name, *row in differences[1:]:
        for target, text in zip(differences[0][1:], row, strict=True):
            cell = cells[name, target]
            assert text.endswith("*") == (cell.holm_p < 0.05)
            assert float(text.strip("*").replace("−", "-")) == pytest.approx(
                100 * cell.comparison.difference, abs=0.0501
            )
    assert {row[1].endswith("*") for row in differences[1:]} == {True, False}
    best = max(means[1:], key=lambda row: float(row[1].split()[0]))[1]
    assert f"<b>{best.split()[0]}</b>" in screen


def test_several_datasets_share_an_axis_and_have_a_group_each(sweep, first_screen):
    second = sweep(accuracies((2, 3)), dataset="PACS")
    records = Q([*sweep(accuracies()), *second])
    screen = first_screen(records)
    rows = table(screen, "forest")[1:]
    names = [name for name, *cells in rows if not cells]
    assert sorted(names) == ["EmojiStyles", "PACS"]
    assert len(rows) == 2 + 8
    assert screen.count("<thead") == 2 + 4  # the forest plot and its data; two tables for each dataset
    assert "<b>4</b> held-out environments" in screen
    assert "Difference to ERM (points): PACS" in screen


def test_one_target_has_no_small_marks(sweep, first_screen):
    screen = first_screen(sweep(accuracies((0,))))
    assert 'class="mark"' not in screen
    assert "Small marks" not in screen
    assert len(table(screen, "forest")) == 1 + 4


def test_two_trials_bear_no_verdict_and_say_so(sweep, first_screen):
    few = {name: {t: values[:2] for t, values in own.items()} for name, own in accuracies().items()}
    screen = first_screen(sweep(few))
    assert {row[3] for row in table(screen, "forest")[1:]} == {"unbounded"}
    assert "no difference is detectable with so few trials" in screen
    assert "Dashed: so few trials do not bound the difference." in screen


def test_a_method_without_shared_trials_and_a_missing_trial(sweep, first_screen):
    partly = accuracies()
    partly["IRM"] = {0: [*[None] * TRIALS, 0.5], 1: [*[None] * TRIALS, 0.5]}
    partly["Mixup"][0][3] = None
    screen = first_screen(sweep(partly))
    assert table(screen, "forest")[-1] == ["IRM", "", "-", "-", "-", "-", "no shared trials"]
    assert '<li class="limits"><b>0 to 12</b> paired trials</li>' in screen


def test_names_are_escaped(sweep, first_screen):
    records = sweep({"ERM": {0: [0.5, 0.6]}, "<b>&": {0: [0.6, 0.7]}})
    screen = first_screen(records)
    assert "<b>&" not in screen.replace("<b>&lt;", "")
    assert "&lt;b&gt;&amp;" in screen


def test_one_algorithm_gives_a_summary(sweep, first_screen):
    screen = first_screen(sweep({"ERM": {0: [0.5, 0.6], 1: [0.4, 0.5]}}))
    assert "<h1>Report on sweep</h1>" in screen
    assert "4 runs of ERM on EmojiStyles." in screen
    for fact in ("<b>4</b> runs", "<b>2</b> trials", "<b>2</b> held-out environments"):
        assert f"<li>{fact}</li>" in screen


def test_without_the_baseline_the_part_says_why_and_the_summary_stands(sweep, first_screen):
    screen = first_screen(sweep({"IRM": {0: [0.5]}, "AgrSum": {0: [0.6]}}))
    assert "<h1>Report on sweep</h1>" in screen
