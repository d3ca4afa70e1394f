"""Datasets named by a path, in reports: one for all spellings, with the environments that each run had."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import domainbed
from domainbed.records.sweep_records import read_sweep_records
from domainbed.results.accuracies import shown_datasets
from domainbed.results.experiments import pool
from domainbed.results.loading import load_sweep
from domainbed.results.top_hparams import list_top_hparams
from domainbed.scripts import collect_results

QUICK = {
    "hparams": '{"input_size": 8, "featurizer": "mlp", "mlp_width": 2, "batch_size": 2}',
    "steps": 1,
    "skip_model_save": True,
    "cache_dir": "none",
    "device": "cpu",
}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of three environments in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_environments(tmp_path / "photos", "art", "cartoon", "photo")
    return tmp_path / "photos"


def write_environments(root, *names):
    rng = np.random.default_rng(0)
    for name in names:
        for label in ("cat", "dog"):
            (root / name / label).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{number}.png")


def train(dataset="photos", output_dir="sweep/run", **settings):
    domainbed.train(dataset=str(dataset), output_dir=output_dir, **QUICK | settings)


def change_records(change):
    """Call `change(record)` on each record of the sweep."""
    for results in Path("sweep").glob("*/results.jsonl"):
        records = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        for record in records:
            change(record)
        results.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def table(capsys, *flags):
    """Rows of the first table of `collect_results`, as lists of words."""
    assert collect_results.main(["--input_dir", "sweep", "--selection", "oracle", *flags]) in (0, None)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("-------- Dataset"))
    rows = []
    for line in lines[start:]:
        if not line.strip():
            break
        rows.append(line.split())
    return rows


def test_a_renamed_environment_keeps_the_accuracy_of_its_runs_under_its_old_name(photos, capsys):
    for target in range(3):
        train(output_dir=f"sweep/{target}", test_envs=[target])

    def accuracy(record):
        target = record["args"]["test_envs"][0]
        record[f"env{target}_in_acc"] = [0.1, 0.2, 0.276][target]

    change_records(accuracy)
    before = table(capsys)
    assert before[1] == ["Algorithm", "art", "cartoon", "photo", "Avg"]
    assert [before[2][i] for i in (1, 4, 7)] == ["10.0", "20.0", "27.6"]
    (photos / "photo").rename(photos / "Aphoto")
    assert table(capsys) == before


def test_an_environment_that_is_added_after_the_runs_changes_no_column(photos, capsys):
    train()
    before = table(capsys)
    write_environments(photos, "Zebras", "zebras")
    assert table(capsys) == before
    assert before[1] == ["Algorithm", "art", "cartoon", "photo", "Avg"]


def test_environments_have_their_names_when_the_folder_is_gone(photos, capsys):
    train()
    shutil.rmtree(photos)
    assert table(capsys)[1] == ["Algorithm", "art", "cartoon", "photo", "Avg"]


def test_names_are_those_in_run_json_if_records_lack_them_as_in_the_released_version(photos, capsys):
    train()
    change_records(lambda record: record.pop("environments"))
    run_json = json.loads((photos.parent / "sweep/run/run.json").read_text())
    del run_json["environments"]
    (photos.parent / "sweep/run/run.json").write_text(json.dumps(run_json, sort_keys=True))
    (photos / "photo").rename(photos / "Aphoto")
    assert table(capsys)[1] == ["Algorithm", "art", "cartoon", "photo", "Avg"]


def test_numbered_environments_of_an_older_list_are_in_the_order_of_numbers(photos, capsys):
    rows = [
        f"photos/{name}/{label}/{i}.png,{label},{number}\n"
        for name, number in (("art", 2), ("cartoon", 10), ("photo", 1))
        for label in ("cat", "dog")
        for i in range(4)
    ]
    (photos.parent / "list.csv").write_text("path,label,environment\n" + "".join(rows))
    train("list.csv")
    change_records(lambda record: record.pop("environments"))
    run_json = json.loads((photos.parent / "sweep/run/run.json").read_text())
    del run_json["environments"]
    (photos.parent / "sweep/run/run.json").write_text(json.dumps(run_json, sort_keys=True))
    (photos.parent / "list.csv").unlink()
    assert table(capsys)[1] == ["Algorithm", "1", "2", "10", "Avg"]


def test_without_any_names_environments_are_numbered_and_the_folder_is_not_asked(photos, capsys):
    train()
    change_records(lambda record: record.pop("environments"))
    (photos.parent / "sweep/run/run.json").unlink()
    assert table(capsys)[1] == ["Algorithm", "env0", "env1", "env2", "Avg"]


def test_a_column_says_where_runs_disagree_about_the_name(photos):
    train(output_dir="sweep/0")
    train(output_dir="sweep/1", algorithm="CORAL")
    change_records(
        lambda record: (
            record["args"]["algorithm"] == "CORAL" and record.update(environments=["art", "comic", "photo"])
        )
    )
    (dataset,) = shown_datasets(load_sweep(photos.parent / "sweep").records)
    assert dataset.environments == ("art", "cartoon / comic", "photo")


def test_runs_whose_environments_have_other_names_are_different_experiments(photos):
    train(output_dir="sweep/0")
    (photos / "photo").rename(photos / "Aphoto")
    train(output_dir="sweep/1")
    (method,) = pool(read_sweep_records(Path("sweep")).records())
    assert method.cells == {}
    assert method.conflict.values["environments"] == {"art, cartoon, photo": 1, "Aphoto, art, cartoon": 1}


def test_three_spellings_of_a_folder_are_one_dataset(photos, capsys):
    for trial, typed in enumerate(("photos", "./photos/", photos)):
        train(typed, output_dir=f"sweep/{trial}", trial_seed=trial)
        record = json.loads((photos.parent / f"sweep/{trial}/results.jsonl").read_text().splitlines()[0])
        assert record["args"]["dataset"] == str(typed)  # as typed
    change_records(lambda record: record.update(env0_in_acc=(1 + record["args"]["trial_seed"]) / 10))
    rows = table(capsys)
    assert rows[0][:3] == ["--------", "Dataset:", "photos,"]
    # (10 + 20 + 30) / 3, and the population's standard deviation over the root of 3
    assert rows[2][1:4] == ["20.0", "+/-", "4.7"]
    sweep = load_sweep(photos.parent / "sweep")
    assert {record["args"]["dataset"] for record in sweep.records} == {"photos"}


def test_hyper_parameters_are_listed_for_any_spelling(photos, capsys):
    spellings = ("photos", "./photos/", str(photos))
    for trial, typed in enumerate(spellings):
        train(typed, output_dir=f"sweep/{trial}", trial_seed=trial)
    for typed in spellings:
        list_top_hparams(Path("sweep"), dataset=typed, algorithm="ERM", test_env=0, selection=["oracle"])
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith("trial_seed")] == [
            f"trial_seed: {trial}" for trial in range(3)
        ]


def test_folders_of_one_name_with_other_contents_are_two_datasets(photos, capsys):
    train("photos", output_dir="sweep/0")
    write_environments(photos.parent / "b" / "photos", "art", "cartoon", "photo", "sketch")
    train("b/photos", output_dir="sweep/1")
    assert {record["args"]["dataset"] for record in load_sweep(photos.parent / "sweep").records} == {
        "photos",
        "b/photos",
    }


def test_two_sweeps_with_other_spellings_are_compared(photos, capsys):
    train("photos", output_dir="sweep/0")
    train(photos, output_dir="other/0")
    collect_results.main(["--input_dir", "sweep", "--selection", "oracle", "--compare", "other"])
    out = capsys.readouterr().out
    assert "Dataset: photos, two sweeps side by side" in out
    assert "1 pairs" in out
