import shutil
from collections import namedtuple

import pytest

from domainbed.console import format_bytes
from domainbed.errors import UsageError
from domainbed.sweep.disk_space import bytes_in, check_disk_space
from domainbed.sweep.job import Job

Usage = namedtuple("Usage", "total used free")
ARGS = {"dataset": "Debug224", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0}
RESNET50 = 94e6


def set_free_space(monkeypatch, free, total=10**12):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total, 0, free))


def jobs(number, **args):
    return [Job(ARGS | {"seed": seed} | args, "nowhere") for seed in range(number)]


def test_the_estimate_counts_a_model_per_run_and_checkpoints_of_running_runs(tmp_path, monkeypatch, capsys):
    expected = 10 * RESNET50 + 2 * 2 * 3 * RESNET50
    set_free_space(monkeypatch, int(1.1 * expected))
    check_disk_space(tmp_path / "not" / "there", jobs(10), concurrency=2)
    assert capsys.readouterr().err == ""
    set_free_space(monkeypatch, int(0.9 * expected))
    check_disk_space(tmp_path, jobs(10), concurrency=2)
    assert capsys.readouterr().err.startswith("warning: 10 runs need about 2.08 GB in ")
    check_disk_space(tmp_path, jobs(10, skip_model_save=True), concurrency=2)
    assert capsys.readouterr().err == ""
    set_free_space(monkeypatch, int(0.4 * expected))
    with pytest.raises(
        UsageError, match="free some space, choose another --output_dir, or use --skip_model_save"
    ):
        check_disk_space(tmp_path, jobs(10), concurrency=2)


def test_a_file_system_that_reports_no_size_is_not_checked(tmp_path, monkeypatch):
    set_free_space(monkeypatch, free=0, total=0)
    check_disk_space(tmp_path, jobs(1), concurrency=1)


def test_a_launch_without_enough_space_writes_nothing(tmp_path, monkeypatch, sweep):
    set_free_space(monkeypatch, free=1000)
    rejected = sweep("launch", "--steps", 1)
    assert rejected.returncode == 2
    assert rejected.stderr.startswith("error: 3 runs need about ")
    assert rejected.stderr.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_the_size_of_directories_includes_subdirectories(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 1000)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 500)
    (tmp_path / "a" / "link").symlink_to("/")
    size = bytes_in([tmp_path / "a", tmp_path / "gone"])
    assert size - 1500 == (tmp_path / "a" / "link").lstat().st_size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.6e9, "5.6 GB"), (2.5e12, "2.5 TB")]
)
def test_sizes_as_text(size, text):
    assert format_bytes(size) == text


def test_the_estimate_needs_no_pretrained_weights(tmp_path, monkeypatch):
    hparams = '{"featurizer": "alexnet", "weights_file": "missing.pth"}'
    set_free_space(monkeypatch, free=10**12)
    check_disk_space(tmp_path, jobs(1, hparams=hparams), concurrency=1)
