"""Runs where something is missing: shared memory, a home directory, a user's name, processes of their own."""

import ctypes
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError

ROOT = Path(__file__).parents[2]
CHANGING = ("step_time", "mem_gb", "args")

_CLONE_NEWNS = 0x00020000  # of linux/sched.h
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 4  # of linux/prctl.h and linux/securebits.h
UNKNOWN_USER = 54321

# Python 3.12 warns of forks in multi-threaded processes.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="this takes root's rights")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a run that reads three environments of noisy images from their files."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images") / "folder"
    for environment in ("art", "photo", "sketch"):
        for label in ("cat", "dog"):
            directory = folder / environment / label
            directory.mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    return {
        "dataset": str(folder),
        "cache_dir": "none",
        "num_workers": 2,
        "steps": 9,
        "checkpoint_freq": 3,
        "holdout_fraction": 0.4,
        "hparams": {"featurizer": "mnist_cnn", "batch_size": 4, "input_size": 32},
    }


def results(path):
    """Records without times."""
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


@pytest.fixture(scope="module")
def expected(settings, tmp_path_factory):
    """Directory of the same run without loader processes."""
    path = tmp_path_factory.mktemp("expected") / "run"
    domainbed.train(output_dir=path, **settings | {"num_workers": 0})
    return path


def assert_same_run(path, expected):
    """The same records and weights, to the bit."""
    assert results(path) == results(expected)
    assert len(results(path)) == 4
    one, other = (
        torch.load(each / "model.pkl", weights_only=True)["model_dict"] for each in (path, expected)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@as_root
def test_a_run_continues_without_loader_processes_where_shared_memory_is_small(
    settings, expected, forked, tmp_path
):
    def train():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        # Enough for the semaphores of the loader processes, but not for a minibatch of 96 KiB.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"], check=True)
        domainbed.train(output_dir=tmp_path / "run", **settings)

    done = forked(train)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "run" / "err.txt").read_text().splitlines()
    assert line.startswith("loader processes failed (")  # torch words the reason differently in each version
    assert "--ipc=host" in line
    assert "--num_workers 0" in line
    assert_same_run(tmp_path / "run", expected)


def test_a_loader_process_killed_during_a_run_is_noticed_and_changes_no_number(
    settings, tmp_path, monkeypatch, caplog
):
    class Killer(ERM):
        """Kills a loader process, if there is one, in the sixth update."""

        updates = 0

        def update(self, minibatches, unlabeled=None):
            self.updates += 1
            if self.updates == 6 and multiprocessing.active_children():
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
            return super().update(minibatches, unlabeled)

    monkeypatch.setitem(REGISTRY, "Killer", Killer)
    for name, number in (("expected", 0), ("run", 2)):
        domainbed.train(algorithm="Killer", output_dir=tmp_path / name, **settings | {"num_workers": number})
    (line,) = caplog.messages
    assert line.startswith("loader processes failed (one of them has died); this process now reads")
    assert_same_run(tmp_path / "run", tmp_path / "expected")


def test_a_run_in_a_daemonic_worker_of_a_pool_does_without_loader_processes(settings, expected, tmp_path):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(train_there, (settings | {"output_dir": str(tmp_path / "run")},))
    (line,) = (tmp_path / "run" / "err.txt").read_text().splitlines()
    assert line.startswith("this process is a daemonic worker of a pool, which cannot start loader processes")
    assert_same_run(tmp_path / "run", expected)


def train_there(settings):
    """Train, in a process of a pool."""
    logging.getLogger().handlers.clear()  # pytest's
    domainbed.train(**settings)


