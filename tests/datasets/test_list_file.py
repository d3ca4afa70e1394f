"""Datasets in a list of image files."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from domainbed.datasets import get_dataset_class, num_environments, with_classes
from domainbed.datasets.contract import build
from domainbed.datasets.image_folder import folder_dataset
from domainbed.datasets.list_file import read_list
from domainbed.errors import UnknownName, UsageError
from domainbed.training.splits import SplitRequest, by_list

COUNTS = {"ink": {"cat": 2, "dog": 3}, "oil": {"cat": 1, "dog": 1}, "Wood": {"cat": 1, "dog": 2}}
HPARAMS = {"data_augmentation": True, "input_size": 16}
REQUEST = SplitRequest((0,), 0, 0.2, 0.0, scheme="list")
GOOD = {"path": "ink/cat/0.png", "label": "cat", "environment": "ink"}


@pytest.fixture
def folder(tmp_path, write_tree):
    write_tree(tmp_path / "paintings", COUNTS)
    return tmp_path / "paintings"


@pytest.fixture
def write_list(folder):
    """`write_list(suffix, split=None)` lists all images in reverse order, with `split(i)` of image i."""

    def write(suffix, split=None):
        path = folder / f"list{suffix}"
        rows = []
        for i, image in enumerate(sorted(folder.glob("*/*/*"), reverse=True)):
            environment, label, _ = image.relative_to(folder).parts
            row = {"path": str(image.relative_to(folder)), "label": label, "environment": environment}
            rows.append(row | ({"split": split(i)} if split else {}))
        if suffix == ".jsonl":
            path.write_text("\n\n".join(json.dumps(row) for row in rows))
        else:
            with path.open("w", encoding="utf-8-sig", newline="") as file:
                writer = csv.DictWriter(file, ["note", *rows[0]], restval="x, y")
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


def lines_of(folder, suffix, *lines):
    path = folder / f"list{suffix}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def one(**changes):
    return json.dumps(GOOD | changes)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_list_of_a_folders_images_gives_the_same_dataset_as_the_folder(
    suffix, folder, write_list, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    write_list(suffix)
    name = f"paintings/list{suffix}"
    cls = get_dataset_class(name)
    assert cls.__name__ == "list"
    assert num_environments(name) == 3
    assert list(cls.ENVIRONMENTS) == ["Wood", "ink", "oil"]
    assert cls.missing(None) is None
    listed, whole = cls(None, [1], HPARAMS), folder_dataset(folder)(None, [1], HPARAMS)
    assert listed.counts() == whole.counts()
    assert listed.input_shape == (3, 16, 16)
    n = len(whole[1])
    for i in range(n):  # environment 1 is the target, which is not augmented
        x, y = listed[1][n - 1 - i]
        assert torch.equal(x, whole[1][i][0])
        assert y == whole[1][i][1]
    assert listed[0].transform is not listed[1].transform
    assert torch.equal(listed[0].plain()[0][0], whole[0].plain()[len(whole[0]) - 1][0])


def test_numeric_names_are_sorted_as_numbers(folder):
    paths = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*/*"))[:4]
    lines = [
        one(path=path, label=label, environment=environment)
        for path, (label, environment) in zip(paths, [(2, 100), (10, 100), (2, 9), ("10", "9")], strict=True)
    ]
    dataset = get_dataset_class(str(lines_of(folder, ".jsonl", *lines)))(None, [], HPARAMS)
    assert list(dataset.ENVIRONMENTS) == ["9", "100"]
    assert list(dataset.class_names) == ["2", "10"]


def test_an_error_names_a_missing_file_and_its_line(folder):
    path = lines_of(
        folder, ".csv", "path,label,environment", "ink/cat/0.png,cat,ink", "ink/cat/9.png,cat,ink"
    )
    cls = get_dataset_class(str(path))
    assert cls.missing(None).endswith("9.png does not exist")
    assert "line 3: file " in cls.missing(None)
    with pytest.raises(UsageError, match=r"line 3: file .*9\.png does not exist"):
        cls(None, [], HPARAMS)


@pytest.mark.parametrize(
    ("suffix", "lines", "message"),
    [
        (".csv", [], "line 1: path is missing"),
        (".csv", ["path,label,enviroment", "a,b,c"], "line 1: environment is missing"),
        (".csv", ["path,label,environment"], "lists no images"),
        (".csv", ["path,label,environment", "a,b,c", "a2,b"], "line 3: expected are 3 fields"),
        (".csv", ["path,label,environment", "a,b,c,d"], "line 2: expected are 3 fields"),
        (".csv", ["path,label,environment", "a,,c"], "line 2: label is empty"),
        (".csv", ["path,label,environment", "a,b,c", "./a,b,d"], "line 3: ./a is already on line 2"),
        (".csv", ["path,label,environment", '"a'], "line 2: not valid CSV"),
        (
            ".csv",
            ["path,label,environment,split", "a,b,c,train"],
            "line 2: split must be one of in, out, test",
        ),
        (".jsonl", ["{"], "line 1: not valid JSON"),
        (".jsonl", ["", "[]"], "line 2: expected is a JSON object"),
        (".jsonl", [one(), '{"label": "a", "label": "b"}'], 'line 2: the key "label" occurs twice'),
        (".jsonl", [one(), one(path=None)], "line 2: path must be text or a whole number, not null"),
        (".jsonl", [one(label=True)], "line 1: label must be text or a whole number, not true"),
        (".jsonl", [one(), '{"path": "a", "label": 1}'], "line 2: environment is missing"),
    ],
)
def test_an_invalid_list_is_refused_with_the_number_of_the_line(folder, suffix, lines, message):
    with pytest.raises(UsageError, match=message):
        get_dataset_class(str(lines_of(folder, suffix, *lines)))


def test_a_class_that_an_environment_lacks_is_refused_or_allowed(folder):
    lines = ["path,label,environment", "ink/cat/0.png,x,c", "ink/cat/1.png,y,c", "oil/cat/0.jpg,y,e"]
    cls = get_dataset_class(str(lines_of(folder, ".csv", *lines)))
    assert "e lacks x; every environment needs every class, or use --classes union" in cls.missing(None)
    union = with_classes(cls, "union")
    dataset = build(union, None, [0], HPARAMS)
    assert dataset.counts() == {"c": {"x": 1, "y": 1}, "e": {"x": 0, "y": 1}}
    assert dataset.notes == ["e lacks x"]


def test_lists_of_other_projects_get_a_command_that_converts_them(folder, write_list):
    """The command is run as the error gives it."""
    wanted = get_dataset_class(str(write_list(".csv")))(None, [0], HPARAMS)
    rows = pd.read_csv(folder / "list.csv", dtype=str)[["path", "label", "environment"]]
    for name, suffix in (("a list.tsv", ".csv"), ("other.json", ".jsonl")):
        path = folder / name
        if name.endswith(".tsv"):
            rows.to_csv(path, sep="\t", index=False)
        else:
            path.write_text(rows.to_json(orient="records"))
        with pytest.raises(UsageError, match=r"a list is a \.csv file with the columns path") as error:
            get_dataset_class(str(path))
        command = str(error.value).partition(" with: ")[2].replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True)
        assert (
            get_dataset_class(str(path.with_suffix(suffix)))(None, [0], HPARAMS).counts() == wanted.counts()
        )


def test_a_list_of_paths_and_labels_gets_a_command_that_converts_it(folder):
    path = folder / "ink.txt"
    path.write_text("ink/cat/0.png 0\nink/dog/1.png 1\n")
    with pytest.raises(
        UsageError, match="convert lines 'path label' of the environment NAME with: awk"
    ) as error:
        get_dataset_class(str(path))
    subprocess.run(str(error.value).partition(" with: ")[2], shell=True, check=True)
    dataset = get_dataset_class(str(folder / "ink.csv"))(None, [], HPARAMS)
    assert dataset.counts() == {"NAME": {"0": 1, "1": 1}}


def test_a_misspelt_column_gets_a_suggestion(folder):
    with pytest.raises(UsageError) as info:
        read_list(lines_of(folder, ".csv", "path,label,enviroment", "a,b,c"))
    assert info.value.__notes__ == ["Did you mean enviroment?"]


def test_a_list_must_be_utf_8_and_exist_and_have_a_known_suffix(folder):
    path = folder / "list.csv"
    path.write_bytes(b"path,label,environment\n\xff,a,b\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        get_dataset_class(str(path))
    with pytest.raises(UnknownName):
        get_dataset_class(str(folder / "none.csv"))
    with pytest.raises(UsageError, match=r"0\.png is neither a folder nor a list of images; a list is a"):
        get_dataset_class(str(folder / "ink/cat/0.png"))


def test_splits_of_a_list(folder, write_list):
    parts = ("in", "out", "in", "test")
    dataset = get_dataset_class(str(write_list(".csv", lambda i: parts[i % 4])))(None, [0], HPARAMS)
    splits = by_list(dataset, REQUEST)
    for environment, declared, split in zip(dataset.datasets, dataset.parts, splits, strict=True):
        keys = {part: list(split[part].keys) for part in split}
        assert sorted(key for part in keys.values() for key in part) == list(range(len(environment)))
        assert all(declared[key] == part for part in keys for key in keys[part])
        assert len(split["in"])


def test_splits_that_a_list_does_not_define_are_refused(folder, write_list):
    plain = get_dataset_class(str(write_list(".csv")))(None, [0], HPARAMS)
    with pytest.raises(UsageError, match="line 2: --splits list needs a value for split"):
        by_list(plain, REQUEST)
    dataset = get_dataset_class(str(write_list(".jsonl", lambda i: "out")))(None, [0], HPARAMS)
    with pytest.raises(UsageError, match="environment Wood has no samples with split in"):
        by_list(dataset, REQUEST)
    with pytest.raises(UsageError, match="--splits list takes no options, not x"):
        by_list(dataset, dataclasses.replace(REQUEST, options=("x",)))
    with pytest.raises(UsageError, match="needs a dataset that is a list"):
        by_list(folder_dataset(folder)(None, [0], HPARAMS), REQUEST)


def test_a_run_on_a_list_with_its_own_splits(folder, write_list, forked_script, tmp_path):
    path = write_list(".csv", lambda i: "out" if i in (0, 3, 8) else "in")
    flags = {
        "dataset": path,
        "splits": "list",
        "hparams": '{"input_size": 32, "featurizer": "small_cnn", "batch_size": 2}',
        "test_envs": 0,
        "steps": 2,
        "evaluate": "all",
        "output_dir": tmp_path / "run",
    }
    done = forked_script("train", *(f"--{name}={value}" for name, value in flags.items()))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[-1])
    assert {name: size for name, size in record["sizes"].items() if name.endswith("_out")}
    assert sum(record["sizes"].values()) == 10
    assert all(0 <= record[f"env{i}_in_acc"] <= 1 for i in range(3))
    assert np.isfinite(record["loss"])


def test_a_run_gives_the_same_records_with_and_without_the_cache(
    write_list, write_tree, folder, assert_cache_changes_nothing
):
    write_tree(folder / "more", {"ink": {"cat": 3, "dog": 3}})
    for environment in COUNTS:
        for label in ("cat", "dog"):
            for path in (folder / "more/ink" / label).iterdir():
                shutil.copy(path, folder / environment / label / f"copy-{path.name}")
    shutil.rmtree(folder / "more")
    assert_cache_changes_nothing(str(write_list(".csv")), data_augmentation=False)
