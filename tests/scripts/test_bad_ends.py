"""After any failure, the user reads a one-line error, and computed results are kept."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbed.training.config import TrainConfig
from domainbed.training.run import build

SMALL = '{"batch_size": 8, "featurizer": "small_cnn"}'
CLASSES = ("cat", "dog")


@pytest.fixture
def train(forked_script):
    """`train(*flags)`: the train script, by default for two steps on Debug28."""

    def run(*flags):
        defaults = ("--dataset", "Debug28", "--steps", 2, "--hparams", SMALL, "--skip_model_save")
        return forked_script("train", *defaults, *flags)

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder with three environments of two classes of eight images."""
    rng = np.random.default_rng(0)
    for environment in ("day", "dusk", "night"):
        for name in CLASSES:
            folder = tmp_path / "pictures" / environment / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pictures"


ON_PICTURES = (
    *("--dataset", "pictures", "--checkpoint_freq", 1, "--evaluate", "selection", "--num_workers", 0),
    *("--hparams", '{"batch_size": 2, "input_size": 32, "data_augmentation": false}'),
)


def records_in(run):
    return [json.loads(line) for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--algorithm", "AgrSun"], "Algorithm not found: AgrSun. Did you mean AgrSum"),
        (["--dataset", "EmojiStyle"], "Dataset not found: EmojiStyle. Did you mean EmojiStyles?"),
        (["--dataset", "./nowhere"], "Dataset not found: ./nowhere."),
        (["--hparams", '{"batchsize": 8}'], "unknown hyper-parameter 'batchsize'. Did you mean batch_size?"),
        (["--hparams", '{"learning_rate": 8}'], "unknown hyper-parameter 'learning_rate'. Did you mean lr?"),
        (["--hparams", '{"featurizer": "alexnt"}'], "Featurizer not found: alexnt. Did you mean alexnet"),
        (["--hparams", "{batch_size: 8}"], "--hparams is not valid JSON"),
        (["--hparams", ""], "--hparams is not valid JSON"),
        (["--hparams", "8"], "--hparams takes a JSON object"),
        (["--hparams", '{"batch_size": "8"}'], 'batch_size takes a value of type int, not "8" (str)'),
        (["--hparams", '{"batch_size": 8.5}'], "batch_size takes a value of type int, not 8.5 (float)"),
        (["--hparams", '{"lr": null}'], "lr takes a value of type float, not null (NoneType)"),
        (["--hparams", '{"lr": true}'], "lr takes a value of type float, not true (bool)"),
        (["--hparams", '{"class_balanced": 1}'], "class_balanced takes a value of type bool, not 1 (int)"),
        (["--hparams", '{"lr": {"ERM": 1}}'], "lr takes a value of type float"),
        (["--test_envs", "3"], "--test_envs 3 is out of range: Debug28 has environments 0 (0), 1 (1), 2 (2)"),
        (["--test_envs=-1"], "--test_envs -1 is out of range"),
        (["--test_envs", "1", "1"], "--test_envs 1 1 names an environment twice"),
        (["--test_envs", "0", "1", "2"], "--test_envs holds out all environments of Debug28"),
        (["--dataset", "PACS"], "PACS needs --data_dir, the folder that holds its data"),
        (["--dataset", "PACS", "--data_dir", "nowhere"], "data directory nowhere does not exist"),
        (["--dataset", "PACS", "--data_dir", "."], "PACS does not exist or is not a folder; expected is"),
        (["--dataset", "RotatedMNIST", "--data_dir", "."], "MNIST"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here"),
        (["--device", "gpu"], "--device gpu cannot be used here"),
    ],
)
def test_invalid_flags_give_one_line_and_status_2(train, one_line_error, flags, message):
    assert message in one_line_error(train(*flags), 2)


def test_invalid_flags_leave_no_directory(train, tmp_path):
    train("--algorithm", "AgrSun")
    assert not list(tmp_path.iterdir())


def test_empty_and_incomplete_data_directories(train, tmp_path, one_line_error):
    (tmp_path / "empty").mkdir()
    assert "empty has no environments" in one_line_error(train("--dataset", "empty"), 2)
    (tmp_path / "empty" / "PACS").mkdir()
    message = one_line_error(train("--dataset", "PACS", "--data_dir", "empty"), 2)
    assert "it lacks art_painting, cartoon, photo, sketch" in message


def test_classes_that_differ_are_named(train, pictures, one_line_error):
    (pictures / "night" / "cat").rename(pictures / "night" / "cow")
    message = one_line_error(train("--dataset", "pictures"), 2)
    assert "day lacks cow; dusk lacks cow; night lacks cat; every environment needs every class" in message
    (pictures / "night" / "cow").rename(pictures / "night" / "cat")
    shutil.rmtree(pictures / "dusk" / "dog")
    (pictures / "dusk" / "dog").mkdir()
    message = one_line_error(train("--dataset", "pictures"), 2)
    assert "class dog of environment dusk has no images in pictures" in message


def test_an_environment_smaller_than_the_batch_size_gives_smaller_minibatches(train, tmp_path):
    done = train("--hparams", '{"batch_size": 64}')
    assert done.returncode == 0, done.stderr
    assert (
        "environment 1 has 13 training images, fewer than batch_size 64: its minibatches have 13"
        in done.stdout
    )
    assert len(records_in(tmp_path / "train_output")) == 2


