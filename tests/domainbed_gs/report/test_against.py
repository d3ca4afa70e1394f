"""`collect_results --against`: our accuracies beside published ones."""

from __future__ import annotations

import csv
import io
import math
import re
from statistics import fmean, stdev

import pytest

from domainbed.errors import UsageError
from domainbed.records.query import Q

OURS = [0.58, 0.60, 0.62, 0.61]
SETTING = {"splits": "70/10/20", "sampling": "epochs", "steps": 1000}
HPARAMS = {"featurizer": "alexnet", "stored_size": 227, "data_augmentation": False}
HPARAMS |= {"lr": 1e-5, "weight_decay": 5e-5, "batch_size": 128}


@pytest.fixture
def records(sweep):
    def make(accuracies, dataset="PACS", hparams=HPARAMS, **args):
        records = sweep(accuracies, dataset=dataset, **(SETTING | args))
        for record in records:
            record["hparams"] = hparams
        return records

    return make


def rows_of(out):
    return list(csv.DictReader(io.StringIO(out.split("\n\n")[1])))


def test_difference_in_standard_errors(records, collect):
    out = collect(
        records({"AgrSum": {0: OURS}, "CORAL": {0: OURS}}), "--against", "iccv2021", "--format", "csv"
    )
    (row,) = rows_of(out.out)
    mean, std = 100 * fmean(OURS), 100 * stdev(OURS)
    assert (row["dataset"], row["target"], row["algorithm"], row["trials"]) == ("PACS", "A", "AgrSum", "4")
    assert float(row["mean_percent"]) == pytest.approx(mean)
    assert float(row["published_mean_percent"]) == 58.13
    assert float(row["difference_points"]) == pytest.approx(mean - 58.13)
    error = math.sqrt(std**2 / 4 + 1.65**2 / 20)
    assert float(row["difference_in_standard_errors"]) == pytest.approx((mean - 58.13) / error)
    assert "All recorded settings equal the published ones." in out.err


@pytest.mark.parametrize("trials", [1, 2])
def test_standard_errors_need_two_trials(records, collect, trials):
    ours = OURS[:trials]
    out = collect(records({"AgrSum": {0: ours}}), "--against", "iccv2021", "--format", "csv")
    (row,) = rows_of(out.out)
    assert row["trials"] == str(trials)
    if trials == 1:
        assert row["std_percent"] == row["difference_in_standard_errors"] == ""
        return
    std = 100 * stdev(ours)
    assert float(row["std_percent"]) == pytest.approx(std)
    error = math.sqrt(std**2 / 2 + 1.65**2 / 20)
    expected = (100 * fmean(ours) - 58.13) / error
    assert float(row["difference_in_standard_errors"]) == pytest.approx(expected)


def test_average_over_all_targets_and_marked_misprint(records, collect):
    everything = records({"AgrSum": dict.fromkeys(range(4), OURS), "ERM": {0: OURS}}, dataset="OfficeHome")
    out = collect(everything, "--against", "iccv2021").out
    lines = out.split("-------- Dataset: OfficeHome, beside published numbers (%)")[1].splitlines()
    cells = [re.split(r" {2,}", line.strip()) for line in lines[2:8]]
    assert [cell[:2] for cell in cells] == [
        ["A", "ERM"],
        ["A", "AgrSum"],
        ["C", "AgrSum"],
        ["P", "AgrSum"],
        ["R", "AgrSum"],
        ["Average", "AgrSum"],
    ]
    assert cells[3][4:] == ["54.22 (1.06)?", "+6.03", "+6.8"]
    assert cells[5][4:] == ["46.09 (-)", "+14.16", "-"]
    assert "?: OfficeHome, P, AgrSum: probably a misprint" in out


def test_differences_from_the_published_settings_are_listed(records, collect):
    two = records({"ERM": {0: OURS}}, hparams=HPARAMS | {"lr": 1e-3})
    out = collect(two, "--against", "iccv2021", "--paired_selection", "last").out
    text = " ".join(out.split())
    assert "settings differ from the published ones: selection is last, published with iccv2021;" in text
    assert "lr is 0.001, published with 1e-05 (4 of 4 runs)." in text
    assert "steps" not in text.split("settings differ from the published ones")[1]


