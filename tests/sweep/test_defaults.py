import dataclasses
import json

import pytest

from domainbed.errors import UsageError
from domainbed.sweep import defaults
from domainbed.sweep.defaults import DEFAULTS_0_1_0, kept_defaults, todays_defaults
from domainbed.sweep.flags import PASSED_ON, parse
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import Manifest, add_to_manifest, read_manifest
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.sweep.worker import sweep_jobs
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.run_hparams import resolved_hparams

ARGS = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "trial_seed": 0}


@pytest.fixture
def later(monkeypatch):
    """A later version, with another default of `sampling` and a new setting `colour`."""
    sampling = dataclasses.replace(PASSED_ON["sampling"], default="epochs")
    colour = dataclasses.replace(PASSED_ON["sampling"], name="colour", default="red", value_before="grey")
    monkeypatch.setattr(defaults, "PASSED_ON", {**PASSED_ON, "sampling": sampling, "colour": colour})


def test_a_new_sweep_has_todays_defaults():
    assert kept_defaults(None) == {}
    assert kept_defaults(Manifest(defaults=todays_defaults())) == {}


def test_a_sweep_of_the_released_version_has_its_defaults():
    assert kept_defaults(Manifest()) == {"truncated": "keep"}
    assert DEFAULTS_0_1_0.keys() <= PASSED_ON.keys()


def test_a_sweep_keeps_the_defaults_of_its_first_launch_in_later_versions(tmp_path, later):
    released = {name: setting.default for name, setting in PASSED_ON.items()}
    add_to_manifest(tmp_path, {"a": {}}, (), defaults=released)
    add_to_manifest(tmp_path, {"b": {}}, (), defaults=todays_defaults())
    assert kept_defaults(read_manifest(tmp_path)) == {"sampling": "replacement", "colour": "grey"}


def test_a_launch_by_a_later_version_does_not_date_an_older_sweep(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {}, "selection": [], "version": 1}))
    add_to_manifest(tmp_path, {"a": {}}, (), defaults=todays_defaults())
    assert read_manifest(tmp_path).defaults is None


def test_commands_of_a_sweep_have_its_defaults_and_their_names_do_not_change(tmp_path, later):
    job = Job(ARGS, str(tmp_path))
    released = {name: setting.default for name, setting in PASSED_ON.items()}
    add_to_manifest(tmp_path, {job.name: ARGS}, (), defaults=released)
    (kept,) = sweep_jobs(tmp_path)
    assert kept.name == job.name
    assert "--sampling replacement" in kept.command_str
    assert kept.refreshed().command_str == kept.command_str
    assert kept.named_args() == ARGS


def test_a_value_that_is_given_wins_over_the_default_of_the_sweep(tmp_path):
    job = Job({**ARGS, "truncated": "stop"}, str(tmp_path), {"truncated": "keep"})
    assert "--truncated stop" in job.command_str


SWAD = '{"weight_averaging": "swad"}'


@pytest.mark.parametrize("was_begun_before", [True, False])
def test_a_sweep_begun_before_the_public_counting_of_swad_keeps_equal_weights(tmp_path, was_begun_before):
    todays = todays_defaults()
    then = {name: value for name, value in todays.items() if name != "earlier_swad"}
    swad, plain = (Job({**ARGS, **more}, str(tmp_path)) for more in ({"hparams": SWAD}, {}))
    jobs = {job.name: job.named_args() for job in (swad, plain)}
    add_to_manifest(tmp_path, jobs, (), defaults=then if was_begun_before else todays)
    flags = ["--datasets", "Debug28", "--algorithms", "ERM", "--n_trials", "2", "--n_hparams", "1"]
    flags += ["--single_test_envs", "--hparams", SWAD, "--output_dir", str(tmp_path)]
    launched_now = make_jobs(parse(["launch", *flags]))
    for job in [*sweep_jobs(tmp_path), *launched_now]:
        uses_swad = job.name != plain.name
        assert ("--earlier_swad" in job.command_str) == (was_begun_before and uses_swad)
        expected = {True: "equal", False: "public"}[was_begun_before] if uses_swad else None
        assert resolved_hparams(TrainConfig(**job.train_args)).get("swad_counting") == expected
    add_to_manifest(tmp_path, {job.name: job.named_args() for job in launched_now}, (), defaults=todays)
    assert {swad.name, plain.name} <= {job.name for job in sweep_jobs(tmp_path)}  # names stay
    assert ("earlier_swad" in read_manifest(tmp_path).defaults) != was_begun_before


def test_the_flag_of_older_sweeps_is_refused_where_it_has_no_effect():
    for hparams in (None, '{"weight_averaging": "swad", "swad_counting": "public"}'):
        with pytest.raises(UsageError, match="--earlier_swad has no effect"):
            check_config(TrainConfig(dataset="Debug28", hparams=hparams, earlier_swad=True))
    check_config(TrainConfig(dataset="Debug28", hparams=SWAD, earlier_swad=True))
