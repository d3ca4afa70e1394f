from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import RunError
from domainbed.records.results_file import append_record, read_records

REPOSITORY = Path(__file__).parents[2]
ARGS = {"trial_seed": 0, "dataset": "VLCS", "algorithm": "ERM", "hparams_seed": 0, "test_envs": [1]}


def record(step=0, **values):
    return {"args": ARGS, "hparams": {"lr": 1e-3}, "step": step, **values}


records = st.builds(
    record,
    step=st.integers(0, 10**6),
    loss=st.floats(),
    note=st.text(),
    test_envs=st.lists(st.integers()),
)


def equal(one, other):
    """Equality under which NaN equals NaN."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(written=st.lists(records, max_size=5))
def test_appended_records_are_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("run") / "results.jsonl"
    path.touch()
    for each in written:
        append_record(path, each)
    content = read_records(path)
    assert equal(content.records, written)
    assert (content.damaged, content.torn) == ({}, None)
    assert path.read_bytes().count(b"\n") == len(written)


def test_a_line_is_json_with_sorted_keys(tmp_path):
    path = tmp_path / "results.jsonl"
    append_record(path, {"step": 3, "b": math.nan, "a": [1, 2]})
    assert path.read_text() == '{"a": [1, 2], "b": NaN, "step": 3}\n'


def test_file_cut_at_every_byte(tmp_path):
    """If any part of the second record was written, the first record and the next one are still read."""
    path = tmp_path / "results.jsonl"
    append_record(path, record(0))
    first = path.stat().st_size
    append_record(path, record(1, loss=math.inf))
    whole = path.read_bytes()
    for size in range(first, len(whole) + 1):
        path.write_bytes(whole[:size])
        content = read_records(path)
        complete = size >= len(whole) - 1
        assert [each["step"] for each in content.records] == ([0, 1] if complete else [0])
        assert content.torn == (2 if first < size and not complete else None)
        assert content.damaged == {}
        append_record(path, record(2))
        content = read_records(path)
        assert [each["step"] for each in content.records] == ([0, 1, 2] if complete else [0, 2])
        assert content.damaged == ({2: "not valid JSON"} if first < size and not complete else {})
        assert content.torn is None


def test_a_record_follows_a_file_torn_after_its_first_byte(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"{")
    assert read_records(path).torn == 1
    append_record(path, record(0))
    content = read_records(path)
    assert [each["step"] for each in content.records] == [0]
    assert (content.damaged, content.torn) == ({1: "not valid JSON"}, None)


@given(
    lines=st.lists(st.one_of(records.map(lambda each: json.dumps(each).encode()), st.binary()), max_size=6)
)
def test_a_damaged_line_affects_no_other_line(tmp_path_factory, lines):
    lines = [line.replace(b"\n", b"\r") for line in lines]
    path = tmp_path_factory.mktemp("run") / "results.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    content = read_records(path)
    good = [i for i, line in enumerate(lines, start=1) if line.startswith(b'{"args"')]
    blank = [i for i, line in enumerate(lines, start=1) if not line.strip()]
    assert len(content.records) == len(good)
    assert sorted([*content.damaged, *good, *blank]) == list(range(1, len(lines) + 1))


@pytest.mark.parametrize(
    ("foreign", "problem"),
    [
        ([1, 2], "not a JSON object"),
        ("text", "not a JSON object"),
        ({"loss": 1.0}, 'no "step"'),
        ({"args": ARGS}, 'no "step"'),
        ({"step": 0}, 'no "args"'),
        ({"args": {**ARGS, "test_envs": "1"}, "step": 0}, 'args: invalid "test_envs"'),
        ({"args": {**ARGS, "test_envs": ["a"]}, "step": 0}, 'args: invalid "test_envs"'),
        ({"args": {**ARGS, "trial_seed": None}, "step": 0}, 'args: invalid "trial_seed"'),
        ({"args": {key: ARGS[key] for key in ARGS if key != "dataset"}, "step": 0}, 'args: no "dataset"'),
        ({"args": [], "step": 0}, 'invalid "args"'),
    ],
    ids=str,
)
def test_json_values_that_are_not_records_and_why(tmp_path, foreign, problem):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(record()) + "\n" + json.dumps(foreign) + "\n")
    content = read_records(path)
    assert (len(content.records), content.damaged) == (1, {2: problem})


def test_equal_settings_share_one_object(tmp_path):
    path = tmp_path / "results.jsonl"
    for step in range(3):
        append_record(path, record(step, sizes={"env0_in": 9}))
    append_record(path, record(3) | {"hparams": {"lr": 2.0}})
    first, second, third, last = read_records(path).records
    assert first["args"] is second["args"] is third["args"] is last["args"]
    assert first["sizes"] is third["sizes"]
    assert last["hparams"] == {"lr": 2.0}
    assert first["hparams"] == {"lr": 1e-3}


def test_lines_that_are_valid_json_only_when_joined(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = ["[1", "2]", json.dumps(record(0)), '{"step": [3', json.dumps(record(4)) + "]}"]
    path.write_text("\n".join(lines))
    content = read_records(path)
    assert [each["step"] for each in content.records] == [0]
    assert (content.damaged, content.torn) == (dict.fromkeys([1, 2, 4], "not valid JSON"), 5)


def test_file_that_cannot_be_written(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        append_record(tmp_path, record())
    with pytest.raises(RunError, match=r"cannot write .*missing"):
        append_record(tmp_path / "missing" / "results.jsonl", record())


def test_full_disk_leaves_no_partial_record(tmp_path):
    """A limit on the file size simulates a full disk: the write stops in the middle of the line."""
    path = tmp_path / "results.jsonl"
    append_record(path, record())
    before = path.read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from domainbed.errors import RunError\n"
        "from domainbed.records.results_file import append_record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n"
        "    append_record(Path(sys.argv[1]), {'step': 1, 'text': 'x' * 100})\n"
        "except RunError as error:\n"
        "    sys.exit(str(error))\n"
    )
    arguments = [sys.executable, "-c", code, str(path), str(len(before) + 20)]
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == before
