"""Splits that one run writes and another takes."""

import json
import os

import pytest

import domainbed
from domainbed.datasets import get_dataset_class
from domainbed.datasets.contract import build
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.seeds import seed_hash
from domainbed.training import split_file
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.derived import fill_placeholders, split_request
from domainbed.training.splits import make_splits, parse_scheme

CHANGING = ("step_time", "mem_gb", "args")


def splits_of(data, **settings):
    return make_splits(data, split_request(TrainConfig(**settings)))


@pytest.fixture(scope="module")
def emoji():
    return build(get_dataset_class("EmojiStyles"), None, [0], {})


def records_of(path):
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


def all_positions(splits):
    return [{kind: split_file.positions(part) for kind, part in parts.items()} for parts in splits]


def test_a_run_with_the_file_repeats_the_run_that_wrote_it(tmp_path):
    settings = {
        **{"dataset": "EmojiStyles", "algorithm": "AgrSum", "steps": 3, "checkpoint_freq": 2},
        **{"hparams": {"batch_size": 4}, "evaluate": "selection", "skip_model_save": True},
    }
    path = tmp_path / "splits" / "{dataset}-{trial_seed}.json"
    domainbed.train(output_dir=tmp_path / "a", trial_seed=3, write_splits=path, **settings)
    written = tmp_path / "splits" / "EmojiStyles-3.json"
    domainbed.train(output_dir=tmp_path / "b", trial_seed=5, splits=written, **settings)
    assert records_of(tmp_path / "a") == records_of(tmp_path / "b")
    record = json.loads((tmp_path / "b/results.jsonl").read_text().splitlines()[0])
    assert record["args"]["splits"] == str(written)
    assert "write_splits" not in record["args"]
    assert json.loads(written.read_text())["data"] == record["data"]


@pytest.mark.parametrize(
    "settings",
    [
        {"trial_seed": 2, "test_envs": [1], "uda_holdout_fraction": 0.25},
        {"splits": "70/10/20"},
        {"splits": "whole", "test_envs": [2, 3]},
    ],
)
def test_splits_of_every_scheme_are_read_as_they_were_written(settings, emoji, tmp_path):
    splits = splits_of(emoji, dataset="EmojiStyles", **settings)
    split_file.write(tmp_path / "a.json", emoji, splits)
    config = TrainConfig(dataset="EmojiStyles", **settings | {"splits": str(tmp_path / "a.json")})
    again = make_splits(emoji, split_request(config))
    assert all_positions(again) == all_positions(splits)
    assert all(
        part.underlying_dataset is emoji[i] for i, parts in enumerate(again) for part in parts.values()
    )


def test_the_file_of_a_run_has_upstreams_indices(vectors, tmp_path):
    path = tmp_path / "a.json"
    settings = {"dataset": "Debug28", "steps": 1, "skip_model_save": True, "output_dir": tmp_path / "run"}
    domainbed.train(**settings, write_splits=path)
    # Upstream's seed of a trial's split of its environment 1, which has 16 samples.
    (golden,) = (case for case in vectors("loaders_and_splits")["split_dataset"] if case["length"] == 16)
    assert (golden["seed"], golden["n"]) == (seed_hash(0, 1), int(16 * 0.2))
    found = json.loads(path.read_text())["environments"]["1"]
    assert found == {"in": golden["second"], "out": golden["first"]}


