"""A run whose cache of decoded images is damaged while it is at work."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HPARAMS = '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4, "batch_size": 4}'
CONSUMED = ("step_time", "mem_gb", "args")


@pytest.fixture
def folder(tmp_path):
    for number, place in enumerate(("ink/cat", "ink/dog", "oil/cat", "oil/dog")):
        (tmp_path / "paintings" / place).mkdir(parents=True)
        for image in range(20):
            pixels = np.random.default_rng([number, image]).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "paintings" / place / f"{image}.png")
    return tmp_path / "paintings"


def records_of(run):
    """The records, without times and names of folders."""
    lines = (run / "results.jsonl").read_text().rpartition("\n")[0].splitlines()
    return [{name: v for name, v in json.loads(line).items() if name not in CONSUMED} for line in lines]


def flip_last_byte(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


DAMAGE = {"cut": lambda path: os.truncate(path, 0), "deleted": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_has_the_same_records_if_its_cache_is_damaged_meanwhile(
    folder, tmp_path, start_script, wait_until, damage
):
    flags = ["--dataset", folder, "--cache_dir", tmp_path / "cache", "--hparams", HPARAMS]
    flags += ["--checkpoint_freq", 2, "--skip_model_save"]
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    assert start_script("train", *flags, "--steps", 41, "--output_dir", whole).wait().returncode == 0
    process = start_script("train", *flags, "--steps", 10**6, "--output_dir", damaged)
    wait_until(lambda: (damaged / "results.jsonl").exists())
    paths = sorted((tmp_path / "cache").glob("*.images"))
    assert len(paths) == 2
    for path in paths:
        DAMAGE[damage](path)
    begun = len(records_of(damaged))
    wait_until(lambda: len(records_of(damaged)) > begun + 2)
    os.kill(process.pid, signal.SIGTERM)
    done = process.wait()
    pairs = list(zip(records_of(damaged), records_of(whole), strict=False))
    assert len(pairs) > 2
    assert all(one == other for one, other in pairs)
    said = done.stderr.count("it was cut while it was in use); it is made again")
    assert said == {"cut": 2, "deleted": 0}[damage]


def test_a_run_finds_a_flipped_byte_in_the_cache_and_has_the_same_records(folder, tmp_path, start_script):
    steps = ["--steps", 3, "--skip_model_save", "--hparams", HPARAMS]
    flags = ["--dataset", folder, "--cache_dir", tmp_path / "cache", *steps]
    assert start_script("train", *flags, "--output_dir", tmp_path / "whole").wait().returncode == 0
    for path in (tmp_path / "cache").glob("*.images"):
        flip_last_byte(path)
    done = start_script("train", *flags, "--output_dir", tmp_path / "damaged").wait()
    assert done.returncode == 0, done.stderr
    assert records_of(tmp_path / "damaged") == records_of(tmp_path / "whole")
    assert done.stderr.count("the pixels of image 39 have changed); it is made again") == 2
