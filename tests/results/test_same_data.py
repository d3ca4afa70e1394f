"""Runs over different data are not taken together unless that is asked for."""

import json

import pytest

from domainbed.errors import RunError
from domainbed.results import command_line


def rewrite(run, data):
    path = run / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record | {"data": data}) + "\n" for record in records))


@pytest.fixture
def sweep(vlcs, tmp_path):
    return vlcs.write(tmp_path / "sweep")


def test_records_that_say_nothing_go_with_any(sweep):
    first = min(sweep.iterdir())
    rewrite(first, {"checksum": "0123", "version": 1})
    assert len(command_line.load(sweep, False).records) == 5 * 40


@pytest.mark.parametrize("other", [{"checksum": "4567", "version": 1}, {"checksum": "0123", "version": 2}])
def test_other_checksums_and_versions_are_refused(sweep, other):
    one, *rest = sorted(sweep.iterdir())
    rewrite(one, other)
    for run in rest:
        rewrite(run, {"checksum": "0123", "version": 1})
    with pytest.raises(RunError, match="runs on VLCS are over different data") as caught:
        command_line.load(sweep, False)
    line = str(caught.value)
    assert f"checksum {other['checksum']} version {other['version']} (1 runs, e.g. sweep/{one.name})" in line
    assert "(39 runs" in line
    assert line.endswith("give --mix_data to take them as one")
    assert "\n" not in line
    assert len(command_line.load(sweep, False, mix_data=True).records) == 5 * 40


def test_the_scripts_have_the_flag(sweep, forked_script):
    for run, checksum in zip(sorted(sweep.iterdir()), ("0123", "4567"), strict=False):
        rewrite(run, {"checksum": checksum, "version": 1})
    for flags in (
        ("collect_results", "--input_dir", sweep),
        (
            "list_top_hparams",
            "--input_dir",
            sweep,
            "--dataset",
            "VLCS",
            "--algorithm",
            "ERM",
            "--test_env",
            "0",
        ),
    ):
        refused = forked_script(*flags)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith("error: runs on VLCS are over different data: ")
        assert forked_script(*flags, "--mix_data").returncode == 0
