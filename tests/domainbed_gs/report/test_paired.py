"""`collect_results --paired` on a sweep directory: every format read back."""

from __future__ import annotations

import csv
import html
import io
import re

import numpy as np

from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.verdicts import verdict_text


def expected(records, **options):
    accuracies = compute_accuracies(records, METHODS["iccv2021"])
    return compare_all(accuracies, "ERM", splits="shared", **options)


def signed(share):
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def span(interval):
    if interval == (-np.inf, np.inf):
        return "unbounded"
    return f"[{', '.join('unbounded' if np.isinf(end) else signed(end) for end in interval)}]"


def p_text(p):
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def texts(cell, wide):
    """Row of the table of differences for a cell."""
    result = cell.comparison
    counts = f"{result.wins}/{result.ties}/{result.losses}"
    detectable = f"{100 * cell.smallest_detectable:.2f}"
    return [
        *([] if cell.primary else [cell.target_name]),
        cell.algorithm,
        *([str(result.pairs)] if wide else []),
        signed(result.difference),
        signed(result.shift),
        span(result.interval),
        span(result.simultaneous),
        p_text(result.p),
        p_text(cell.holm_p),
        *([counts] if wide else []),
        f"{100 * result.probability_better:.0f} %",
        *([detectable] if wide else []),
        verdict_text(cell),
    ]


def accuracy(cell):
    return f"{100 * cell.mean:.2f} ({100 * cell.std:.2f})" + "*" * cell.significant


def check(tables, report, wide=True):
    """Check that `tables`, three lists of rows of texts, have every number of `report`."""
    accuracies, averages, single = tables
    assert accuracies[0] == ["Method", "Flat", "Gradient", "Line", "Rendered", "Average"]
    for name, *row in accuracies[1:]:
        assert row == [accuracy(cell) for cell in report.cells if cell.algorithm == name]
    assert averages[0][0] == "Method"
    assert averages[1:] == [texts(cell, wide) for cell in report.primary]
    assert single[0][:2] == ["Target", "Method"]
    assert single[1:] == [texts(cell, wide) for cell in report.secondary]
    assert {"better", "equivalent"} <= {row[-1] for row in averages[1:]}


SHARED = "All trials share one split of the data (--splits 70/10/20). p-values, intervals and verdicts hold"


def test_text(three_methods, collect):
    out = collect(three_methods, "--paired").out
    paired = out.split("-------- Dataset: EmojiStyles, target accuracy (%)")[1]
    blocks = paired.split("\n\n")
    rows = [[re.split(r" {2,}", line.strip()) for line in block.splitlines()] for block in blocks[:3]]
    check([block[1:] for block in rows], expected(three_methods), wide=False)
    assert max(map(len, paired.splitlines())) <= 118
    notes = " ".join(blocks[3].split())
    assert notes.startswith(SHARED)
    assert "on the target's test split" in notes
    assert "ddof=1" in notes
    assert "for the 2 averages over targets and another for the 8 comparisons on single targets" in notes
    assert "within +/- 1 point" in notes
    low = min(cell.smallest_detectable for cell in expected(three_methods).primary)
    assert f"with a probability of 80 %: {100 * low:.1f} " in notes


def test_markdown(three_methods, collect):
    out = collect(three_methods, "--paired", "--format", "markdown").out
    tables = out.split("### Dataset: EmojiStyles, target accuracy (%)")[1].split("\n### ")
    rows = [
        [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
        for table in tables
    ]
    check([[row for row in table if row[0] != "---"] for table in rows], expected(three_methods))
    assert f"\n- {SHARED}" in out


def test_latex(three_methods, collect):
    out = collect(three_methods, "--paired", "--latex").out
    assert "\\subsection{Paired comparison with ERM}" in out
    tables = out.split("\\toprule\n")[-3:]
    rows = []
    for table in tables:
        lines = table.split("\\bottomrule")[0].replace("\\midrule\n", "").splitlines()
        cells = [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in lines]
        rows.append([[re.sub(r"\\textbf\{(.*)\}", r"\1", cell) for cell in row] for row in cells])
    check(
        [[[cell.replace("\\%", "%") for cell in row] for row in table] for table in rows],
        expected(three_methods),
    )
    assert "Holm p $<$ 0.05" in out
    assert "within $\\pm$ 1 point" in out
    assert "\n" + SHARED.replace("--", "-{}-") in out
    assert out.endswith("\\end{document}\n")


def test_page(three_methods, collect, tmp_path):
    collect(three_methods, "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    section = page.split('<section id="paired">')[1].split("</section>")[0]
    tables = [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", table)
        ]
        for table in re.findall(r"<table>(.*?)</table>", section, re.DOTALL)[:3]
    ]
    check(tables, expected(three_methods))
    assert f"<li>{SHARED}" in section


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text.split("\n\n")[1])))


def test_csv_has_all_numbers_at_full_precision(three_methods, collect):
    captured = collect(three_methods, "--paired", "--format", "csv", "--bootstrap_seed", "0")
    rows = csv_rows(captured.out)
    cells = expected(three_methods).cells
    assert len(rows) == len(cells) == 15
    assert list(rows[0])[1:20] == COLUMNS_OF_0_1
    for row, cell in zip(rows, cells, strict=True):
        assert (row["dataset"], row["target"], row["algorithm"]) == (
            cell.dataset,
            cell.target_name,
            cell.algorithm,
        )
        assert (row["baseline"], row["selection"]) == ("ERM", "iccv2021")
        assert (row["splits"], row["metric"]) == ("shared", "accuracy (%), higher is better")
        assert float(row["mean_percent"]) == 100 * cell.mean
        assert float(row["std_percent"]) == 100 * cell.std
        if cell.comparison is None:
            assert row["p"] == row["pairs"] == row["significant"] == row["verdict"] == row["family"] == ""
            continue
        result = cell.comparison
        numbers = {
            "p": result.p,
            "holm_p": cell.holm_p,
            "mean_p": result.mean_p,
            "equivalence_p": result.equivalence_p,
            "difference_points": 100 * result.difference,
            "shift_points": 100 * result.shift,
            "low_points": 100 * result.interval[0],
            "high_points": 100 * result.interval[1],
            "probability_better": result.probability_better,
            "smallest_detectable_points": 100 * cell.smallest_detectable,
        }
        assert {name: float(row[name]) for name in numbers} == numbers
        ends = ["" if np.isinf(end) else str(100 * end) for end in result.simultaneous]
        assert [row["low_simultaneous"], row["high_simultaneous"]] == ends
        assert row["significant"] == str(cell.significant)
        assert row["verdict"] == cell.verdict.value
        assert row["family"] == ("primary" if cell.target is None else "secondary")
    assert "Wilcoxon" in captured.err
    assert SHARED in captured.err


COLUMNS_OF_0_1 = [
    *("dataset", "target_env", "target", "algorithm", "baseline", "selection", "trials", "mean_percent"),
    *("std_percent", "pairs", "difference_points", "low_points", "high_points", "p", "holm_p"),
    *("wins", "ties", "losses", "significant"),
]
