"""`collect_results --metric` and `--over_targets` in every format and section; a metric selects nothing."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.metrics import METRICS, metric
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.reported_metric import reporting
from domainbed.scripts import collect_results
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.verdicts import answer

TRIALS = 10


def with_metrics(records, losses):
    """The records with the losses {algorithm: {target: trials}} on the target's parts, and other metrics."""
    for record in records:
        args = record["args"]
        loss = losses[args["algorithm"]][args["test_envs"][0]][args["trial_seed"]]
        for part in ("in", "test"):
            prefix = f"env{args['test_envs'][0]}_{part}"
            record[f"{prefix}_nll"] = loss
            record |= {f"{prefix}_{name}": loss / 10 for name in ("ece", "balanced", "worst", "f1")}
        record |= {f"env{i}_out_nll": 0.5 for i in range(4)}
    return records


@pytest.fixture
def losses():
    """Losses of ERM, of AgrSum, which are lower, and of PCGrad, which are nearly equal: target -> trials."""
    shared = np.random.default_rng(3).normal(1.0, 0.05, (4, TRIALS))

    def of(gain):
        return {target: (shared[target] + gain).tolist() for target in range(4)}

    return {"ERM": of(0.0), "AgrSum": of(-0.1), "PCGrad": of(0.004)}


@pytest.fixture
def records(sweep, losses):
    accuracies = {name: {target: [0.5] * TRIALS for target in range(4)} for name in losses}
    return with_metrics(sweep(accuracies), losses)


@pytest.fixture
def again(tmp_path, capsys):
    """Standard output of `collect_results` with other flags, on the records that `collect` has written."""

    def run(*flags):
        sweep = str(tmp_path / "sweep")
        assert collect_results.main(["--input_dir", sweep, "--selection", "iid", *flags]) == 0
        return capsys.readouterr().out

    return run


def compared(records, name="nll", **options):
    accuracies = compute_accuracies(records, reporting(METHODS["iccv2021"], name), **options)
    return compare_all(accuracies, "ERM", splits="shared")


def test_tables_show_the_metric_in_its_unit(records, losses, collect):
    out, err = collect(records, "--metric", "nll")
    means = [np.mean(losses["ERM"][target]) for target in range(4)]
    row = next(line for line in out.splitlines() if line.startswith("ERM"))
    assert [float(cell.split(" +/- ")[0]) for cell in row.split("  ") if "+/-" in cell] == pytest.approx(
        means, abs=6e-4
    )
    assert "Dataset: EmojiStyles, negative log-likelihood (nats), model selection method" in out
    assert "reported: the negative log-likelihood on the target's in-split at that step in nats" in " ".join(
        err.split()
    )


def test_without_the_flag_tables_are_those_of_accuracies(records, collect, again):
    out = collect(records).out
    assert out == again("--metric", "acc", "--over_targets", "mean")
    assert "50.0 +/- 0.0" in out


def test_csv_names_the_metric_and_has_its_unit(records, losses, collect, again):
    rows = list(csv.DictReader(io.StringIO(collect(records, "--metric", "nll", "--format", "csv").out)))
    assert {row["metric"] for row in rows} == {"negative log-likelihood (nats), lower is better"}
    assert float(rows[0]["mean"]) == pytest.approx(np.mean(losses[rows[0]["algorithm"]][0]))
    assert "metric" not in again("--format", "csv").splitlines()[0]


