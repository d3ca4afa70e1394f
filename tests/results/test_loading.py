"""Loading a sweep: names of methods, and the check that runs used the same data."""

import contextlib
import io
import json

import pytest

from domainbed.results.loading import load_sweep
from domainbed.results.method_names import algorithm_and_condition, method_name, with_method_names
from domainbed.scripts import collect_results

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


def cells(sweep, *flags):
    """The row of ERM by `iid`, and the notes."""
    output = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(output):
        arguments = ["--input_dir", str(sweep), "--selection", "iid", *flags]
        assert collect_results.main(arguments) == 0
    return out.getvalue().splitlines()[4].split(), output.getvalue()


@pytest.mark.parametrize("other", [{"checksum": "4567", "version": 1}, {"checksum": "0123", "version": 2}])
def test_runs_on_other_data_are_not_pooled(sweep, other):
    one, *rest = sorted(sweep.iterdir())
    rewrite(one, other)
    for run in rest:
        rewrite(run, {"checksum": "0123", "version": 1})
    row, notes = cells(sweep)
    assert row == ["ERM", "X", "X", "X", "X", "X"]
    name, new, old = ("checksum", "4567", "0123") if other["version"] == 1 else ("version", 2, 1)
    assert f"data.{name} is {old} (39 runs), {new} (1 run); choose one, e.g. --where data.{name}=" in notes
    assert cells(sweep, "--mix_data")[0].count("X") == 0
    assert cells(sweep, "--where", f"data.{name}={old}")[0].count("X") == 0


def test_runs_on_other_contents_of_the_same_names_and_sizes_are_not_pooled(sweep):
    data = {"checksum": "0123", "version": 1}
    one, other, *rest = sorted(sweep.iterdir())
    for run in rest:  # of a release that did not know contents, or without a cache
        rewrite(run, data)
    rewrite(one, data | {"contents": "aaaa"})
    rewrite(other, data | {"contents": "aaaa"})
    assert cells(sweep)[0].count("X") == 0
    rewrite(other, data | {"contents": "bbbb"})
    row, notes = cells(sweep)
    assert row.count("X") == 5
    assert "data.contents is not recorded (38 runs), aaaa (1 run), bbbb (1 run)" in notes
    assert cells(sweep, "--mix_data")[0].count("X") == 0


def test_both_scripts_have_the_flags(sweep, forked_script):
    for run, checksum in zip(sorted(sweep.iterdir()), ("0123", "4567"), strict=False):
        rewrite(run, {"checksum": checksum, "version": 1})
    for status, flags in (
        (0, ("collect_results", "--input_dir", sweep)),
        (1, ("collect_results", "--strict", "--input_dir", sweep)),
        (1, ("list_top_hparams", "--input_dir", sweep, *TARGET)),
    ):
        refused = forked_script(*flags)
        assert refused.returncode == status
        assert "all methods on VLCS: several experiments" in refused.stderr or status == 0
        assert "data.checksum is " in refused.stderr.splitlines()[-1]
        assert forked_script(*flags, "--mix_data").returncode == 0
        assert forked_script(*flags, "--where", "data.checksum=0123").returncode == 0


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
