from __future__ import annotations

import csv
import io

import pytest

from domainbed.results.tables import format_mean, latex_width, print_table, render_table

TABLE = [["1", "2"], ["3", "4"]]


def test_format_mean():
    mean, err, text = format_mean([0.1, 0.2, 0.3], latex=False)
    assert mean == pytest.approx(20.0, rel=1e-15)
    assert err == pytest.approx(4.714045207910316, rel=1e-15)
    assert text == "20.0 +/- 4.7"
    assert format_mean([0.1, 0.2, 0.3], latex=True)[2] == r"20.0 $\pm$ 4.7"
    assert format_mean([], latex=True) == (None, None, "X")


def test_print_table_in_text(capsys):
    print_table(TABLE, "Header text", ["R1", "R2"], ["C1", "C2"], colwidth=10, latex=False)
    assert capsys.readouterr().out == (
        "\n"
        "-------- Header text\n"
        "C1          C2         \n"
        "R1          1           2          \n"
        "R2          3           4          \n"
    )
    assert TABLE == [["1", "2"], ["3", "4"]]


def test_print_table_in_latex_cuts_as_upstream_does(capsys):
    """Upstream's test expects that this width cuts off the braces. Reports widen the columns."""
    print_table(TABLE, "Header text", ["R1", "R2"], ["C1", "C2"], colwidth=10, latex=True)
    assert capsys.readouterr().out == (
        "\n"
        "\\begin{center}\n"
        "\\adjustbox{max width=\\textwidth}{%\n"
        "\\begin{tabular}{lcc}\n"
        "\\toprule\n"
        "\\textbf{C1 & \\textbf{C2 \\\\\n"
        "\\midrule\n"
        "R1         & 1          & 2          \\\\\n"
        "R2         & 3          & 4          \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}}\n"
        "\\end{center}\n"
    )


def test_latex_width():
    assert latex_width(20, ["ERM"], ["C", "+90%"]) == 20
    assert latex_width(20, ["ERM"], ["twelve_chars"]) == len(r"\textbf{twelve\_chars}")
    assert latex_width(20, ["a" * 30], ["C"]) == 20
    assert latex_width(20, ["a_" * 15], ["C"]) == 45


COLUMNS, ROWS = ["Algorithm", "p"], [["IB_ERM", "0.031*"], ["a|b", "1.0 +/- 0.5"]]


def test_render_table_text():
    assert render_table("Title", COLUMNS, ROWS, "text").split("\n") == [
        "",
        "-------- Title",
        "Algorithm  p           ",
        "IB_ERM     0.031*      ",
        "a|b        1.0 +/- 0.5 ",
    ]


def test_render_table_latex():
    assert render_table("T_1", COLUMNS, ROWS, "latex").split("\n") == [
        "",
        "\\subsubsection{T\\_1}",
        "",
        "\\begin{center}",
        "\\adjustbox{max width=\\textwidth}{%",
        "\\begin{tabular}{lc}",
        "\\toprule",
        "\\textbf{Algorithm} & \\textbf{p}    \\\\",
        "\\midrule",
        "IB\\_ERM            & 0.031*        \\\\",
        "a\\textbar{}b       & 1.0 $\\pm$ 0.5 \\\\",
        "\\bottomrule",
        "\\end{tabular}}",
        "\\end{center}",
    ]


def test_render_table_markdown_and_csv():
    assert render_table("Title", COLUMNS, ROWS, "markdown").split("\n") == [
        "",
        "### Title",
        "",
        "| Algorithm | p |",
        "| --- | ---: |",
        "| IB_ERM | 0.031* |",
        "| a\\|b | 1.0 +/- 0.5 |",
    ]
    text = render_table("a, b", COLUMNS, ROWS, "csv")
    assert list(csv.reader(io.StringIO(text))) == [["table", *COLUMNS], *(["a, b", *row] for row in ROWS)]
    assert not text.endswith("\n")