def test_shares_are_in_percent(records, losses, collect):
    out = collect(records, "--metric", "worst", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert float(rows[0]["mean"]) == pytest.approx(10 * np.mean(losses[rows[0]["algorithm"]][0]))


def test_a_lower_loss_is_better_in_paired_comparisons(records):
    report = compared(records)
    by_method = {cell.algorithm: cell for cell in report.primary}
    agr, pcgrad = by_method["AgrSum"], by_method["PCGrad"]
    assert agr.comparison.difference == pytest.approx(-0.1)
    assert (agr.comparison.wins, agr.comparison.losses) == (TRIALS, 0)
    assert (agr.verdict.value, pcgrad.verdict.value) == ("better", "worse")
    # Worse, but by less than the rope of 0.02 nats.
    assert answer(report) == "AgrSum beats ERM. PCGrad is worse."
    assert pcgrad.holm_equivalence_p < 0.05
    assert (report.rope, report.rope_text) == (0.02, "0.02 nats")


def test_a_higher_share_is_better_in_paired_comparisons(records):
    by_method = {cell.algorithm: cell.verdict.value for cell in compared(records, "worst").primary}
    assert by_method == {"AgrSum": "worse", "PCGrad": "better"}


@pytest.mark.parametrize("format", ["text", "latex", "markdown", "csv"])
def test_paired_tables_of_a_metric_in_every_format(records, collect, format):
    flags = ["--metric", "nll", "--paired", "--aggregate", "--format", format]
    out, err = collect(records, *flags, "--paired_selection", "iccv2021")
    both = " ".join((out + err).split())
    assert "negative log-likelihood" in both
    assert "in %," not in both.replace("probabilities are in %", "").replace("in \\%,", "in %,")
    assert "percentage points" not in both
    if format == "csv":
        table = out.split("\n\n")[1]
        row = next(row for row in csv.DictReader(io.StringIO(table)) if row["algorithm"] == "AgrSum")
        assert float(row["difference"]) == pytest.approx(-0.1)
        assert (row["wins"], row["metric"]) == (
            str(TRIALS),
            "negative log-likelihood (nats), lower is better",
        )
        assert not any("percent" in column or "points" in column for column in row)
    elif format == "text":
        assert "difference to ERM (nats)" in out
        assert "Lower is better: a negative difference is for the method." in both
        assert "within +/- 0.02 nats (--rope)" in both


def test_a_page_of_a_metric(records, collect, tmp_path):
    collect(records, "--metric", "nll", "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "negative log-likelihood (nats), lower is better" in page
    assert "Negative log-likelihood on the held-out environment (nats)" in page
    ends = page.index("◀ method better"), page.index("ERM better ▶")
    assert ends[0] < ends[1]
    assert page.index(">AgrSum<") < page.index(">PCGrad<")  # the best shift first
    assert "accuracy (%)" not in page.replace("target accuracy (%)", "")


def test_the_rope_is_in_the_unit_of_the_metric(records, collect, again):
    out, _ = collect(records, "--metric", "nll", "--paired", "--rope", "0.5")
    assert "within +/- 0.5 nats" in " ".join(out.split())
    with pytest.raises(UsageError, match="--rope is -1; expected nats, 0 or more"):
        again("--metric", "nll", "--paired", "--rope", "-1")


@pytest.mark.parametrize("selection", sorted(METHODS))
def test_no_metric_changes_what_is_selected(records, record, selection):
    """Nor does one that the record of the selected step lacks, or that is not a number."""
    tried = [record("ERM", 0, 0, 0.5, step=step, hparams_seed=seed) for seed in (0, 1) for step in (0, 1, 2)]
    for i, each in enumerate(tried):
        each |= {f"env{j}_out_acc": 0.5 + ((i * 7 + j) % 5) / 10 for j in range(4)}
        each |= {f"env{j}_out_nll": 1 - ((i * 7 + j) % 5) / 10 for j in range(4)}
        each["env0_in_acc"] = each["env0_test_acc"] = i / 10
        if i != 3:
            each |= {"env0_in_nll": math.nan if i == 4 else 5.0 - i, "env0_test_nll": 5.0 - i}
    variants = [[each for each in tried if each["args"]["hparams_seed"] == seed] for seed in (0, 1)]
    method = METHODS[selection]
    plain, other = (
        each.ranked([type(records)(list(variant)) for variant in variants])
        for each in (method, reporting(method, "nll") if method.test_key else method)
    )
    assert [acc["val_acc"] for acc, _ in plain] == [acc["val_acc"] for acc, _ in other]
    assert [own[0]["args"] for _, own in plain] == [own[0]["args"] for _, own in other]


def test_the_metric_is_that_of_the_step_that_the_accuracies_select(record, collect):
    steps = []
    for step, (validation, loss) in enumerate([(0.6, 0.1), (0.9, 2.5), (0.7, 0.2)]):
        made = record("ERM", 0, 0, 0.5, step=step)
        made |= {f"env{i}_out_acc": validation for i in range(4)} | {"env0_in_nll": loss}
        steps.append(made)
    out, _ = collect(steps, "--metric", "nll", "--format", "csv")
    assert float(next(csv.DictReader(io.StringIO(out)))["mean"]) == 2.5


def test_records_of_earlier_versions_have_no_result_and_the_report_says_why(records, collect):
    for each in records:
        if each["args"]["algorithm"] == "ERM":
            del each["env0_in_nll" if "env0_in_nll" in each else f"env{each['args']['test_envs'][0]}_in_nll"]
    out, err = collect(records, "--metric", "nll")
    assert next(line for line in out.splitlines() if line.startswith("ERM")).split()[1:5] == ["X"] * 4
    assert "lacks the negative log-likelihood" in " ".join(err.split())


def test_an_infinite_metric_is_a_missing_result_with_its_reason(records, collect):
    records[0]["env0_in_nll"] = math.inf
    out, err = collect(records, "--metric", "nll", "--paired", "--paired_selection", "iid")
    assert "inf" not in out.replace("information", "")
    assert "infinite (the negative log-likelihood at the selected step)" in " ".join(err.split())


def test_an_unknown_metric_is_refused_with_the_names_of_all(records, collect):
    with pytest.raises(UnknownName, match="Metric not found: nil") as caught:
        collect(records, "--metric", "nil")
    assert "nll" in " ".join(caught.value.__notes__)


def test_a_plugins_metric_is_reported(records, collect, monkeypatch):
    made = metric("Brier score", unit="", larger_is_better=False, rope=0.01)(
        lambda logits, labels: logits.sum()
    )
    monkeypatch.setitem(METRICS, "brier", made)
    for each in records:
        target = each["args"]["test_envs"][0]
        each[f"env{target}_in_brier"] = 0.125
    out, err = collect(records, "--metric", "brier", "--paired", "--paired_selection", "iid")
    assert "Brier score" in out
    assert "0.125 +/- 0.000" in out
    assert "at that step, mean +/- standard error" in " ".join(err.split())


def test_sections_that_need_accuracies_say_so(records, collect, again):
    with pytest.raises(UsageError, match="leave out --metric nll"):
        collect(records, "--metric", "nll", "--against", "iccv2021")
    with pytest.raises(UsageError, match="only accuracies are pooled"):
        again("--metric", "nll", "--paired", "--target_part", "all", "--paired_selection", "iccv2021")


def test_a_method_that_does_not_say_what_it_reports_is_refused(monkeypatch, records, collect):
    class Own(METHODS["iid"]):
        test_key = ""

    monkeypatch.setitem(METHODS, "own", Own)
    with pytest.raises(UsageError, match="does not declare its test_key"):
        collect(records, "--metric", "nll", "--selection", "own")


WORST = {"ERM": {0: [0.5, 0.9], 1: [0.6, 0.7]}, "AgrSum": {0: [0.8, 0.65], 1: [0.7, 0.8]}}


def test_the_worst_target_of_each_trial_is_the_summary(sweep, collect, again):
    text = collect(sweep(WORST, environments=2), "--over_targets", "worst", "--paired").out
    assert "Worst targets, model selection method" in text
    out = again("--over_targets", "worst", "--format", "csv")
    rows = {(row["algorithm"], row["environment"]): row for row in csv.DictReader(io.StringIO(out))}
    assert float(rows["ERM", "Worst"]["mean"]) == pytest.approx(60)  # 0.5 and 0.7
    assert float(rows["AgrSum", "Worst"]["mean"]) == pytest.approx(67.5)  # 0.7 and 0.65
    assert ("ERM", "Avg") not in rows
    report = compare_all(compute_accuracies(sweep(WORST), METHODS["iid"], "worst"), "ERM")
    (cell,) = report.primary
    assert cell.target_name == "Worst target"
    assert cell.comparison.differences == pytest.approx((0.2, -0.05))
    assert "Dataset: EmojiStyles, worst target: difference to ERM" in text
    assert "Worst target: worst of the targets shown" in " ".join(text.split())


def test_the_worst_target_of_a_loss_is_the_largest(records, losses):
    report = compared(records, over_targets="worst")
    (cell,) = (cell for cell in report.cells if cell.target is None and cell.algorithm == "ERM")
    expected = np.max([losses["ERM"][target] for target in range(4)], axis=0)
    assert [cell.trials[trial] for trial in sorted(cell.trials)] == pytest.approx(expected)
