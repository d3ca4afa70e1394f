"""Names of classes: any bytes, Unicode forms, and classes that environments lack."""

import itertools
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import domainbed
from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.console import Tee
from domainbed.datasets import get_dataset_class, with_classes
from domainbed.datasets.base import labels_of
from domainbed.datasets.class_names import class_folders, lacking_classes
from domainbed.datasets.contract import build as build_dataset
from domainbed.datasets.folder_layout import read_layout
from domainbed.datasets.reading_rules import UPSTREAM, USER_FOLDER
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.run import build
from domainbed.training.run_description import describe

HPARAMS = {"data_augmentation": True, "input_size": 16}
CLIP = '{"input_size": 16, "clip_model": "tiny", "batch_size": 6}'
SMALL = '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4, "batch_size": 6}'
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def draw(folder, count, seed=0):
    """`count` pictures with different contents in `folder`."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_names_that_are_not_utf_8_are_read_and_shown(tmp_path, forked_script):
    data = tmp_path / "data"
    for number, (environment, label) in enumerate(itertools.product(("a\udcff", "b"), ("x\udcfe", "y"))):
        draw(data / environment / label, 4, number)
    (data / "b/y/0.png").rename(data / "b/y/\udce9.png")
    (data / "b/y/\udce9.txt").touch()
    flags = ["--hparams", SMALL, "--steps", "2", "--check_images", "--output_dir", tmp_path / "run"]
    done = forked_script("train", "--dataset", data, *flags)
    assert done.returncode == 0, done.stderr
    assert "environment 0 (a\\xff, target): 8 images (x\\xfe 4, y 4)" in done.stdout
    assert f"{data}/b/y/\\xe9.txt: not images" in done.stdout


def test_a_folder_whose_own_name_is_not_utf_8_is_a_dataset(tmp_path):
    draw(tmp_path / "\udcff/a/x", 1)
    assert get_dataset_class(str(tmp_path / "\udcff")).__name__ == "\\xff"


def test_output_of_a_run_shows_any_name(tmp_path, capsys):
    with Tee(tmp_path / "out.txt") as out:
        out.write("a\udcff\n")
    assert capsys.readouterr().out == (tmp_path / "out.txt").read_text() == "a\\xff\n"
    assert visible("é猫") == "é猫"


def test_names_in_two_unicode_forms_are_one_class_and_that_is_said(tmp_path):
    for environment, name in (("art", NFC), ("art", "dog"), ("photo", NFD), ("photo", "dog")):
        draw(tmp_path / "data" / environment / name, 3)
    if len(list((tmp_path / "data").glob("*/caf*"))) != 2:
        pytest.skip("the file system joins names by itself")
    dataset = build_dataset(get_dataset_class(str(tmp_path / "data")), None, [0], HPARAMS)
    assert dataset.counts() == {"art": {NFC: 3, "dog": 3}, "photo": {NFC: 3, "dog": 3}}
    assert dataset.notes == [f"names of classes in two Unicode forms are joined: {NFC}"]
    run = build(TrainConfig(dataset=str(tmp_path / "data"), hparams=SMALL, steps=1))
    assert f"\t{dataset.notes[0]}" in list(describe(run))
    with pytest.raises(UsageError, match=f"art lacks {NFD}; photo lacks {NFC}"):
        read_layout(tmp_path / "data", rules=UPSTREAM)


def test_two_folders_of_one_environment_can_be_one_class(tmp_path):
    for name in (NFC, NFD):
        draw(tmp_path / "data" / "art" / name, 2)
    layout = read_layout(tmp_path / "data", rules=USER_FOLDER)
    assert layout.classes == (NFC,)
    assert [Path(path).parent.name for path, _ in layout.samples("art")] == sorted([NFD, NFD, NFC, NFC])


def test_names_in_one_form_keep_it_and_their_order():
    folders = {"art": ["cafz", NFD], "photo": ["cafz", NFD]}
    assert class_folders(folders, USER_FOLDER) == (
        {name: {NFD: [NFD], "cafz": ["cafz"]} for name in folders},
        [],
    )
    assert lacking_classes({"a": "xyz", "b": "x", "c": "xyz"}) == ["b lacks y, z"]


@pytest.fixture
def uneven(tmp_path):
    """Three environments: the target a has x, y and z; b lacks z; c lacks x."""
    for number, (environment, labels) in enumerate({"a": "xyz", "b": "xy", "c": "yz"}.items()):
        for label in labels:
            draw(tmp_path / "uneven" / environment / label, 10, 10 * number + ord(label))
    return tmp_path / "uneven"


def test_classes_that_environments_lack_are_refused_with_the_way_out(uneven):
    line = "different classes: b lacks z; c lacks x; every environment needs every class, or use --classes"
    assert line in get_dataset_class(str(uneven)).missing(None)
    with pytest.raises(UsageError, match="or use --classes union"):
        domainbed.train(dataset=str(uneven), hparams=SMALL, steps=1)


def test_an_empty_class_folder_is_a_class_that_its_environment_lacks(uneven):
    (uneven / "b/z").mkdir()
    (uneven / "b/nothing").mkdir()
    dataset = build_dataset(with_classes(get_dataset_class(str(uneven)), "union"), None, [0], HPARAMS)
    assert dataset.counts()["b"] == {"x": 10, "y": 10, "z": 0}
    assert dataset.notes == ["b lacks z", "c lacks x"]


@pytest.mark.parametrize("splits", ["holdout", "60/20/20"])
@pytest.mark.parametrize("balanced", [False, True])
def test_minibatches_and_splits_of_environments_that_lack_classes(uneven, splits, balanced):
    hparams = {"input_size": 16, "featurizer": "mlp", "batch_size": 16, "class_balanced": balanced}
    settings = {"classes": "union", "splits": splits, "hparams": json.dumps(hparams), "steps": 3}
    config = TrainConfig(dataset=str(uneven), **settings)
    run = build(config)
    assert run.dataset.num_classes == 3
    assert "\tb lacks z" in list(describe(run))
    for parts, labels in zip(run.splits, ({0, 1, 2}, {0, 1}, {1, 2}), strict=True):
        for part in parts.values():
            assert set(labels_of(part).tolist()) <= labels
    drawn = [set(), set()]
    for step in range(3):
        for labels, (_, y) in zip(drawn, run.minibatches[step], strict=True):
            labels.update(y.tolist())
    assert drawn == [{0, 1}, {1, 2}]


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(name, marks=() if name in ("ERM", "CORAL", "CDANN", "AgrSum") else pytest.mark.slow)
        for name in ALGORITHMS
    ],
)
def test_runs_on_environments_that_lack_classes(uneven, algorithm):
    hparams = CLIP if get_algorithm_class(algorithm).FEATURIZER == "clip" else SMALL
    settings = {"dataset": str(uneven), "classes": "union", "hparams": hparams, "steps": 2, "evaluate": "all"}
    records = domainbed.train(algorithm=algorithm, **settings)
    losses = [records[name].dropna() for name in records if "loss" in name]
    assert losses
    assert all(len(each) and np.isfinite(each).all() for each in losses)
    for index in range(3):
        for part in ("in", "out"):
            # An accuracy is a share of the samples, of the classes that the environment has.
            hits = records[f"env{index}_{part}_acc"].iloc[-1] * records[f"sizes.env{index}_{part}"].iloc[-1]
            assert hits == pytest.approx(round(hits), abs=1e-6)


def test_classes_of_datasets_with_a_name_are_fixed():
    with pytest.raises(UsageError, match="--classes union is for folders and lists; the classes of Debug28"):
        check_config(TrainConfig(dataset="Debug28", classes="union"))
