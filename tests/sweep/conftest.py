"""Sweeps over Debug28 in real processes."""

import contextlib
import json
import os
import signal
import tarfile
from pathlib import Path

import pytest

from domainbed.training import claims

ROOT = Path(__file__).parents[2]
SMALL = '{"batch_size": 8, "featurizer": "small_cnn"}'
FLAGS = (
    *("--datasets", "Debug28", "--n_hparams", 1, "--n_trials", 1, "--single_test_envs"),
    *("--hparams", SMALL, "--skip_model_save", "--skip_confirmation", "--output_dir", "sweep"),
)


@pytest.fixture
def unpack_released(tmp_path, monkeypatch):
    """`unpack_released(name)`: unpack tests/data/released/NAME.tar.xz into a new current directory."""

    def unpack(name):
        with tarfile.open(ROOT / "tests" / "data" / "released" / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        monkeypatch.chdir(tmp_path)
        # Claims in it come from another host; a test need not watch one for half a minute.
        monkeypatch.setattr(claims, "WATCH_SECONDS", 0.1)
        return tmp_path

    return unpack


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Folders of the datasets of image files, without images, and MNIST's files, without content."""
    from domainbed.datasets import REGISTRY

    root = tmp_path_factory.mktemp("data")
    for name in ("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet"):
        for environment in REGISTRY[name].FOLDERS.values():
            (root / REGISTRY[name].FOLDER / environment / "dog").mkdir(parents=True)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").touch()
        (raw / f"{part}-labels-idx1-ubyte").touch()
    return root


@pytest.fixture
def sweep(forked_script):
    """`sweep(command, *flags)`: the sweep script on Debug28, by default with three runs of ERM."""

    def run(command, *flags, **options):
        flags = flags if "--algorithms" in flags else ("--algorithms", "ERM", *flags)
        return forked_script("sweep", command, *FLAGS, *flags, **options)

    return run


@pytest.fixture
def start_sweep(start_script):
    """`start_sweep(*flags)`: a launch in its own session, killed at the end of the test."""
    started = []

    def start(*flags):
        flags = ("launch", *FLAGS, "--algorithms", "ERM", *flags)
        started.append(start_script("sweep", *flags, new_session=True))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            process.wait()


@pytest.fixture
def training_runs(tmp_path):
    """`training_runs()`: directory of each run that is training, by process id."""

    def runs():
        found = {}
        for marker in tmp_path.glob("sweep/*/claim-*.json"):
            with contextlib.suppress(OSError, ValueError):
                if (marker.parent / "results.jsonl").stat().st_size:
                    found[json.loads(marker.read_text(encoding="utf-8"))["pid"]] = marker.parent
        return found

    return runs


@pytest.fixture
def records_of():
    """`records_of(run_directory)`: its records without time and memory."""

    def read(path):
        lines = (path / "results.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [{k: v for k, v in r.items() if k not in ("step_time", "mem_gb")} for r in records]

    return read
