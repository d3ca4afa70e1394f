"""`collect_results --paired` on a sweep directory: every format read back, and every error."""

from __future__ import annotations

import csv
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


@pytest.fixture
def records(sweep):
    rng = np.random.default_rng(4)
    shared = rng.normal(0.5, 0.02, (4, 6))

    def method(gain):
        accuracies = np.round((shared + gain + rng.normal(0, 0.005, shared.shape)) * 500) / 500
        return {target: accuracies[target].tolist() for target in range(4)}

    return sweep({"ERM": method(0), "AgrSum": method(0.04), "PCGrad": method(0)})


def expected(records):
    return compare_all(compute_accuracies(records, METHODS["iccv2021"]), "ERM")


def texts(cell):
    """Row of the table of differences for a cell."""
    result = cell.comparison
    low, high = result.interval
    return [
        cell.target_name,
        cell.algorithm,
        f"{100 * result.difference:+.2f}",
        f"[{round(100 * low, 2) + 0.0:+.2f}, {round(100 * high, 2) + 0.0:+.2f}]",
        f"{result.p:.4f}" + " *" * (cell.holm_p < 0.05),
        f"{cell.holm_p:.4f}",
        f"{result.wins}/{result.ties}/{result.losses}",
        str(result.pairs),
    ]


def accuracy(cell):
    return f"{100 * cell.mean:.2f} ({100 * cell.std:.2f})" + "*" * cell.significant


def check(tables, report):
    """Check that `tables`, two lists of rows of texts, hold every number of `report`."""
    accuracies, differences = tables
    assert accuracies[0] == ["Method", "Flat", "Gradient", "Line", "Rendered", "Average"]
    for name, *row in accuracies[1:]:
        assert row == [accuracy(cell) for cell in report.cells if cell.algorithm == name]
    assert differences[1:] == [texts(cell) for cell in report.cells if cell.comparison]


def test_text(records, collect):
    out = collect(records, "--paired").out
    paired = out.split("-------- Dataset: EmojiStyles, target accuracy (%)")[1]
    blocks = paired.split("\n\n")
    rows = [[re.split(r" {2,}", line.strip()) for line in block.splitlines()] for block in blocks[:2]]
    check([rows[0][1:], rows[1][1:]], expected(records))
    assert max(map(len, paired.splitlines())) <= 120
    assert "on the target's test split" in blocks[2]
    assert "ddof=1" in blocks[2]
    assert "2 averages and 8 comparisons on single targets" in blocks[2]


def test_markdown(records, collect):
    out = collect(records, "--paired", "--format", "markdown").out
    rows = [
        line.strip("| ").split(" | ")
        for line in out.split("target accuracy (%)")[1].splitlines()
        if "|" in line
    ]
    rows = [row for row in rows if row[0] != "---"]
    at = next(i for i, row in enumerate(rows) if row[0] == "Target")
    check([rows[:at], rows[at:]], expected(records))
    assert "\n- Model selection: " in out


def test_latex(records, collect):
    out = collect(records, "--paired", "--latex").out
    assert "\\subsection{Paired comparison with ERM}" in out
    tables = out.split("\\toprule\n")[-2:]
    rows = []
    for table in tables:
        lines = table.split("\\bottomrule")[0].replace("\\midrule\n", "").splitlines()
        cells = [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in lines]
        rows.append([[re.sub(r"\\textbf\{(.*)\}", r"\1", cell) for cell in row] for row in cells])
    check(rows, expected(records))
    assert "Holm p $<$ 0.05" in out
    assert out.endswith("\\end{document}\n")


def test_csv_has_all_numbers_at_full_precision(records, collect):
    captured = collect(records, "--paired", "--format", "csv", "--bootstrap_seed", "0")
    rows = list(csv.DictReader(io.StringIO(captured.out.split("\n\n")[1])))
    cells = expected(records).cells
    assert len(rows) == len(cells) == 15
    for row, cell in zip(rows, cells, strict=True):
        assert (row["dataset"], row["target"], row["algorithm"]) == (
            cell.dataset,
            cell.target_name,
            cell.algorithm,
        )
        assert (row["baseline"], row["selection"]) == ("ERM", "iccv2021")
        assert float(row["mean_percent"]) == 100 * cell.mean
        assert float(row["std_percent"]) == 100 * cell.std
        if cell.comparison is None:
            assert row["p"] == row["pairs"] == row["significant"] == ""
            continue
        assert float(row["p"]) == cell.comparison.p
        assert float(row["difference_points"]) == 100 * cell.comparison.difference
        assert float(row["high_points"]) == 100 * cell.comparison.interval[1]
        assert row["holm_p"] == ("" if cell.holm_p is None else str(cell.holm_p))
        assert row["significant"] == str(cell.significant)
    assert "Wilcoxon" in captured.err


def test_figures_are_written_and_named(records, collect, tmp_path):
    out = collect(records, "--figures", str(tmp_path / "new" / "figures")).out
    path = tmp_path / "new" / "figures" / "EmojiStyles.png"
    assert path.is_file()
    assert out.splitlines()[-1] == f"Figure: {path}"
    assert "W/T/L" not in out  # tables need --paired


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


def test_one_trial_has_no_standard_deviation_and_an_unbounded_interval(sweep, collect):
    out = collect(sweep({"ERM": {0: [0.5]}, "AgrSum": {0: [0.6]}}), "--paired").out
    assert "60.00 (-)" in out
    assert re.search(r"AgrSum +\+10.00 +\[-inf, \+inf\] +1.0000 +1.0000 +1/0/0 +1", out)


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


def test_importing_the_section_is_cheap():
    code = (
        "import sys, domainbed_gs.report.paired;"
        "print(*[m for m in ('torch', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
