"""`collect_results --paired` on a sweep directory: every format read back, and every error."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.scripts import collect_results
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.verdicts import verdict_text

TRIALS = 10


@pytest.fixture
def records(sweep):
    rng = np.random.default_rng(4)
    shared = rng.normal(0.5, 0.02, (4, TRIALS))

    def method(gain):
        accuracies = np.round((shared + gain + rng.normal(0, 0.005, shared.shape)) * 500) / 500
        return {target: accuracies[target].tolist() for target in range(4)}

    return sweep({"ERM": method(0), "AgrSum": method(0.04), "PCGrad": method(0)})


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


def test_text(records, collect):
    out = collect(records, "--paired").out
    paired = out.split("-------- Dataset: EmojiStyles, target accuracy (%)")[1]
    blocks = paired.split("\n\n")
    rows = [[re.split(r" {2,}", line.strip()) for line in block.splitlines()] for block in blocks[:3]]
    check([block[1:] for block in rows], expected(records), wide=False)
    assert max(map(len, paired.splitlines())) <= 118
    notes = " ".join(blocks[3].split())
    assert notes.startswith(SHARED)
    assert "on the target's test split" in notes
    assert "ddof=1" in notes
    assert "for the 2 averages over targets and another for the 8 comparisons on single targets" in notes
    assert "within +/- 1 point" in notes
    low = min(cell.smallest_detectable for cell in expected(records).primary)
    assert f"with a probability of 80 %: {100 * low:.1f} " in notes


def test_markdown(records, collect):
    out = collect(records, "--paired", "--format", "markdown").out
    tables = out.split("### Dataset: EmojiStyles, target accuracy (%)")[1].split("\n### ")
    rows = [
        [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
        for table in tables
    ]
    check([[row for row in table if row[0] != "---"] for table in rows], expected(records))
    assert f"\n- {SHARED}" in out


def test_latex(records, collect):
    out = collect(records, "--paired", "--latex").out
    assert "\\subsection{Paired comparison with ERM}" in out
    tables = out.split("\\toprule\n")[-3:]
    rows = []
    for table in tables:
        lines = table.split("\\bottomrule")[0].replace("\\midrule\n", "").splitlines()
        cells = [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in lines]
        rows.append([[re.sub(r"\\textbf\{(.*)\}", r"\1", cell) for cell in row] for row in cells])
    check(
        [[[cell.replace("\\%", "%") for cell in row] for row in table] for table in rows], expected(records)
    )
    assert "Holm p $<$ 0.05" in out
    assert "within $\\pm$ 1 point" in out
    assert "\n" + SHARED.replace("--", "-{}-") in out
    assert out.endswith("\\end{document}\n")


def test_page(records, collect, tmp_path):
    collect(records, "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    section = page.split('<section id="paired">')[1].split("</section>")[0]
    tables = [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", table)
        ]
        for table in re.findall(r"<table>(.*?)</table>", section, re.DOTALL)[:3]
    ]
    check(tables, expected(records))
    assert f"<li>{SHARED}" in section


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text.split("\n\n")[1])))


def test_csv_has_all_numbers_at_full_precision(records, collect):
    captured = collect(records, "--paired", "--format", "csv", "--bootstrap_seed", "0")
    rows = csv_rows(captured.out)
    cells = expected(records).cells
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


def test_no_row_contradicts_itself(sweep, collect):
    rng = np.random.default_rng(1)
    records = sweep(
        {
            name: {t: (np.round(rng.normal(0.5 + gain, 0.02, 9) * 50) / 50).tolist() for t in range(4)}
            for name, gain in {"ERM": 0, "AgrSum": 0.03, "PCGrad": -0.03, "IRM": 0.01, "SAM": 0}.items()
        }
    )
    rows = [row for row in csv_rows(collect(records, "--paired", "--format", "csv").out) if row["p"]]
    for row in rows:
        low, high = (float(row[f"{end}_points"] or "nan") for end in ("low", "high"))
        assert (float(row["p"]) < 0.05) == (low > 0 or high < 0)
        assert (row["significant"] == "True") == (float(row["holm_p"]) < 0.05)
        assert (row["verdict"] in ("better", "worse")) == (row["significant"] == "True")
    assert 0 < sum(float(row["p"]) < 0.05 for row in rows) < len(rows)


def test_without_correction_there_is_no_holm_p(records, collect):
    out = collect(records, "--paired", "--correction", "none").out
    tables = out.split("-------- Dataset: EmojiStyles, target accuracy (%)")[1]
    assert "Holm p" not in tables
    assert "Nothing is corrected for the number of comparisons (--correction none)." in tables


def test_without_correction_csv_has_no_holm_p(records, collect):
    captured = collect(records, "--paired", "--correction", "none", "--format", "csv")
    rows = csv_rows(captured.out)
    assert {row["holm_p"] for row in rows} == {""}
    assert {row["significant"] for row in rows if row["p"] and float(row["p"]) < 0.05} == {"True"}
    assert {(row["low_simultaneous"], row["high_simultaneous"]) for row in rows} == {
        (row["low_points"], row["high_points"]) for row in rows
    }


def test_the_rope_decides_what_is_equivalent(records, collect):
    out = collect(records, "--paired", "--rope", "9").out
    averages = out.split("average over targets: difference")[1].split("\n\n")[0]
    assert "better, by less than the rope" in averages
    assert "within +/- 9 points" in " ".join(out.split())


def test_a_method_that_shares_no_trial_with_the_baseline_has_no_pairs(sweep, collect):
    accuracies = {"ERM": {0: [0.5, 0.6, None, None]}, "AgrSum": {0: [None, None, 0.7, 0.8]}}
    out = collect(sweep(accuracies), "--paired", "--format", "csv").out
    (row,) = [row for row in csv_rows(out) if row["algorithm"] == "AgrSum"]
    assert (row["trials"], row["pairs"]) == ("2", "0")
    assert float(row["mean_percent"]) == pytest.approx(75)
    assert row["p"] == row["difference_points"] == row["low_points"] == row["wins"] == ""


def test_figures_are_written_and_named(records, collect, tmp_path):
    out = collect(records, "--figures", str(tmp_path / "new" / "figures")).out
    path = tmp_path / "new" / "figures" / "EmojiStyles.png"
    assert path.is_file()
    assert out.splitlines()[-1] == f"Figure: {path}"
    assert "Verdict" not in out  # tables need --paired


def test_without_flags_nothing_is_added(records, collect):
    assert "Wilcoxon" not in collect(records).out


def test_many_targets_are_divided_into_several_tables(sweep, collect):
    records = sweep({name: {t: [0.5, 0.6] for t in range(10)} for name in ("ERM", "AgrSum")}, dataset="SVIRO")
    paired = collect(records, "--paired").out.split("-------- Dataset: SVIRO, target accuracy (%)")
    assert len(paired) == 3
    assert paired[1].split()[-1] == paired[2].splitlines()[3].split()[-1] == "(7.07)"
    assert "Average" in paired[2].splitlines()[1]


def test_the_baseline_alone_has_accuracies_and_no_differences(sweep, collect):
    out = collect(sweep({"ERM": {0: [0.5, 0.6]}}), "--paired").out
    assert "55.00 (7.07)" in out
    assert "percentage points)" not in out


def test_one_trial_has_no_standard_deviation_and_unbounded_intervals(sweep, collect):
    out = collect(sweep({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}}), "--paired").out
    assert "60.00 (-)" in out
    assert "-------- Dataset: EmojiStyles, Flat: difference to ERM (percentage points)" in out
    row = r"AgrSum +\+10.00 +\+10.00 +unbounded +unbounded +1.0000 +1.0000 +100 % +undecided, needs 6 trials"
    assert re.search(row, out)


def test_each_format_says_what_is_known_about_splits(sweep, collect):
    accuracies = {"ERM": {0: [0.5] * 6}, "AgrSum": {0: [0.6] * 6}}
    own = collect(sweep(accuracies, splits="70/10/20:per_trial"), "--paired").out
    assert "Each trial has its own split of the data (--splits 70/10/20:per_trial)." in own


def test_splits_of_a_scheme_that_declares_nothing_are_unknown(sweep, collect):
    records = sweep({"ERM": {0: [0.5] * 6}, "AgrSum": {0: [0.6] * 6}}, splits="no_longer_registered")
    captured = collect(records, "--paired", "--format", "csv")
    assert {row["splits"] for row in csv_rows(captured.out)} == {"unknown"}
    assert "the split scheme no_longer_registered does not declare it" in " ".join(captured.err.split())


def test_selection_is_iid_without_test_splits(records, collect):
    without = [{key: value for key, value in r.items() if "_test_acc" not in key} for r in records]
    assert "Model selection: training-domain validation set." in collect(without, "--paired").out


def test_selection_is_the_sweeps_own(records, write, capsys):
    folder = write(records)
    (folder / "sweep.json").write_text(json.dumps({"jobs": {}, "selection": ["last"], "version": 1}))
    collect_results.main(["--input_dir", str(folder), "--paired"])
    assert "Model selection: last step," in capsys.readouterr().out
    collect_results.main(["--input_dir", str(folder), "--paired", "--paired_selection", "oracle"])
    assert "Model selection: test-domain validation set (oracle)." in capsys.readouterr().out


def test_bad_flags(records, write):
    folder = str(write(records))
    with pytest.raises(UsageError, match=r"--baseline IRM has no results.*ERM, AgrSum, PCGrad"):
        collect_results.main(["--input_dir", folder, "--paired", "--baseline", "IRM"])
    with pytest.raises(UnknownName, match="iccv2012"):
        collect_results.main(["--input_dir", folder, "--paired", "--paired_selection", "iccv2012"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rope", "-1"], "--rope is -1; expected percentage points, 0 or more"),
        (["--rope", "inf"], "--rope is inf; expected percentage points, 0 or more"),
        (["--correction", "bonferroni"], "--correction is one of holm, none, not 'bonferroni'"),
        (["--target_part", "out"], "--target_part is one of test, all, not 'out'"),
    ],
)
def test_bad_options(records, write, flags, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        collect_results.main(["--input_dir", str(write(records)), "--paired", *flags])


def test_importing_the_section_is_cheap():
    code = (
        "import sys, domainbed_gs.report.paired;"
        "print(*[m for m in ('torch', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