def test_a_file_with_the_same_split_stays_and_another_is_refused(emoji, tmp_path):
    splits, others = (splits_of(emoji, trial_seed=seed) for seed in (0, 1))
    split_file.write(tmp_path / "a.json", emoji, splits)
    os.utime(tmp_path / "a.json", (1, 1))  # any later write sets another time
    before = (tmp_path / "a.json").stat()
    split_file.write(tmp_path / "a.json", emoji, splits)
    with pytest.raises(UsageError, match=r"a\.json has another split; .*splits-{trial_seed}"):
        split_file.write(tmp_path / "a.json", emoji, others)
    after = (tmp_path / "a.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_for_other_data_is_refused_in_one_line(emoji, tmp_path):
    debug = build(get_dataset_class("Debug28"), None, [0], {})
    split_file.write(tmp_path / "a.json", debug, splits_of(debug))
    with pytest.raises(UsageError, match=r"for other data: Debug28 \(0 16, 1 16, 2 16; checksum") as caught:
        splits_of(emoji, splits=str(tmp_path / "a.json"))
    assert f"not EmojiStyles (Flat {len(emoji[0])}, " in str(caught.value)
    assert "\n" not in str(caught.value)


def damaged(content, environment, **parts):
    return content | {"environments": content["environments"] | {environment: parts}}


def test_a_split_file_with_a_key_twice_is_refused(tmp_path):
    debug = build(get_dataset_class("Debug28"), None, [0], {})
    path = tmp_path / "a.json"
    split_file.write(path, debug, splits_of(debug))
    path.write_text(path.read_text().replace("{", '{"data": {}, ', 1))
    with pytest.raises(UsageError, match=r'split file .*: the key "data" occurs twice; leave one out'):
        splits_of(debug, splits=str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "half an obj", "is not a split file"),
        (lambda content: [1], "is not a split file"),
        (lambda content: {"environments": {}}, "is not a split file"),
        (lambda content: content | {"environments": {}}, "for other data"),
        (
            lambda content: damaged(content, "1", out=[1]),
            "environment 1: expected an object of parts with the part in",
        ),
        (lambda content: damaged(content, "2", **{"in": [1], "train": [2]}), "a part is one of in, out, uda"),
        (
            lambda content: damaged(content, "0", **{"in": [3, 16]}),
            "part in: expected distinct positions from 0 to 15",
        ),
        (lambda content: damaged(content, "0", **{"in": [3, 3]}), "expected distinct positions"),
        (lambda content: damaged(content, "0", **{"in": [True]}), "expected distinct positions"),
        (lambda content: damaged(content, "0", **{"in": 3}), "expected distinct positions"),
    ],
)
def test_invalid_split_files_are_refused(change, message, tmp_path):
    debug = build(get_dataset_class("Debug28"), None, [0], {})
    path = tmp_path / "a.json"
    split_file.write(path, debug, splits_of(debug))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UsageError, match=message) as caught:
        splits_of(debug, splits=str(path))
    assert str(path) in str(caught.value)


def test_placeholders_in_file_names():
    assert (
        parse_scheme("my/splits.json") == parse_scheme("file:my/splits.json") == ("file", ("my/splits.json",))
    )
    config = TrainConfig(dataset="data/pictures.csv", trial_seed=4, test_envs=[0, 2])
    assert fill_placeholders(config, "{dataset}-{trial_seed}-{test_envs}.json") == "pictures-4-0_2.json"


def test_positions_follow_views_of_views():
    inner = SplitDataset(list("abcdef"), [5, 3, 1])
    assert split_file.positions(SplitDataset(inner, [2, 0])) == [1, 5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": "missing.json"}, r"split file missing\.json does not exist"),
        ({"splits": "file"}, "--splits file needs a path"),
        (
            {"write_splits": "splits.csv"},
            r"--write_splits takes a name that ends with \.json, not 'splits\.csv'",
        ),
    ],
)
def test_invalid_file_names_are_refused_before_the_run_starts(settings, message):
    with pytest.raises(UsageError, match=message):
        check_config(TrainConfig(dataset="Debug28", **settings))


def test_the_runs_of_a_sweep_write_and_read_a_file_for_each_split(forked_script, tmp_path):
    common = (
        *("launch", "--datasets", "Debug28", "--algorithms", "ERM", "--steps", "1", "--n_trials", "1"),
        *("--n_hparams", "1", "--single_test_envs", "--test_envs", "1", "--skip_model_save"),
        *("--skip_confirmation", "--quiet", "--workers", "1", "--hparams", '{"batch_size": 2}'),
    )
    name = "splits/{dataset}-{trial_seed}-{test_envs}.json"
    for flag in ("--write_splits", "--splits"):
        done = forked_script("sweep", *common, flag, name, "--output_dir", f"runs{flag}")
        assert done.returncode == 0, done.stderr
        assert len(list(tmp_path.glob(f"runs{flag}/*/done"))) == 1
    assert [path.name for path in (tmp_path / "splits").iterdir()] == ["Debug28-0-1.json"]
