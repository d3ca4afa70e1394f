"""`collect_results --paired`: its flags, what it says of unusual sweeps, and every error."""

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
from domainbed.scripts import collect_results


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text.split("\n\n")[1])))


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


def test_without_correction_there_is_no_holm_p(three_methods, collect):
    out = collect(three_methods, "--paired", "--correction", "none").out
    tables = out.split("-------- Dataset: EmojiStyles, target accuracy (%)")[1]
    assert "Holm p" not in tables
    assert "Nothing is corrected for the number of comparisons (--correction none)." in tables


def test_without_correction_csv_has_no_holm_p(three_methods, collect):
    captured = collect(three_methods, "--paired", "--correction", "none", "--format", "csv")
    rows = csv_rows(captured.out)
    assert {row["holm_p"] for row in rows} == {""}
    assert {row["significant"] for row in rows if row["p"] and float(row["p"]) < 0.05} == {"True"}
    assert {(row["low_simultaneous"], row["high_simultaneous"]) for row in rows} == {
        (row["low_points"], row["high_points"]) for row in rows
    }


def test_the_rope_decides_what_is_equivalent(three_methods, collect):
    out = collect(three_methods, "--paired", "--rope", "9").out
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


def test_figures_are_written_and_named(three_methods, collect, tmp_path):
    out = collect(three_methods, "--figures", str(tmp_path / "new" / "figures")).out
    path = tmp_path / "new" / "figures" / "EmojiStyles.png"
    assert path.is_file()
    assert out.splitlines()[-1] == f"Figure: {path}"
    assert "Verdict" not in out  # tables need --paired


def test_without_flags_nothing_is_added(three_methods, collect):
    assert "Wilcoxon" not in collect(three_methods).out


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


def test_selection_is_iid_without_test_splits(three_methods, collect):
    without = [{key: value for key, value in r.items() if "_test_acc" not in key} for r in three_methods]
    assert "Model selection: training-domain validation set." in collect(without, "--paired").out


def test_selection_is_the_sweeps_own(three_methods, write, capsys):
    folder = write(three_methods)
    (folder / "sweep.json").write_text(json.dumps({"jobs": {}, "selection": ["last"], "version": 1}))
    collect_results.main(["--input_dir", str(folder), "--paired"])
    assert "Model selection: last step," in capsys.readouterr().out
    collect_results.main(["--input_dir", str(folder), "--paired", "--paired_selection", "oracle"])
    assert "Model selection: test-domain validation set (oracle)." in capsys.readouterr().out


def test_bad_flags(three_methods, write):
    folder = str(write(three_methods))
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
def test_bad_options(three_methods, write, flags, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        collect_results.main(["--input_dir", str(write(three_methods)), "--paired", *flags])


def test_importing_the_section_is_cheap():
    code = (
        "import sys, domainbed_gs.report.paired;"
        "print(*[m for m in ('torch', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
