"""The sweep file of the control experiment, and sweeps over conditions."""

from collections import Counter
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import choose_defaults, make_jobs

SWEEPS = Path(__file__).parents[2] / "sweeps"


def jobs_of(*flags):
    args = parse(["launch", *flags])
    choose_defaults(args)
    return [job.train_args for job in make_jobs(args)]


@pytest.mark.parametrize(("preset", "dataset"), [("iccv2021", "PACS"), ("emoji_styles", "EmojiStyles")])
def test_every_method_runs_in_every_condition_with_the_same_seeds(preset, dataset):
    jobs = jobs_of("--config", str(SWEEPS / "iccv2021_control.toml"), "--preset", preset)
    counts = Counter((job["dataset"], job["algorithm"], job["grouping"]) for job in jobs)
    expected = {
        (dataset, algorithm, grouping): 80
        for algorithm in ("AgrSum", "AgrRand", "PCGrad")
        for grouping in ("domain", "single_domain", "pooled")
    }
    assert counts == expected
    assert len({(job["seed"], *job["test_envs"], job["trial_seed"]) for job in jobs}) == 80


def test_the_settings_equal_those_of_table_1():
    control, table = (
        jobs_of("--config", str(SWEEPS / f"iccv2021_{name}.toml")) for name in ("control", "table1")
    )
    shared = ("hparams", "splits", "sampling", "evaluate", "steps", "checkpoint_freq")
    reference = next(job for job in table if job["algorithm"] == "AgrSum")
    assert {name: control[0][name] for name in shared} == {name: reference[name] for name in shared}


def test_grouping_is_passed_on_only_if_given():
    flags = (
        "--datasets",
        "Debug28",
        "--algorithms",
        "ERM",
        "--n_hparams",
        "1",
        "--n_trials",
        "1",
        "--output_dir",
        "s",
    )
    assert all("grouping" not in job for job in jobs_of(*flags, "--single_test_envs"))
    twice = jobs_of(*flags, "--single_test_envs", "--grouping", "pooled", "pooled")
    assert [job["grouping"] for job in twice] == ["pooled"] * 3


def test_an_unknown_condition_is_rejected(tmp_path):
    (tmp_path / "bad.toml").write_text('grouping = ["domain", "none"]\n')
    with pytest.raises(UsageError, match="grouping must be one of domain, single_domain, pooled, not 'none'"):
        parse(["launch", "--config", str(tmp_path / "bad.toml")])