def first_use(pictures):
    """An image that no evaluation reads, and the first step, at least 3, whose minibatch contains it."""
    hparams = '{"batch_size": 2, "input_size": 32, "data_augmentation": false}'
    run = build(TrainConfig(dataset=str(pictures), hparams=hparams, steps=12))
    part, sampler = run.minibatches.parts[0], run.minibatches.samplers[0]
    first = {}
    for step in range(12):
        for position in sampler.indices(step):
            first.setdefault(part.keys[position], step)
    index, step = next(item for item in first.items() if item[1] >= 3)
    return Path(run.dataset.datasets[1].paths()[index]), step


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_during_training_is_named(
    train, pictures, tmp_path, one_line_error, num_workers
):
    image, step = first_use(pictures)
    image.write_bytes(b"no image")
    from_files = ("--cache_dir", "none", "--num_workers", num_workers)
    message = one_line_error(train(*ON_PICTURES, "--steps", 12, *from_files), 1)
    assert f"image pictures/{image.relative_to(pictures)} cannot be read" in message
    assert message.endswith("replace it or delete it.")
    run = tmp_path / "train_output"
    assert [record["step"] for record in records_in(run)] == list(range(step))
    assert image.name in json.loads((run / "failed.json").read_text(encoding="utf-8"))["error"]


def test_an_image_that_cannot_be_read_by_the_cache_is_named(train, pictures, tmp_path, one_line_error):
    image = sorted(pictures.glob("*/*/*"))[7]
    image.write_bytes(b"no image")
    message = one_line_error(train(*ON_PICTURES, "--cache_dir", tmp_path / "cache"), 1)
    assert f"image pictures/{image.relative_to(pictures)} cannot be read" in message
    assert not list((tmp_path / "cache").glob("*.images"))


def test_a_diverged_run_fails_and_keeps_its_records(train, tmp_path, one_line_error):
    hparams = '{"lr": 1e30, "batch_size": 8}'
    done = train("--hparams", hparams, "--steps", 50, "--checkpoint_freq", 1)
    message = one_line_error(done, 1)
    assert "(ERM on Debug28): training diverged; try a smaller lr." in message
    run = tmp_path / "train_output"
    assert 2 <= len(records_in(run)) < 50
    assert not (run / "done").exists()
    assert "diverged" in (run / "err.txt").read_text(encoding="utf-8")
    assert "Traceback" not in (run / "err.txt").read_text(encoding="utf-8")


def test_an_output_directory_that_cannot_be_written(train, tmp_path, one_line_error):
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    for place in ("file", "file/run", "/proc/run"):
        message = one_line_error(train("--output_dir", place), 2)
        assert message.startswith(f"error: cannot write to output directory {place} (")
        assert message.endswith("choose another --output_dir.")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious"


def test_a_directory_with_results_of_another_run_is_rejected(train, tmp_path, one_line_error):
    assert train("--steps", 1).returncode == 0
    before = (tmp_path / "train_output" / "results.jsonl").read_bytes()
    message = one_line_error(train("--steps", 2), 2)
    assert "holds a run with other settings (steps was 1, now 2)" in message
    assert (tmp_path / "train_output" / "results.jsonl").read_bytes() == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system with a capacity of 48 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root's rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_run_on_a_full_disk_fails_and_keeps_its_records(train, small_disk, one_line_error):
    done = train("--output_dir", small_disk / "run", "--steps", 400, "--checkpoint_freq", 1)
    assert "No space left on device" in one_line_error(done, 1)
    kept = (small_disk / "run" / "results.jsonl").read_bytes()
    assert kept.endswith(b"\n")
    assert [record["step"] for record in records_in(small_disk / "run")] == list(range(kept.count(b"\n")))
    assert kept.count(b"\n") > 5


def test_a_sweep_on_a_full_disk_names_the_cause(forked_script, start_script, wait_until, small_disk):
    flags = ("--datasets", "Debug28", "--algorithms", "ERM", "--n_trials", 1, "--n_hparams", 1)
    flags += ("--skip_confirmation", "--skip_model_save", "--output_dir", small_disk / "sweep")
    done = forked_script("sweep", "launch", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 6 runs need about ")
    assert "free; free some space, choose another --output_dir" in done.stderr
    assert done.stderr.count("\n") == 1
    # There is enough space at the start, and none once the first run is training.
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    sweep = start_script("sweep", "launch", *flags, "--checkpoint_freq", 1, "--steps", 60)
    wait_until(lambda: list(small_disk.glob("sweep/*/results.jsonl")))
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    done = sweep.wait()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # The error message itself may not fit on the disk.
    failures = [line for line in done.stderr.splitlines() if line.startswith("FAILED ")]
    assert len(failures) == 6
    assert all("No space left on device" in line or "is the disk full?" in line for line in failures)
    assert "6 of 6 runs failed" in done.stderr


def test_invalid_lines_of_records_are_named_and_skipped(train, script, tmp_path):
    for target in (0, 1, 2):
        run = tmp_path / "sweep" / str(target)
        assert train("--test_envs", target, "--output_dir", run, "--checkpoint_freq", 1).returncode == 0
    results = tmp_path / "sweep" / "0" / "results.jsonl"
    good = results.read_text(encoding="utf-8").splitlines()
    results.write_text(
        "\n".join([good[0], "not ours", '{"step": 3}', *good[1:], good[0][:40]]), encoding="utf-8"
    )
    done = script("collect_results", "--input_dir", "sweep")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for line, problem in ((2, "not valid JSON"), (3, 'no "args"')):
        assert f"skipped lines that are not records ({problem}): sweep/0/results.jsonl:{line}" in done.stderr
    assert "sweep/0/results.jsonl:5" in done.stderr  # the torn one
    assert "Averages, model selection method: training-domain validation set" in done.stdout


def test_a_directory_without_results_is_named(script, tmp_path, one_line_error):
    (tmp_path / "sweep").mkdir()
    done = script("collect_results", "--input_dir", "sweep")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no record found in sweep ")
    assert "nowhere" in one_line_error(script("collect_results", "--input_dir", "nowhere"), 2)
