"""Image files with the same contents: found, counted, dropped, refused."""

import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from domainbed.datasets import get_dataset_class
from domainbed.datasets.contract import build, identify_contents
from domainbed.datasets.file_copies import first_copies
from domainbed.datasets.hashes import content_hash, hash_array
from domainbed.errors import UsageError
from domainbed.images.prepared import prepare

COUNTS = {"ink": {"cat": 3, "dog": 3}, "oil": {"cat": 3, "dog": 3}}
HPARAMS = {"data_augmentation": True, "input_size": 16}


@pytest.fixture
def folder(tmp_path, write_tree):
    """Twelve different images, and three copies: in ink, two of cat/0.png, one of them in dog."""
    write_tree(tmp_path / "paintings", COUNTS)
    for number, path in enumerate(sorted((tmp_path / "paintings").glob("*/*/*"))):
        Image.effect_noise((20, 20 + number), 90).save(path)
    for copy in ("ink/cat/copy.png", "ink/dog/copy.png", "oil/cat/copy.png"):
        original = "cat/0.png" if copy.startswith("ink") else "cat/1.png"
        shutil.copy(tmp_path / "paintings" / copy[:3] / original, tmp_path / "paintings" / copy)
    return tmp_path / "paintings"


def load(path, duplicates="keep"):
    dataset = build(get_dataset_class(str(path)), None, [0], HPARAMS, duplicates)
    identify_contents(dataset)
    return dataset


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"", b"a", b"b", b"aa", b"ab"]), max_size=12))
def test_each_file_has_the_position_of_the_first_one_with_its_bytes(contents):
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(i) for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        expected = [contents.index(each) for each in contents]
        assert first_copies(list(map(str, paths))).tolist() == expected
        hashes = hash_array([content_hash(each) for each in contents])
        for path in paths:
            path.unlink()
        assert first_copies(list(map(str, paths)), hashes).tolist() == expected or not paths


def test_copies_are_counted_within_an_environment_and_across_classes(folder):
    dataset = load(folder)
    assert dataset.summary["copies"] == {"images": 3, "other_class": 1}
    assert dataset.counts()["ink"] == {"cat": 4, "dog": 4}
    assert [np.flatnonzero(each != np.arange(len(each))).tolist() for each in dataset.copies] == [[3, 7], [3]]


def test_copies_are_dropped_and_counted_as_skipped(folder):
    dataset = load(folder, "drop")
    assert dataset.counts() == COUNTS
    assert dataset.summary["skipped"] == {"duplicate": 3}
    assert dataset.summary["copies"] == {"images": 0, "other_class": 0}
    assert not [path for environment in dataset.datasets for path in environment.paths() if "copy" in path]
    assert dataset.summary["checksum"] != load(folder).summary["checksum"]


def test_copies_are_refused_and_named(folder):
    pair = f"{folder / 'ink/cat/0.png'} = {folder / 'ink/cat/copy.png'}"
    with pytest.raises(
        UsageError, match=f"^3 images of paintings have the same contents .*: {pair}, "
    ) as error:
        load(folder, "error")
    assert "\n" not in str(error.value)
    for path in folder.rglob("copy.png"):
        path.unlink()
    assert load(folder, "error").counts() == COUNTS


def test_copies_in_a_list_are_dropped_with_their_parts(folder):
    rows = []
    for path in sorted(folder.glob("*/*/*")):
        environment, label, name = path.relative_to(folder).parts
        part = "uda" if name == "copy.png" else "in"
        rows.append(f"{path.relative_to(folder)},{label},{environment},{part}")
    (folder / "list.csv").write_text("\n".join(["path,label,environment,split", *rows]))
    dataset = load(folder / "list.csv", "drop")
    assert dataset.counts() == COUNTS
    assert dataset.parts == [["in"] * 6, ["in"] * 6]


def test_copies_of_a_named_dataset_are_dropped_only_if_asked(tmp_path, write_tree):
    write_tree(
        tmp_path / "PACS", {name: {"dog": 3} for name in ("art_painting", "cartoon", "photo", "sketch")}
    )
    shutil.copy(tmp_path / "PACS/photo/dog/0.png", tmp_path / "PACS/photo/dog/copy.png")

    def load_pacs(duplicates):
        dataset = build(get_dataset_class("PACS"), str(tmp_path), [0], HPARAMS, duplicates)
        identify_contents(dataset)
        return dataset

    assert "copies" not in load_pacs("keep").summary
    assert load_pacs("drop").counts()["P"] == {"dog": 3}
    with pytest.raises(UsageError, match="1 images of PACS"):
        load_pacs("error")


def test_a_dataset_without_files_has_no_copies_to_drop():
    with pytest.raises(UsageError, match="--duplicates drop needs image files; Debug28 has none"):
        build(get_dataset_class("Debug28"), None, [0], {}, "drop")


def test_files_that_differ_but_have_the_same_pixels_are_counted_when_they_are_decoded(
    folder, tmp_path, caplog
):
    with Image.open(folder / "oil/dog/0.png") as image:
        image.save(folder / "oil/dog/same.bmp")
    with caplog.at_level(logging.WARNING):
        prepare(load(folder), tmp_path / "cache", torch.device("cpu"))
    pair = f"{folder / 'oil/dog/0.png'} = {folder / 'oil/dog/same.bmp'}"
    start = "warning: 1 of 16 images of paintings have the same pixels as an earlier one of their environment"
    assert [message for message in caplog.messages if "same pixels" in message] == [f"{start}: {pair}"]


def test_copies_are_found_if_only_some_environments_are_decoded_for_the_cache(folder, tmp_path, caplog):
    with Image.open(folder / "ink/dog/0.png") as image:
        image.save(folder / "ink/dog/same.bmp")
    hparams = HPARAMS | {"augmentation": "pil"}
    dataset = build(get_dataset_class(str(folder)), None, [0], hparams)
    with caplog.at_level(logging.WARNING):
        prepare(dataset, tmp_path / "cache", torch.device("cpu"))
    assert [len(each) for each in dataset.image_findings] == [9, 0]
    assert "1 of 9 images of paintings have the same pixels as an earlier one" in caplog.text
