"""`python -m domainbed.scripts.predict`, as a user sees it."""

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch

import domainbed
from domainbed.errors import UsageError
from domainbed.inference import exported
from domainbed.inference.loading import load_models


@pytest.fixture
def predict(forked_script, plain_run):
    """`predict(*flags)`: the script, with the plain run unless `--model` is given."""

    def run(*flags):
        model = () if "--model" in flags else ("--model", plain_run)
        return forked_script("predict", *model, *flags)

    return run


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_classes_into_csv(predict, plain_run, album, counted, recorded, tmp_path):
    done = predict("--images", album / "oil", "--out", "predictions.csv", "--confusion")
    ((group, (correct, count)),) = counted(done).items()
    assert (group, count) == ("oil", 24)
    assert correct == pytest.approx(recorded(plain_run, 1), abs=1.01)
    rows = rows_of(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["path", "environment", "label", "predicted", "probability", "p_cat", "p_dog"]
    assert [row["path"] for row in rows] == sorted(map(str, (album / "oil").glob("*/*")))
    assert sum(row["label"] == row["predicted"] for row in rows) == correct
    for row in rows:
        assert row["label"] in row["path"].split("/")
        assert float(row["probability"]) == float(row[f"p_{row['predicted']}"])
        assert float(row["p_cat"]) + float(row["p_dog"]) == pytest.approx(1, abs=1e-5)
    lines = done.stdout.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("True", "cat", "dog"))}
    assert table["True"] == ["cat", "dog"]
    hits = [int(table["cat"][0]), int(table["dog"][1])]
    assert sum(hits) == correct
    assert [sum(map(int, table[name])) for name in ("cat", "dog")] == [12, 12]
    assert lines[-1] == "Written: predictions.csv"
    assert done.stderr == ""


def test_single_files_have_a_line_each(predict, album):
    images = [album / "oil" / "cat" / "0.png", album / "ink" / "dog" / "1.jpg"]
    done = predict("--images", *images)
    *lines, summary = done.stdout.splitlines()
    assert [line.rpartition(": ")[0] for line in lines] == list(map(str, images))
    assert all(line.rpartition(": ")[2].startswith(("cat (", "dog (")) for line in lines)
    assert summary.startswith("predicted: ")
    assert "accuracy" not in done.stdout


def test_a_folder_of_environments_and_a_flat_folder(predict, album, counted, tmp_path):
    found = counted(predict("--images", album))
    assert {group: count for group, (_, count) in found.items()} == {
        "ink": 24,
        "oil": 24,
        "photo": 24,
        "all": 72,
    }
    assert found["all"][0] == sum(found[name][0] for name in ("ink", "oil", "photo"))
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(album.glob("oil/cat/*.png"))):
        (tmp_path / "flat" / f"{number}.png").symlink_to(path)
    (tmp_path / "flat" / "notes.txt").write_text("no image")
    done = predict("--images", "flat", "--out", "out.csv")
    assert len(rows_of(tmp_path / "out.csv")) == 9
    assert "label" not in rows_of(tmp_path / "out.csv")[0]
    assert done.stderr == "note: files that are not read: 1 not images\n"


def test_a_list_without_labels_and_with_some(predict, album, counted, tmp_path):
    (tmp_path / "list.csv").write_text(f"path\n{album}/oil/cat/0.png\n{album}/oil/dog/0.png\n")
    assert "predicted: " in predict("--images", "list.csv").stdout
    lines = [{"path": f"{album}/oil/cat/0.png", "label": "cat"}, {"path": f"{album}/oil/dog/0.png"}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = predict("--images", "list.jsonl", "--out", "out.csv")
    assert counted(done)[""][1] == 1
    assert [row["label"] for row in rows_of(tmp_path / "out.csv")] == ["cat", ""]


def test_features_and_several_models(predict, plain_run, album, train, tmp_path):
    assert predict("--images", album / "oil", "--features", "f.npz").returncode == 0
    with np.load(tmp_path / "f.npz") as arrays:
        assert arrays["features"].shape == (24, 128)
        assert arrays["features"].dtype == np.float32
        assert arrays["labels"].tolist() == [0] * 12 + [1] * 12
        assert arrays["classes"].tolist() == ["cat", "dog"]
        model = load_models([plain_run])
        expected = model.predict(arrays["paths"].tolist(), features=True)
        np.testing.assert_allclose(arrays["features"], expected.features, rtol=1e-5)
        assert arrays["predicted"].tolist() == expected.labels.tolist()
    other = train("third", seed=5)
    done = predict("--model", plain_run, other, "--images", album / "oil", "--out", "both.csv")
    assert done.returncode == 0, done.stderr
    expected = load_models([plain_run, other]).predict(
        [row["path"] for row in rows_of(tmp_path / "both.csv")]
    )
    for row, probabilities in zip(rows_of(tmp_path / "both.csv"), expected.probabilities, strict=True):
        assert float(row["p_cat"]) == pytest.approx(probabilities[0], rel=1e-4)


def test_export_holds_plain_tensors_that_predict_alike(predict, plain_run, album, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    done = predict("--export", "model.safetensors")
    assert done.stdout == "Exported to model.safetensors and model.json\n", done.stderr
    weights = safetensors.load_file(tmp_path / "model.safetensors")
    expected = torch.load(plain_run / "model.pkl", weights_only=True)
    about = json.loads((tmp_path / "model.json").read_text())
    restored = weights | {name: weights[other] for name, other in about["shared"].items()}
    assert restored.keys() == expected["model_dict"].keys()
    assert all(torch.equal(restored[name], value) for name, value in expected["model_dict"].items())
    assert {name.partition(".")[0] for name in weights} == {"featurizer", "classifier"}
    assert about["model_class_names"] == ["cat", "dog"]
    assert about["args"]["algorithm"] == "ERM"
    paths = sorted(map(str, album.glob("oil/*/*")))
    found = domainbed.load(tmp_path / "model.safetensors").predict(paths)
    np.testing.assert_array_equal(found.probabilities, domainbed.load(plain_run).predict(paths).probabilities)


def test_without_safetensors_one_line_says_what_to_install(plain_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UsageError, match="pip install safetensors"):
        exported.export(load_models([plain_run]).members[0].saved, tmp_path / "it.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_are_data(predict, album, tmp_path):
    """A path with an escape sequence, bytes that are not UTF-8, and a formula."""
    names = ["\x1b[31mred.png", os.fsdecode(b"\xff.png"), "=1+1.png"]
    for name in names:
        (tmp_path / name).write_bytes((album / "oil" / "cat" / "0.png").read_bytes())
    done = predict("--images", *names)
    assert [line.rpartition(": ")[0] for line in done.stdout.splitlines()[:3]] == [
        "\\x1b[31mred.png",
        "\\xff.png",
        "=1+1.png",
    ]
    done = predict("--images", *names, "--out", "out.csv")
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == [
        "\x1b[31mred.png",
        "\\xff.png",
        "=1+1.png",
    ]
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: a spreadsheet would calculate these cells: =1+1.png; import the CSV file")
