import json
import multiprocessing

import pytest

from domainbed.errors import RunError
from domainbed.sweep.manifest import Manifest, add_to_manifest, read_manifest


def test_a_directory_without_a_manifest(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nowhere") is None


def test_launches_add_to_each_other(tmp_path):
    add_to_manifest(tmp_path, {"a": {"seed": 1}}, ("iid",))
    add_to_manifest(tmp_path, {"b": {"seed": 2}}, ())
    assert read_manifest(tmp_path) == Manifest({"a": {"seed": 1}, "b": {"seed": 2}}, ("iid",))
    add_to_manifest(tmp_path, {"a": {"seed": 1}}, ("oracle", "loo"))
    assert read_manifest(tmp_path).selection == ("oracle", "loo")


def _add(path, number):
    for i in range(10):
        add_to_manifest(path, {f"{number}-{i}": {}}, ())


def test_concurrent_launches_are_all_kept(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_manifest(tmp_path).jobs) == 40


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"jobs": 3, "selection": []}', '{"jobs": {}, "selection": 1}', "\xff"]
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"sweep.json is damaged .* delete it and launch the sweep again"):
        read_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "sweep.json").mkdir()
    with pytest.raises(RunError, match=r"cannot read .*sweep\.json: Is a directory"):
        read_manifest(tmp_path)


def test_a_manifest_is_plain_json(tmp_path):
    add_to_manifest(tmp_path, {"a": {"test_envs": [0]}}, ("iid",))
    content = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert content == {"jobs": {"a": {"test_envs": [0]}}, "selection": ["iid"], "version": 1}


def test_each_command_is_recorded_once(tmp_path):
    for command in ("sweep launch --config a.toml", "sweep launch --steps 5", "sweep launch --config a.toml"):
        add_to_manifest(tmp_path, {}, (), command)
    add_to_manifest(tmp_path, {"a": {}}, ())
    assert read_manifest(tmp_path).commands == ("sweep launch --config a.toml", "sweep launch --steps 5")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"jobs": {"a": 5}}, "job a: no object"),
        ({"jobs": {"a": {"seed": "x"}}}, 'job a: invalid "seed"'),
        ({"jobs": {"a": {"test_envs": 0}}}, 'job a: invalid "test_envs"'),
        ({"selection": [["iid"]]}, "a selection method or command is no text"),
        ({"commands": [5]}, "a selection method or command is no text"),
    ],
)
def test_a_value_of_a_wrong_kind_is_said_with_its_job(change, reason, tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {}, "selection": [], **change}))
    with pytest.raises(RunError, match="is damaged") as caught:
        read_manifest(tmp_path)
    assert reason in str(caught.value)
