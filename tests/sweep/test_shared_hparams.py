"""Shared hyper-parameters of a sweep need one run that reads them; names of runs stay those of the text."""

from __future__ import annotations

import hashlib
import json

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.flags import parse
from domainbed.sweep.launch_checks import check_jobs
from domainbed.sweep.manifest import add_to_manifest
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.sweep.worker import sweep_jobs
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.train_command import build_parser


@pytest.fixture
def sweep(tmp_path):
    """The checked jobs of a sweep of ERM and IRM with some shared `--hparams`, as typed."""

    def make(text, *flags, algorithms=("ERM", "IRM")):
        argv = ["launch", "--datasets", "Debug28", "--algorithms", *algorithms, "--output_dir", str(tmp_path)]
        argv += ["--n_hparams", "1", "--n_trials", "1", "--single_test_envs", "--hparams", text, *flags]
        args = parse(argv)
        jobs = make_jobs(args)
        check_jobs(args, jobs)
        return {job.train_args["algorithm"]: job for job in jobs}

    return make


def test_what_some_run_reads_may_be_shared_and_other_runs_ignore_it(sweep):
    text = '{"irm_lambda": 7.0,   "lr":0.5}'
    jobs = sweep(text)
    for algorithm, shared in (("ERM", True), ("IRM", False)):
        job = jobs[algorithm]
        flags = job.command_str.removeprefix("python -m domainbed.scripts.train ")
        assert ("--shared_hparams" in flags) is shared
        config = TrainConfig(**job.train_args)
        check_config(config)
        assert config.hparams == text
        assert resolved_hparams(config).get("irm_lambda") == (None if shared else 7.0)
        assert resolved_hparams(config)["lr"] == 0.5
    build_parser().parse_args(["--shared_hparams"])


def test_an_optimizer_is_refused_if_every_run_of_the_sweep_has_one_of_its_own(sweep):
    text = '{"optimizer": "SGD", "momentum": 0.5}'
    with pytest.raises(UsageError, match="'optimizer' has no effect in this run, because GENIE is an optim"):
        sweep(text, algorithms=["GENIE"])
    with pytest.raises(UsageError, match="because GENIE is an optimizer itself"):
        sweep(f'{{"GENIE": {text}}}', algorithms=["GENIE", "ERM"])
    jobs = sweep(text, algorithms=["GENIE", "ERM"])
    assert {name: job.train_args.get("shared_hparams") for name, job in jobs.items()} == {
        "GENIE": True,
        "ERM": None,
    }


def test_names_of_runs_are_hashes_of_the_text_as_typed(sweep):
    text = '{"irm_lambda": 7.0,   "lr":0.5}'
    job = sweep(text)["ERM"]
    named = {k: v for k, v in job.train_args.items() if k not in ("shared_hparams", "output_dir")}
    assert named["hparams"] == text
    assert job.name == hashlib.md5(json.dumps(named, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"vrex_lambda": 2.0}', "'vrex_lambda' has no effect .* read by algorithm VREx"),
        ('{"mlp_width": 8}', "'mlp_width' has no effect .* read by featurizer mlp, algorithm DANN"),
        ('{"ERM": {"irm_lambda": 2.0}}', "'irm_lambda' has no effect .* read by .*algorithm IRM"),
        ('{"irm_lamda": 2.0}', "unknown hyper-parameter 'irm_lamda'"),
    ],
)
def test_what_no_run_reads_is_an_error_before_anything_starts(sweep, tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        sweep(text)
    assert list(tmp_path.iterdir()) == []


def test_an_entry_of_one_algorithm_counts_for_that_algorithm_alone(sweep):
    jobs = sweep('{"IRM": {"irm_lambda": 2.0}, "DANN": {"mlp_width": 8}}')
    assert not any("shared_hparams" in job.train_args for job in jobs.values())


def test_a_sweep_that_an_earlier_release_launched_is_worked_on(sweep, tmp_path):
    """Its sweep.json has shared hyper-parameters that some runs do not read, and no flag for them."""
    jobs = sweep('{"mlp_width": 8}', algorithms=("ERM", "DANN")).values()
    old = {job.name: {k: v for k, v in job.named_args().items() if k != "shared_hparams"} for job in jobs}
    add_to_manifest(tmp_path, old, ())
    found = {job.train_args["algorithm"]: job for job in sweep_jobs(tmp_path)}
    assert {job.name for job in found.values()} == set(old)
    assert found["ERM"].train_args["shared_hparams"] is True
    for job in found.values():
        check_config(TrainConfig(**job.train_args))
