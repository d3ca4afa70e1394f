"""Loading a sweep: names of methods, and the check that runs used the same data."""

import json

import pytest

from domainbed.errors import RunError
from domainbed.results.loading import load_sweep
from domainbed.results.method_names import algorithm_and_condition, method_name, with_method_names

TARGET = ["--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "0"]


def rewrite(run, data):
    path = run / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record | {"data": data}) + "\n" for record in records))


@pytest.fixture
def sweep(vlcs, tmp_path):
    return vlcs.write(tmp_path / "sweep")


def test_records_without_data_identity_are_accepted(sweep):
    first = min(sweep.iterdir())
    rewrite(first, {"checksum": "0123", "version": 1})
    assert len(load_sweep(sweep).records) == 5 * 40


@pytest.mark.parametrize("other", [{"checksum": "4567", "version": 1}, {"checksum": "0123", "version": 2}])
def test_different_checksums_or_versions_are_refused(sweep, other):
    one, *rest = sorted(sweep.iterdir())
    rewrite(one, other)
    for run in rest:
        rewrite(run, {"checksum": "0123", "version": 1})
    with pytest.raises(RunError, match="runs on VLCS used different data") as caught:
        load_sweep(sweep)
    line = str(caught.value)
    assert f"checksum {other['checksum']} version {other['version']} (1 runs, e.g. sweep/{one.name})" in line
    assert "(39 runs" in line
    assert line.endswith("use --mix_data to pool them")
    assert "\n" not in line
    assert len(load_sweep(sweep, mix_data=True).records) == 5 * 40


def test_different_contents_of_the_same_names_and_sizes_are_refused(sweep):
    data = {"checksum": "0123", "version": 1}
    one, other, *rest = sorted(sweep.iterdir())
    for run in rest:  # of a release that did not know contents, or without a cache
        rewrite(run, data)
    rewrite(one, data | {"contents": "aaaa"})
    rewrite(other, data | {"contents": "aaaa"})
    assert len(load_sweep(sweep).records) == 5 * 40
    rewrite(other, data | {"contents": "bbbb"})
    with pytest.raises(RunError, match="runs on VLCS used different data") as caught:
        load_sweep(sweep)
    for kind in ("aaaa (1 runs", "bbbb (1 runs", "not known (38 runs"):
        assert f"checksum 0123 version 1 contents {kind}" in str(caught.value)
    assert len(load_sweep(sweep, mix_data=True).records) == 5 * 40


def test_both_scripts_have_the_flag(sweep, forked_script):
    for run, checksum in zip(sorted(sweep.iterdir()), ("0123", "4567"), strict=False):
        rewrite(run, {"checksum": checksum, "version": 1})
    for flags in (
        ("collect_results", "--input_dir", sweep),
        ("list_top_hparams", "--input_dir", sweep, *TARGET),
    ):
        refused = forked_script(*flags)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith("error: runs on VLCS used different data: ")
        assert forked_script(*flags, "--mix_data").returncode == 0


@pytest.mark.parametrize(
    ("algorithm", "condition", "method"),
    [("AgrSum", "pooled", "AgrSum/pooled"), ("AgrSum", "domain", "AgrSum"), ("AgrSum", None, "AgrSum")],
)
def test_the_default_condition_is_not_part_of_the_name(algorithm, condition, method):
    assert method_name(algorithm, condition) == method
    assert algorithm_and_condition(method) == (algorithm, condition or "domain")


def test_renamed_records_are_copies():
    record = {"step": 1, "args": {"algorithm": "PCGrad", "grouping": "single_domain", "test_envs": [0]}}
    ordinary = {"step": 1, "args": {"algorithm": "PCGrad"}}
    first, second, third = with_method_names([record, record | {"step": 2}, ordinary])
    assert first["args"] == {**record["args"], "algorithm": "PCGrad/single_domain"}
    assert record["args"]["algorithm"] == "PCGrad"
    assert second == {"step": 2, "args": first["args"]}
    assert second["args"] is first["args"]
    assert third is ordinary