def test_a_second_thread_that_trains_is_refused_and_the_first_has_its_own_numbers(tmp_path, monkeypatch):
    started, go_on = threading.Event(), threading.Event()

    class Waiting(ERM):
        def update(self, minibatches, unlabeled=None):
            started.set()
            assert go_on.wait(60)
            return super().update(minibatches, unlabeled)

    monkeypatch.setitem(REGISTRY, "Waiting", Waiting)
    debug = {"dataset": "Debug28", "steps": 4, "checkpoint_freq": 1, "hparams": {"batch_size": 8}}
    thread = threading.Thread(
        target=lambda: domainbed.train(algorithm="Waiting", output_dir=tmp_path / "first", **debug)
    )
    thread.start()
    assert started.wait(60)
    stdout = sys.stdout
    with pytest.raises(UsageError, match=r"another thread of this process is training, .* of its own$"):
        domainbed.train(algorithm="ERM", output_dir=tmp_path / "second", **debug)
    assert sys.stdout is stdout
    assert not (tmp_path / "second").exists()
    go_on.set()
    thread.join()
    domainbed.train(algorithm="ERM", output_dir=tmp_path / "alone", **debug)
    assert results(tmp_path / "first") == results(tmp_path / "alone")


def test_a_batch_norm_over_a_single_value_is_refused_in_one_line(settings):
    hparams = {"batch_size": 1, "featurizer": "resnet18", "pretrained": False, "input_size": 32}
    with pytest.raises(
        UsageError, match=r"a batch norm got .* batch_size of at least 2, .* or freeze_bn true"
    ):
        domainbed.train(algorithm="AgrSum", **settings | {"steps": 1, "num_workers": 0, "hparams": hparams})


def become_unknown(home):
    """Become a user whom the system does not know, with `home` as home directory.

    Capabilities stay, so that this user can read Python's files.
    """
    assert ctypes.CDLL(None).prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP) == 0
    os.setuid(UNKNOWN_USER)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "DOMAINBED_CACHE", "TORCH_HOME"):
        os.environ.pop(name, None)
    if home is not None:
        os.environ["HOME"] = home


@as_root
@pytest.mark.parametrize(
    ("home", "message"),
    [
        (None, "images are decoded at each access, because there is no home directory for their cache; set "),
        pytest.param(
            *("/proc", "images are decoded at each access, because the cache cannot be used (/proc/.cache"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no home", "read-only home"],
)
def test_an_unknown_user_without_a_home_can_train(settings, expected, forked, tmp_path, home, message):
    def train():
        become_unknown(home)
        domainbed.train(output_dir=tmp_path / "run", **settings | {"cache_dir": None})

    done = forked(train)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "run" / "err.txt").read_text().splitlines()
    assert line.startswith(message)
    assert_same_run(tmp_path / "run", expected)


@as_root
def test_weights_without_a_home_are_refused_and_leave_no_folder_called_tilde(forked, tmp_path):
    def train():
        become_unknown(None)
        with pytest.raises(
            UsageError, match="there is no home directory, in which torch keeps weights; set "
        ):
            domainbed.train(dataset="Debug224", steps=1, hparams={"featurizer": "resnet18"})

    done = forked(train)
    assert done.returncode == 0, done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name == "~"]


@as_root
@pytest.mark.slow
def test_an_unknown_user_can_launch_a_sweep_and_write_a_page_with_a_notebooks_backend(tmp_path):
    tmp_path.chmod(0o777)
    flags = ("--datasets=Debug28", "--algorithms", "ERM", "AgrSum", "--n_trials=2", "--n_hparams=1")
    flags += ("--single_test_envs", "--steps=2", "--skip_confirmation", "--output_dir=sweep")
    for script, *arguments in (
        ("sweep", "launch", *flags),
        ("collect_results", "--input_dir=sweep", "--paired", "--html=page.html"),
    ):
        # It may read what root may read, and write what others may write.
        rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        done = subprocess.run(
            ["setpriv", f"--reuid={UNKNOWN_USER}", "--clear-groups", *rights]
            + [sys.executable, "-m", f"domainbed.scripts.{script}", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_run_whose_output_nobody_reads_any_more_ends_with_one_line(tmp_path, forked):
    def train():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        from domainbed.errors import run_script
        from domainbed.training.train_command import main

        run_script(main, ["--dataset=Debug28", "--steps=2", f"--output_dir={tmp_path / 'run'}"])

    done = forked(train)
    assert done.returncode == 1
    assert done.stderr.startswith("error: whatever read this run's output, such as head, has closed the pipe")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_with_few_open_files_has_the_same_numbers(settings, expected, forked, tmp_path):
    import resource

    def train():
        used = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
        domainbed.train(output_dir=tmp_path / "run", **settings)

    done = forked(train)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", expected)
