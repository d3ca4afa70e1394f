"""JSON of unknown origin: deep nesting is refused everywhere, in one line and without a RecursionError."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.datasets.list_file import read_list
from domainbed.download.arrange import terra_incognita
from domainbed.errors import DomainBedError
from domainbed.hparams import parse_overrides
from domainbed.json_input import MOST_NESTED, NestedTooDeep, parse_json
from domainbed.records.results_file import drop_records_after, read_records
from domainbed.sweep.manifest import read_manifest
from domainbed.sweep.sweep_file import read_sweep_file
from domainbed.training.claims import latest_claim
from domainbed.training.run_state import read_json

DEEP = 100_000
ARRAYS, OBJECTS = "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP


LEAVES = st.none() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_ordinary_json_is_read_as_by_the_standard_library(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("depth", [MOST_NESTED - 1, MOST_NESTED, MOST_NESTED + 1, 500, DEEP])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_nesting_is_limited(depth, kind):
    for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        if depth <= MOST_NESTED:
            assert parse_json(kind(text)) == json.loads(text)
        else:
            with pytest.raises(NestedTooDeep, match="nested more than 100 deep"):
                parse_json(kind(text))
    assert parse_json(f"[{'[],' * 1000}1]") == [[]] * 1000 + [1]


@pytest.mark.parametrize("deep", [ARRAYS, OBJECTS, "[" * 500 + "]" * 500])
def test_every_reader_refuses_nesting_of_100_000_in_one_line(deep, tmp_path):
    for name in ("sweep.json", "claim-1.json", "run.json", "list.jsonl"):
        (tmp_path / name).write_text(deep + "\n")
    (tmp_path / "eccv_18_all_images_sm").mkdir()
    (tmp_path / "eccv_18_annotation_files").mkdir()
    (tmp_path / "eccv_18_annotation_files/cis_test_annotations.json").write_text(deep)
    (tmp_path / "sweep.toml").write_text(f"a = {'[' * DEEP}{']' * DEEP}")
    assert latest_claim(tmp_path) == (1, {})
    assert read_json(tmp_path / "run.json") is None
    for refused in (
        lambda: read_manifest(tmp_path),
        lambda: read_list(tmp_path / "list.jsonl"),
        lambda: parse_overrides(deep),
        lambda: terra_incognita(tmp_path, ()),
        lambda: read_sweep_file(tmp_path / "sweep.toml", None, {}),
    ):
        with pytest.raises(DomainBedError, match="nested") as caught:
            refused()
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)


ARGS = {"trial_seed": 0, "dataset": "VLCS", "algorithm": "ERM", "hparams_seed": 0, "test_envs": [0]}
GOOD = {"step": 1, "args": ARGS, "hparams": {}, "env0_in_acc": 0.5, "loss": float("nan")}
WRONG = [
    ("step", "1"), ("step", None), ("step", float("nan")), ("step", 10**400), ("args", []), ("args", "x"),
    ("hparams", []), ("hparams", "lr"), ("sizes", [1]), ("data", "x"), ("weights", 1),
    ("env0_in_acc", "0.5"), ("env0_in_acc", None), ("env0_in_acc", [0.5]), ("env0_in_acc", 10**400),
    ("loss", "nan"), ("agreement", {}), ("step_time", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda value: repr(value)[:12])
def test_a_value_of_a_wrong_kind_makes_a_line_damaged_with_its_key(key, value, tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [GOOD, GOOD | {key: value}, GOOD | {"step": 2}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = read_records(path)
    assert [record["step"] for record in content.records] == [1, 2]
    assert content.damaged == {2: f'invalid "{key}"'}
    drop_records_after(path, 2)


@pytest.mark.parametrize("key", ["trial_seed", "dataset", "algorithm", "hparams_seed", "test_envs"])
def test_an_argument_of_a_wrong_kind_makes_a_line_damaged_with_its_key(key, tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [GOOD | {"args": ARGS | {key: {}}}, GOOD]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_records(path).damaged == {1: f'args: invalid "{key}"'}


def test_deep_lines_are_damaged_and_the_others_are_read(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(
        "\n".join([json.dumps(GOOD), ARRAYS, OBJECTS, "[" * 500 + "]" * 500, json.dumps(GOOD), ""])
    )
    content = read_records(path)
    assert len(content.records) == 2
    assert content.damaged == dict.fromkeys((2, 3, 4), "nested more than 100 deep")
