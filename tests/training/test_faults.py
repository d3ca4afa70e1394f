"""Runs survive full disks, hanging processes and concurrent starts, and end with the same numbers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainbed.training import checkpoint, claims
from domainbed.training.run_state import RunState, run_state

ROOT = Path(__file__).parents[2]


class Disk:
    """A small file system."""

    def __init__(self, place):
        self.place = place

    def fill(self, leave):
        """Leave only `leave` bytes free."""
        free = os.statvfs(self.place)
        (self.place / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize - leave))

    def empty(self):
        """Free the space taken by `fill`."""
        (self.place / "filler").unlink()


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    disk.place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(disk.place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root's rights")
    yield disk
    subprocess.run(["umount", "-l", str(disk.place)], check=True)


def test_a_run_continues_without_room_for_checkpoints(
    start_script, flags, straight, disk, assert_same, wait_until
):
    path = disk.place / "run"
    worker = start_script("train", *flags(path))
    wait_until((path / checkpoint.PREVIOUS).exists)
    worker.send_signal(signal.SIGSTOP)
    disk.fill(leave=100_000)
    worker.send_signal(signal.SIGCONT)
    ended = worker.wait()
    assert "cannot write a checkpoint at step" in ended.stderr
    assert "No space left on device" in ended.stderr
    # There was room for the records, but not for the model, which is written last.
    assert ended.returncode == 1
    assert "No space left on device; earlier records are kept." in ended.stderr
    assert checkpoint.load(path) is not None
    disk.empty()
    ended = start_script("train", *flags(path)).wait()
    assert ended.returncode == 0, ended.stderr
    assert_same(path, straight)


def test_a_full_disk_ends_the_run_and_it_resumes_later(
    start_script, flags, straight, disk, assert_same, wait_until
):
    path = disk.place / "run"
    worker = start_script("train", *flags(path))
    wait_until((path / checkpoint.PREVIOUS).exists)
    worker.send_signal(signal.SIGSTOP)
    disk.fill(leave=0)
    worker.send_signal(signal.SIGCONT)
    ended = worker.wait()
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    disk.empty()
    ended = start_script("train", *flags(path)).wait()
    assert ended.returncode == 0, ended.stderr
    assert "Resumes after" in ended.stdout
    assert_same(path, straight)


def test_a_read_only_directory_ends_the_run_and_it_resumes_later(
    start_script, flags, straight, tmp_path, assert_same, wait_until
):
    path = tmp_path / "run"
    command = [sys.executable, "-m", "domainbed.scripts.train", *flags(path)]
    if not os.geteuid():  # permissions do not apply to root
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    worker = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((path / checkpoint.PREVIOUS).exists)
    path.chmod(0o555)
    _, errors = worker.communicate()
    path.chmod(0o755)
    assert worker.returncode == 1
    assert "cannot write a checkpoint at step" in errors
    assert "Permission denied; earlier records are kept." in errors
    assert "Traceback" not in errors
    ended = start_script("train", *flags(path)).wait()
    assert ended.returncode == 0, ended.stderr
    assert_same(path, straight)


def test_a_second_process_is_refused(start_script, flags, straight, tmp_path, assert_same, wait_until):
    path = tmp_path / "run"
    first = start_script("train", *flags(path))
    wait_until((path / "results.jsonl").exists)
    second = start_script("train", *flags(path)).wait()
    assert second.returncode == os.EX_TEMPFAIL
    assert f"is in use by process {first.pid} on" in second.stderr
    assert second.stderr.count("\n") == 1
    assert first.wait().returncode == 0
    assert_same(path, straight)


def test_a_hanging_process_is_replaced_and_writes_nothing_afterwards(
    start_script, flags, straight, tmp_path, assert_same, wait_until, monkeypatch
):
    for name, seconds in (("HEARTBEAT", 0.1), ("STALE", 1.0), ("WATCH", 1.0)):
        monkeypatch.setattr(claims, f"{name}_SECONDS", seconds)
    path = tmp_path / "run"
    frozen = start_script("train", *flags(path))
    wait_until((path / checkpoint.PREVIOUS).exists)
    frozen.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    successor = start_script("train", *flags(path)).wait()
    assert successor.returncode == 0, successor.stderr
    assert "Resumes after" in successor.stdout
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    frozen.send_signal(signal.SIGCONT)
    ended = frozen.wait()
    assert ended.returncode == os.EX_TEMPFAIL
    assert "was taken over" in ended.stderr
    log = path / "err.txt"  # the hanging process had it open
    after = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert {**before, log: 0, path / "out.txt": 0} == {**after, log: 0, path / "out.txt": 0}
    assert run_state(path) is RunState.DONE
    assert_same(path, straight)
