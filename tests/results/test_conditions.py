"""`--where`, `--by` and `--strict`: runs chosen by a setting, and a report for each of its values."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from domainbed.errors import RunError, UsageError
from domainbed.results.conditions import parse_condition
from domainbed.scripts import collect_results


def write(folder, name, accuracy, hparams=None, **args):
    """A finished run on EmojiStyles with one record."""
    args = {
        "dataset": "EmojiStyles",
        "algorithm": "ERM",
        "trial_seed": 0,
        "hparams_seed": 0,
        "seed": 0,
    } | args
    args = {"test_envs": [0], "output_dir": name} | args
    record = {"step": 10, "args": args, "hparams": hparams or {}}
    record |= {f"env{i}_out_acc": accuracy for i in range(4)} | {"env0_in_acc": accuracy}
    (folder / name).mkdir(parents=True)
    (folder / name / "results.jsonl").write_text(json.dumps(record) + "\n")
    (folder / name / "done").write_text("done")


@pytest.fixture
def launched_twice(tmp_path):
    """A sweep directory launched twice with other --steps."""
    for steps, accuracies in ((300, (0.5, 0.6)), (500, (0.7, 0.9))):
        for algorithm, accuracy in zip(("ERM", "IRM"), accuracies, strict=True):
            write(tmp_path, f"{algorithm}-{steps}", accuracy, algorithm=algorithm, steps=steps)
    return tmp_path


def collect(folder, capsys, *flags):
    """The rows of the tables (first cell of each method), and stderr."""
    assert collect_results.main(["--input_dir", str(folder), "--selection", "iid", *flags]) == 0
    printed = capsys.readouterr()
    return printed.out, printed.err


def first_cells(out):
    """The first cell of each row in the datasets' tables."""
    tables = [part.split("\n\n")[0] for part in out.split("Dataset: ")[1:]]
    rows = [line.split() for table in tables for line in table.splitlines()[2:]]
    return [row[1] for row in rows]


def test_a_sweep_directory_launched_twice_with_other_steps_is_x_with_reason_and_remedy(
    launched_twice, capsys
):
    out, err = collect(launched_twice, capsys)
    assert set(first_cells(out)) == {"X"}
    assert (
        "cells without a result (X), several experiments (steps is 300 (1 run), 500 (1 run); choose one, "
        "e.g. --where steps=300, or show each with --by steps): ERM on EmojiStyles, target Flat (iid), "
    ) in err


def test_strict_makes_several_experiments_an_error(launched_twice, capsys):
    with pytest.raises(RunError, match=r"--strict: ERM on EmojiStyles: several experiments.*IRM on Emoji"):
        collect(launched_twice, capsys, "--strict")
    assert "Dataset: EmojiStyles" in capsys.readouterr().out
    collect(launched_twice, capsys, "--strict", "--where", "steps=300")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["steps=300"], ["50.0", "60.0"]),
        (["steps>=400"], ["70.0", "90.0"]),
        (["steps!=300"], ["70.0", "90.0"]),
        (["steps>100", "steps<500"], ["50.0", "60.0"]),
        (["steps = 500", "algorithm=IRM"], ["90.0"]),
    ],
    ids=str,
)
def test_where_chooses_an_experiment(launched_twice, capsys, conditions, expected):
    flags = [word for condition in conditions for word in ("--where", condition)]
    out, err = collect(launched_twice, capsys, *flags)
    assert first_cells(out) == expected
    assert "several experiments" not in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--where", "steps"], "--where takes NAME=VALUE"),
        (["--where", "steps>many"], "'many', which is not a number"),
        (["--where", "step=300"], "no setting or hyper-parameter 'step'"),
        (["--by", "stepps"], "--by: the runs have no setting or hyper-parameter 'stepps'"),
        (["--by", "steps", "--relaunch_best", "x.toml"], "choose it with --where"),
    ],
    ids=str,
)
def test_conditions_that_make_no_sense(launched_twice, capsys, flags, message):
    with pytest.raises(UsageError, match=message):
        collect(launched_twice, capsys, *flags)


def test_a_condition_that_no_run_meets_lists_the_values(launched_twice, capsys):
    with pytest.raises(RunError, match=r"no run meets --where steps=400: steps is 300, 500"):
        collect(launched_twice, capsys, "--where", "steps=400")


def test_a_condition_on_a_methods_own_hyper_parameter_keeps_the_other_methods(tmp_path, capsys):
    write(tmp_path, "erm", 0.5)
    for value in (1, 10):
        write(tmp_path, f"irm{value}", 0.05 * value, {"irm_lambda": value}, algorithm="IRM")
    out, _ = collect(tmp_path, capsys, "--where", "irm_lambda<10")
    assert first_cells(out) == ["50.0", "5.0"]


