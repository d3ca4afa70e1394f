"""How often a run opens image files before it trains: once, and not at all if they are known."""

import json
import os
import shutil
import sys
import traceback
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from domainbed.training.config import TrainConfig
from domainbed.training.run import build

HPARAMS = '{"input_size": 16, "featurizer": "mlp", "data_augmentation": false}'
COUNTS = {"ink": {"cat": 3, "dog": 3}, "oil": {"cat": 3, "dog": 3}}
COPIES = ("ink/cat/copy.bmp", "ink/dog/copy.bmp", "oil/cat/copy.bmp")
CHECKED = Counter({"ink/cat/0.bmp": 1, "oil/cat/0.bmp": 1})
"""The first image of each environment is decoded before anything else happens."""


@pytest.fixture
def folder(tmp_path):
    """Twelve different images of one size, and three copies."""
    generator = np.random.default_rng(0)
    for environment, classes in COUNTS.items():
        for label, count in classes.items():
            (tmp_path / "paintings" / environment / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(256, size=(20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "paintings" / environment / label / f"{number}.bmp")
    build(TrainConfig(dataset="Debug28"))  # imports modules for all processes below
    for copy in COPIES:
        shutil.copy(tmp_path / "paintings" / copy[:3] / "cat/0.bmp", tmp_path / "paintings" / copy)
    return tmp_path / "paintings"


def all_of(folder):
    return Counter(str(path.relative_to(folder)) for path in folder.glob("*/*/*.bmp"))


def opened(folder, **settings):
    """How often each image in `folder` is opened by a process that builds a run."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
        process = os.fork()
    if process == 0:
        try:
            paths = []
            sys.addaudithook(lambda event, args: paths.append(str(args[0])) if event == "open" else None)
            settings = {"cache_dir": str(folder.parent / "cache"), "hparams": HPARAMS} | settings
            build(TrainConfig(dataset=str(folder), **settings))
            inside = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
            os.write(write, json.dumps([path for path in inside if path.endswith(".bmp")]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(process, 0)
    with os.fdopen(read) as file:
        return Counter(json.loads(file.read()))


def test_copies_are_found_from_the_bytes_that_are_decoded(folder):
    assert opened(folder) == all_of(folder) + CHECKED
    assert opened(folder) == CHECKED


def test_a_second_start_that_drops_copies_opens_no_file_to_compare_it(folder):
    decoded = all_of(folder) - Counter(COPIES)
    assert opened(folder, duplicates="drop") == all_of(folder) + decoded + CHECKED
    assert opened(folder, duplicates="drop") == CHECKED


def test_a_second_start_that_refuses_copies_opens_no_file_to_compare_it(folder):
    for copy in COPIES:
        (folder / copy).unlink()
    assert opened(folder) == all_of(folder) + CHECKED
    assert opened(folder, duplicates="error") == CHECKED


def test_hashes_of_files_that_were_decoded_find_the_copies_to_drop(folder):
    opened(folder)
    decoded = all_of(folder) - Counter(COPIES)
    assert opened(folder, duplicates="drop") == decoded + CHECKED


def test_hashes_for_copies_find_the_cached_images_of_a_folder_that_was_moved(folder, tmp_path):
    opened(folder, duplicates="drop")
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / "paintings")
    assert opened(moved, duplicates="drop", cache_dir=str(tmp_path / "cache")) == all_of(moved) + CHECKED


def test_only_a_file_that_changed_is_read_again(folder):
    opened(folder, duplicates="drop")
    shutil.copy(folder / "ink/cat/1.bmp", folder / "ink/cat/2.bmp")
    (folder / "oil/cat/copy.bmp").unlink()
    hashed = Counter(["ink/cat/2.bmp"])  # now a copy, so that it is not decoded
    decoded = Counter(path for path in all_of(folder) - Counter(COPIES) - hashed if path.startswith("ink"))
    assert opened(folder, duplicates="drop") == hashed + decoded + CHECKED


def test_checking_all_images_costs_no_second_decoding(folder):
    assert opened(folder, check_images=True) == all_of(folder) + CHECKED
    assert opened(folder, check_images=True) == CHECKED


def test_checking_all_images_uses_what_a_run_without_checks_has_found(folder):
    assert opened(folder) == all_of(folder) + CHECKED
    assert opened(folder, check_images=True) == CHECKED


def test_images_that_are_not_cached_are_checked(folder):
    for _ in range(2):
        assert opened(folder, check_images=True, cache_dir="none") == all_of(folder) + CHECKED