def test_control_conditions_match_no_published_method(records, collect):
    both = Q([*records({"AgrSum": {0: OURS}}), *records({"AgrSum": {0: [0.1]}}, grouping="pooled")])
    out = collect(both, "--against", "iccv2021").out
    assert "AgrSum/pooled" in out
    assert "AgrSum/pooled" not in out.split("beside published numbers")[1]


def test_own_csv_with_names_of_environments(sweep, collect, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("dataset,target,method,mean,std\nemoji-styles,flat,erm,59.5,2.0\nEmojiStyles,G,ERM,50,\n")
    out = collect(sweep({"ERM": {0: OURS, 1: [0.5]}}), "--against", str(path), "--format", "markdown").out
    table = [line for line in out.split("beside published numbers (%)")[1].splitlines() if line[:1] == "|"]
    assert table[2:] == [
        "| Flat | ERM | 60.25 (1.71) | 4 | 59.50 (2.00) | +0.75 | - |",
        "| Gradient | ERM | 50.00 (-) | 1 | 50.00 (-) | +0.00 | - |",
    ]
    assert "over an unknown number of trials" in out
    assert "setting" not in out.split("beside published numbers (%)")[1]


def test_another_selection_is_reported_without_other_settings(sweep, collect, tmp_path):
    (tmp_path / "mine.csv").write_text("dataset,target,method,mean\nEmojiStyles,Flat,ERM,50\n")
    (tmp_path / "mine.toml").write_text('selection = ["last"]\n')
    out = collect(sweep({"ERM": {0: OURS}}), "--against", str(tmp_path / "mine.csv")).out
    assert "published ones: selection is iccv2021, published with last." in " ".join(out.split())


def test_latex_is_escaped(records, collect):
    out = collect(records({"AgrSum": {0: OURS}}), "--against", "iccv2021", "--latex").out
    assert "beside published numbers (\\%)" in out
    assert out.endswith("\\end{document}\n")


def test_no_common_cell_is_an_error(sweep, collect):
    with pytest.raises(
        UsageError, match=r"no accuracy for any cell.*datasets: officehome, pacs, vlcs; methods"
    ):
        collect(sweep({"ERM": {0: OURS}}), "--against", "iccv2021")


@pytest.fixture
def colored(sweep):
    """A small search on ColoredMNIST: two methods of the published table, and one that it lacks."""
    ours = {target: [0.5, 0.52] for target in range(3)}
    records = sweep(
        {"SANDMask": ours, "ERM": ours, "AgrSum": ours}, dataset="ColoredMNIST", steps=600, splits="holdout"
    )
    for record in records:
        record["hparams"] = {"mnist": "test"}
    return records


@pytest.mark.parametrize(("selection", "sandmask", "erm"), [("oracle", 62.3, 57.8), ("iid", 51.8, 51.5)])
def test_published_colored_mnist_by_selection_with_what_differs(colored, collect, selection, sandmask, erm):
    flags = ["--against", "colored_mnist", "--paired_selection", selection, "--format", "csv"]
    out = collect(colored, *flags)
    found = {row["algorithm"]: row for row in rows_of(out.out)}
    assert {name: float(row["published_mean_percent"]) for name, row in found.items()} == {
        "SANDMask": sandmask,
        "ERM": erm,
    }
    assert {row["target"] for row in found.values()} == {"Average"}
    assert "recalled" in found["SANDMask"]["note"]
    assert found["ERM"]["note"] == ""
    text = " ".join(out.err.split())
    for clause in (
        "steps is 600, published with 5001 (12 of 12 runs)",
        'mnist is "test", published with "all" (12 of 12 runs)',
        "settings of hyper-parameters tried: 1, published with 20",
    ):
        assert clause in text
    assert "sampling" not in text.split("settings differ from the published ones")[1]


def test_a_hyper_parameter_that_runs_do_not_set_has_its_default(colored, collect):
    for record in colored:
        record["hparams"] = {}
    text = collect(colored, "--against", "colored_mnist", "--paired_selection", "oracle").out
    assert "mnist is" not in " ".join(text.split())


def test_a_table_of_another_selection_names_what_it_has(colored, collect):
    message = r"no accuracy for selection by last; pass --paired_selection oracle or iid"
    with pytest.raises(UsageError, match=message):
        collect(colored, "--against", "colored_mnist", "--paired_selection", "last")