def test_by_prints_the_tables_of_each_value(launched_twice, capsys):
    out, _ = collect(launched_twice, capsys, "--by", "steps")
    first, second = out.split("======== steps = ")[1:]
    assert first.startswith("300")
    assert first_cells(first) == ["50.0", "60.0"]
    assert second.startswith("500")
    assert first_cells(second) == ["70.0", "90.0"]
    assert out.count("Total records: 4") == 1
    assert (launched_twice / "results.txt").read_text() == out


@pytest.mark.parametrize(
    ("format", "heading"), [("latex", "\\section{steps = 500}"), ("markdown", "## steps = 500")]
)
def test_by_has_a_heading_in_each_format(launched_twice, capsys, format, heading):
    out, _ = collect(launched_twice, capsys, "--by", "steps", "--format", format)
    assert heading in out.splitlines()
    assert out.count("\\documentclass") == out.count("\\end{document}") == (format == "latex")


def test_by_adds_a_column_to_csv(launched_twice, capsys):
    out, _ = collect(launched_twice, capsys, "--by", "steps", "--format", "csv")
    first, second = (list(csv.DictReader(io.StringIO(table))) for table in out.split("\n\n"))
    assert {row["steps"] for row in first} == {"300"}
    assert {row["steps"] for row in second} == {"500"}
    means = {row["algorithm"]: row["mean"] for row in second if row["environment"] == "Flat"}
    assert {name: float(mean) for name, mean in means.items()} == {"ERM": 70.0, "IRM": 90.0}


def test_by_writes_a_page_for_each_value(launched_twice, capsys, tmp_path):
    _, err = collect(
        launched_twice, capsys, "--by", "steps", "--html", str(tmp_path / "pages" / "report.html")
    )
    pages = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert pages == ["report-steps-300.html", "report-steps-500.html"]
    assert "90.0" in (tmp_path / "pages" / "report-steps-500.html").read_text(encoding="utf-8")
    assert err.count("Page: ") == 2


def test_a_page_says_why_a_method_has_no_result(launched_twice, capsys, tmp_path):
    collect(launched_twice, capsys, "--html", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "several experiments (steps is 300 (1 run), 500 (1 run); choose one" in page


def test_methods_with_other_steps_share_a_table_and_a_note_says_so(tmp_path, capsys):
    write(tmp_path, "erm", 0.5, steps=300)
    write(tmp_path, "irm", 0.6, steps=500, algorithm="IRM")
    out, err = collect(tmp_path, capsys)
    assert first_cells(out) == ["50.0", "60.0"]
    assert "note: methods on EmojiStyles differ in more than the method: steps is 300 (ERM), 500 (IRM)" in err


def test_repetitions_and_copies_are_told(tmp_path, capsys):
    for seed in range(3):
        write(tmp_path, str(seed), 0.1 * (seed + 1), seed=seed)
    write(tmp_path, "again", 0.9, seed=2)
    out, err = collect(tmp_path, capsys)
    assert first_cells(out) == ["20.0"]
    assert "trials of their own, which share a split: ERM on EmojiStyles, trial seed 0" in err
    assert "equal another one, seeds included, are left out (the one with the last step counts): ERM" in err


def test_a_condition_compares_numbers_bools_and_texts():
    assert parse_condition("lr=0.001").holds(1e-3)
    assert parse_condition("freeze_bn=True").holds(True)
    assert not parse_condition("freeze_bn=1").holds(True)
    assert parse_condition("splits=70/10/20").holds("70/10/20")
    assert parse_condition("steps=none").holds(None)
    assert not parse_condition("steps>1").holds(None)


def test_the_example_of_the_documentation(tmp_path, capsys):
    document = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    section = document.split("## What one number is made of")[1].split("\n## ")[0]
    rows = re.findall(r"\| ([a-d]) \| (\d+) \| (\d) \| `(.*)` \| ([\d.]+) \| ([\d.]+) \|", section)
    assert len(rows) == 4
    for name, steps, seed, hparams, validation, target in rows:
        hparams = json.loads(hparams)
        write(tmp_path, name, float(validation) / 100, hparams, steps=int(steps), seed=int(seed))
        path = tmp_path / name / "results.jsonl"
        record = json.loads(path.read_text()) | {"env0_in_acc": float(target) / 100}
        path.write_text(json.dumps(record) + "\n")
    out, err = collect(tmp_path, capsys)
    assert first_cells(out) == ["X"]
    assert section.split("```text\n")[1].split("\n```")[0] in err
    out, _ = collect(tmp_path, capsys, "--where", "steps=300")
    assert section.split("The cell is `")[1].split("`")[0] in out
