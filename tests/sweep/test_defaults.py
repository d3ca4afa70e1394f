import dataclasses
import json

import pytest

from domainbed.sweep import defaults
from domainbed.sweep.defaults import DEFAULTS_0_1_0, kept_defaults, todays_defaults
from domainbed.sweep.flags import PASSED_ON
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import Manifest, add_to_manifest, read_manifest
from domainbed.sweep.worker import sweep_jobs

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
