"""The command `python -m domainbed.scripts.list`."""

import json

import pytest

from domainbed.scripts.list import KINDS


def test_everything_as_json(forked_script):
    shown = json.loads(forked_script("list", "--json").stdout)
    assert list(shown) == list(KINDS)
    assert all(shown.values())
    erm = shown["algorithms"]["ERM"]["hparams"]
    assert (erm["batch_size"]["default"], erm["batch_size"]["default_small_images"]) == (32, 64)
    assert all(entry["about"] for entry in shown["algorithms"].values())
    assert "order" in shown["algorithms"]["PCGrad"]["hparams"]
    assert shown["datasets"]["EmojiStyles"] == {
        "environments": ["Flat", "Gradient", "Line", "Rendered"],
        "missing": None,
    }
    assert "alexnet" in shown["featurizers"]
    assert "featurizer" in shown["options"]
    assert {"local", "multi_gpu", "dummy"} <= set(shown["launchers"])
    assert {"iid", "loo", "oracle", "iccv2021", "last"} <= set(shown["selection"])
    assert "70/10/20" in " ".join(shown["splits"]) or "holdout" in shown["splits"]
    assert shown["plugins"]["domainbed_gs"]["about"] == "ok"


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_as_text(forked_script, kind):
    done = forked_script("list", kind)
    assert done.returncode == 0
    assert done.stderr == ""
    first, *lines = done.stdout.splitlines()
    assert first == f"{kind}:"
    assert lines
    assert all(line.startswith("  ") for line in lines)


def test_only_the_given_kinds_are_listed(forked_script):
    shown = json.loads(forked_script("list", "--json", "splits", "launchers").stdout)
    assert list(shown) == ["splits", "launchers"]


def test_datasets_are_ready_or_have_a_reason_why_not(forked_script, tmp_path):
    for environment in ("art_painting", "cartoon", "photo", "sketch"):
        (tmp_path / "PACS" / environment / "dog").mkdir(parents=True)
    (tmp_path / "VLCS" / "LabelMe").mkdir(parents=True)
    shown = json.loads(forked_script("list", "datasets", "--json", "--data_dir", tmp_path).stdout)["datasets"]
    assert shown["PACS"]["missing"] is None
    assert "lacks Caltech101, SUN09, VOC2007" in shown["VLCS"]["missing"]
    assert "office_home does not exist" in shown["OfficeHome"]["missing"]
    text = forked_script("list", "datasets", "--data_dir", tmp_path).stdout
    assert "  PACS: A, C, P, S  [ready]\n" in text
    without = forked_script("list", "datasets").stdout
    assert (
        '  PACS: A, C, P, S  [PACS needs --data_dir, the folder that holds its data; run "python' in without
    )
    assert "  Debug28: 0, 1, 2  [ready]\n" in without


def test_an_unknown_kind_is_refused(forked_script, one_line_error):
    message = one_line_error(forked_script("list", "algoritms"), 2)
    assert message == "error: Kind not found: algoritms. Did you mean algorithms?"


def test_featurizers_say_whether_their_weights_are_on_this_machine(forked_script, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").touch()
    shown = json.loads(forked_script("list", "featurizers", "--json").stdout)["featurizers"]
    weights = {name: entry["weights"] for name, entry in shown.items()}
    assert weights["resnet18"] == f"weights at hand: {folder / 'resnet18-f37072fd.pth'}"
    assert weights["alexnet"] == "weights not at hand: torchvision alexnet (IMAGENET1K_V1)"
    assert weights["mnist_cnn"] == "no pretrained weights"
    assert weights["dinov2"].startswith("weights not at hand: ")
    assert "efficientnet" in weights["efficientnet_lite0"]
    text = forked_script("list", "featurizers").stdout
    assert "[weights not at hand: torchvision alexnet (IMAGENET1K_V1)]\n" in text
