"""The script `plan`, on a real pilot and on records."""

from __future__ import annotations

import csv
import io
from statistics import stdev

import pytest

import domainbed
from domainbed.errors import RunError, UsageError
from domainbed.scripts import sweep as sweep_script
from domainbed_gs.scripts import plan

NUMBERS = {"ERM": [0.5, 0.61, 0.55, 0.58], "SAM": [0.56, 0.62, 0.6, 0.66], "Mixup": [0.5, 0.57, 0.57, 0.55]}


@pytest.fixture
def run(capsys):
    """`run(folder, *flags)`: standard output and error of a plan, for one point by default."""

    def make(folder, *flags):
        capsys.readouterr()
        assert plan.main(["--input_dir", str(folder), "--difference", "1", *map(str, flags)]) == 0
        return capsys.readouterr()

    return make


@pytest.fixture
def pilot(sweep, write):
    records = sweep({name: {0: numbers} for name, numbers in NUMBERS.items()}, steps=101)
    for record in records:
        record["step_time"] = 1.0
    return write(records)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two trials of two methods on Debug28."""
    folder = tmp_path_factory.mktemp("real") / "pilot"
    for algorithm in ("ERM", "AgrSum"):
        for trial in (0, 1):
            domainbed.train(
                dataset="Debug28",
                algorithm=algorithm,
                trial_seed=trial,
                steps=2,
                checkpoint_freq=1,
                splits="70/10/20",
                skip_model_save=True,
                hparams={"batch_size": 4},
                output_dir=folder / f"{algorithm}{trial}",
            )
    return folder


def test_a_real_pilot_becomes_a_sweep(real, run, tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    printed = run(real, "--difference", "100", "--write", path)
    assert "AgrSum" in printed.out
    assert "Note: The pilot has only 2 paired trials" in printed.out.replace("\n    ", " ")
    assert "share one split" in printed.out
    trials = int(printed.out.split()[0])
    assert f"{path}\n" in printed.err  # the command that launches it
    launch = ["launch", "--config", str(path), "--output_dir", str(tmp_path / "planned")]
    assert sweep_script.main([*launch, "--command_launcher", "dummy", "--skip_confirmation"]) == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Dummy launcher:")]
    assert len(commands) == 2 * trials
    assert all("--splits 70/10/20:per_trial" in command and "--steps 2" in command for command in commands)


def test_text_has_the_answer_a_table_for_each_family_and_their_meaning(pilot, run):
    printed = run(pilot)
    answer, table = printed.out.split("\n--------")[:2]
    trials = int(answer.split()[0])
    assert f"{trials} trials find a difference of 1 point to ERM with probability 0.8" in answer
    assert "Dataset: EmojiStyles, only target (family of 2), trials for 1 point" in table
    (row,) = (line.split() for line in table.splitlines() if "SAM" in line)
    assert row[2] == "4"
    differences = [sam - erm for sam, erm in zip(NUMBERS["SAM"], NUMBERS["ERM"], strict=True)]
    assert row[3] == f"{100 * stdev(differences):.2f}"
    assert "Bonferroni" in printed.out
    assert "single targets" not in printed.out


def test_csv_has_one_table_and_nothing_else(pilot, run):
    printed = run(pilot, "--format", "csv", "--methods", "5", "--power", "0.9")
    rows = list(csv.DictReader(io.StringIO(printed.out.lstrip("\n"))))
    assert [row["algorithm"] for row in rows] == ["Mixup", "SAM"]
    for row in rows:
        assert (row["family"], row["power"], row["goal_points"], row["pairs"]) == ("5", "0.9", "1.0", "4")
        # A family of 5 takes 8 trials; 4 find nothing, and have a value neither in the model.
        assert row["smallest_detectable_points"] == row["normal_smallest_detectable_points"] == ""
        most = max(int(row["trials"]), int(row["normal_trials"]))
        assert int(row["normal_trials_low"]) < int(row["normal_trials"])
        assert float(row["hours"]) == pytest.approx(most * 3 * 101 / 3600)
    assert "trials find a difference" in printed.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--difference", "0"], "--difference is in percentage points, above 0"),
        (["--difference", "nan"], "--difference is in percentage points, above 0"),
        (["--power", "1"], "--power must be between 0 and 1, not 1.0"),
        (["--alpha", "5"], "--alpha must be between 0 and 1, not 5.0"),
        (["--methods", "0"], "--methods must be at least 1, not 0"),
        (["--baseline", "CORAL"], "--baseline CORAL has no results"),
        (["--paired_selection", "nothing"], "nothing"),
    ],
)
def test_flags_that_make_no_sense_are_refused(pilot, run, flags, message):
    with pytest.raises(UsageError, match=message):
        run(pilot, *flags)


def test_a_sweep_of_too_many_trials_is_not_written(pilot, run, tmp_path):
    with pytest.raises(RunError, match=r"is not written\. More than 1000 trials are needed"):
        run(pilot, "--difference", "0.001", "--write", tmp_path / "sweep.toml")
    assert not (tmp_path / "sweep.toml").exists()
