"""A run of a plugin's algorithm is killed, its code is edited, or its directory disappears."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from domainbed.training.claims import latest_claim
from domainbed.training.run_state import RunState, run_state

ROOT = Path(__file__).parents[2]

PLUGIN = '''
import os
import signal
from collections import deque
from pathlib import Path

import torch
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import concatenate, scalar
from domainbed.algorithms.erm import ERM
from torch.nn import functional as F

SCALE = 1.0


def scaled(loss, factor):
    return factor * loss


class Ring:
    last = 0.0


class Base(ERM):
    """The part that counts."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count, self.average, self.queue = 0, torch.zeros(()), deque(maxlen=3)

    def kill(self):
        """Kill this process like a power failure, once."""
        self.count += 1
        if self.count == 4 and Path("kill").exists():
            Path("kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@REGISTRY.register()
class Averaging(Base):
    """ERM with a loss that is divided by its average (made up in 2026)."""

    def update(self, minibatches, unlabeled=None):
        self.kill()
        x, y = concatenate(minibatches)
        loss = F.cross_entropy(self.predict(x), y)
        self.average = 0.5 * self.average + 0.5 * loss.detach()
        self.queue.append(float(self.average))
        self.step(scaled(loss, SCALE * self.count / sum(self.queue)))
        return {"loss": scalar(loss), "count": float(self.count)}


@REGISTRY.register()
class Unsaved(Averaging):
    """One that keeps an object which cannot be saved."""

    def update(self, minibatches, unlabeled=None):
        values = super().update(minibatches, unlabeled)
        self.ring = Ring()
        return values
'''

FLAGS = {
    **{"dataset": "Debug28", "steps": 7, "checkpoint_freq": 1, "test_envs": 0, "evaluate": "selection"},
    **{"hparams": '{"featurizer": "mlp", "mlp_width": 4, "batch_size": 4}', "checkpoint_every": 0},
}


@pytest.fixture
def run(tmp_path, forked_python):
    """`run(script, *flags)`: its completed process, with the plugin."""
    (tmp_path / "keeping.py").write_text(PLUGIN)

    def start(script, *flags):
        environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "DOMAINBED_PLUGINS": "keeping"}
        # Python compares seconds and sizes of files only.
        sys.modules.pop("keeping", None)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        return forked_python(["-m", f"domainbed.scripts.{script}", *map(str, flags)], tmp_path, environment)

    return start


@pytest.fixture
def train(run):
    """`train(directory, algorithm, *more)`: its completed process."""

    def start(directory, algorithm, *more):
        flags = [f"--{name}={value}" for name, value in FLAGS.items()]
        return run("train", *flags, "--algorithm", algorithm, "--output_dir", directory, *more)

    return start


def edit(tmp_path, *changes):
    text = (tmp_path / "keeping.py").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "keeping.py").write_text(text)


def killed(tmp_path, train, algorithm):
    """A run that was killed in its fourth update."""
    (tmp_path / "kill").touch()
    assert train("run", algorithm).returncode == -signal.SIGKILL
    assert run_state(tmp_path / "run") is RunState.INTERRUPTED
    return tmp_path / "run"


def summary(path):
    return json.loads((path / "run.json").read_text())


def test_counters_of_a_plugin_survive_a_kill(tmp_path, train, assert_same):
    assert train("straight", "Averaging").returncode == 0
    path = killed(tmp_path, train, "Averaging")
    ended = train("run", "Averaging")
    assert ended.returncode == 0, ended.stderr
    assert "Resumes after 3 of 7 updates." in ended.stdout
    assert_same(path, tmp_path / "straight")
    assert ended.stderr == ""


def test_what_cannot_be_saved_is_said_and_a_resume_starts_over(tmp_path, train):
    path = killed(tmp_path, train, "Unsaved")
    ended = train("run", "Unsaved")
    assert ended.returncode == 0, ended.stderr
    assert "starts from step 0, since the checkpoint lacks ring (keeping.Ring," in ended.stderr
    assert ended.stderr.count("cannot resume it, which would start from step 0") == 1
    assert "they cannot hold ring (keeping.Ring, created after construction) of Unsaved" in ended.stderr
    assert "Resumes" not in ended.stdout
    assert (path / "attempt-1" / "results.jsonl").exists()
    counts = [json.loads(line)["count"] for line in (path / "results.jsonl").read_text().splitlines()]
    assert counts == [1, 2, 3, 4, 5, 6, 7]


def test_a_resume_with_other_code_stops_unless_it_is_accepted(tmp_path, train):
    path = killed(tmp_path, train, "Averaging")
    began = summary(path)["code"]
    assert began.keys() == {"keeping.Base", "keeping.Averaging"}
    edit(tmp_path, ("self.count += 1", "self.count += 2"))
    refused = train("run", "Averaging")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "other code began: keeping.Averaging, keeping.Base changed since; use" in refused.stderr
    assert "--accept_changed_code" in refused.stderr
    ended = train("run", "Averaging", "--accept_changed_code")
    assert ended.returncode == 0, ended.stderr
    assert "Resumes after 3 of 7 updates." in ended.stdout
    assert summary(path)["code_changes"] == [{"from_update": 3, "before": began}]
    assert summary(path)["code"].keys() == began.keys()


@pytest.mark.slow
def test_without_a_checkpoint_a_run_begins_again_with_the_code_as_it_is(tmp_path, train):
    path = killed(tmp_path, train, "Averaging")
    for file in path.glob("checkpoint*"):
        file.unlink()
    edit(tmp_path, ("SCALE = 1.0", "SCALE = 2.0"))
    ended = train("run", "Averaging")
    assert ended.returncode == 0, ended.stderr
    assert "code_changes" not in summary(path)


@pytest.mark.slow
def test_a_sweep_passes_the_acceptance_on_and_its_jobs_keep_their_names(tmp_path, run):
    (tmp_path / "kill").touch()
    flags = [
        "launch",
        "--datasets",
        "Debug28",
        "--algorithms",
        "Averaging",
        "--n_trials",
        1,
        "--n_hparams",
        1,
    ]
    flags += ["--steps", 7, "--checkpoint_freq", 1, "--checkpoint_every", 0, "--single_test_envs"]
    flags += ["--test_envs", 0, "--hparams", FLAGS["hparams"], "--output_dir", "sweep", "--skip_confirmation"]
    flags += ["--workers", 1]
    assert run("sweep", *flags).returncode == 1
    (path,) = [each for each in (tmp_path / "sweep").iterdir() if each.is_dir()]
    edit(tmp_path, ("SCALE = 1.0", "SCALE = 2.0"))
    refused = run("sweep", *flags)
    assert refused.returncode == 1
    assert "other code began: keeping.Averaging changed since" in refused.stderr
    accepted = run("sweep", *flags, "--accept_changed_code")
    assert accepted.returncode == 0, accepted.stderr
    assert [each for each in (tmp_path / "sweep").iterdir() if each.is_dir()] == [path]
    assert summary(path)["code_changes"][0]["from_update"] == 3
    assert run_state(path) is RunState.DONE


@pytest.mark.slow
def test_a_deleted_directory_is_what_is_said(tmp_path, start_script, wait_until, flags):
    path = tmp_path / "run"
    worker = start_script("train", *flags(path))
    wait_until((path / "results.jsonl").exists)
    os.kill(worker.pid, signal.SIGSTOP)
    shutil.rmtree(path)
    os.kill(worker.pid, signal.SIGCONT)
    ended = worker.wait()
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"error: {path} was deleted while the run was at work; start the run again."
    )
    assert latest_claim(path)[1] is None
