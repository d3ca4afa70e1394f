"""A run that was killed or stopped resumes, and ends with the same numbers."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed.algorithms import ALGORITHMS, REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import RunError, UsageError
from domainbed.predictions import accuracy, read_predictions
from domainbed.training import checkpoint, loop
from domainbed.training.config import TrainConfig
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir
from domainbed.training.run_state import RunState, run_state
from domainbed.training.stop_requests import AFTER_STEP


def updates_in(path):
    content = checkpoint.load(path)
    return 0 if content is None else content["updates"]


def kill_repeatedly(start_script, wait_until, flags, kills):
    """Kill and relaunch a run, then let it finish.

    Returns: for each kill, the updates in the checkpoint, and the updates and milliseconds waited for.
    """
    (path,) = (flag.removeprefix("--output_dir=") for flag in flags if flag.startswith("--output_dir="))
    draws, path = random.Random(0), Path(path)
    rows = []
    while len(rows) < kills:
        worker = start_script("train", *flags)
        before = updates_in(path)
        # Few enough updates that the run does not finish before the last kill. The time falls within one.
        updates, milliseconds = draws.randrange(1, 100 // kills + 1), draws.randrange(10)
        wait_until(lambda: updates_in(path) >= before + updates)  # noqa: B023
        time.sleep(milliseconds / 1000)
        worker.send_signal(signal.SIGKILL)
        assert worker.wait().returncode == -signal.SIGKILL
        rows.append((updates_in(path), updates, milliseconds))
        assert rows[-1][0] > before
        assert run_state(path) is RunState.INTERRUPTED
    ended = start_script("train", *flags).wait()
    assert ended.returncode == 0, ended.stderr
    return rows


def test_five_kills_change_no_number(start_script, wait_until, flags, tmp_path, straight, assert_same):
    kill_repeatedly(start_script, wait_until, flags(tmp_path / "run"), 5)
    assert_same(tmp_path / "run", straight)
    assert not list((tmp_path / "run").glob("checkpoint*"))
    assert not list((tmp_path / "run").glob("attempt-*"))


@pytest.mark.slow
def test_fifty_kills_change_no_number(start_script, wait_until, flags, tmp_path, straight, assert_same):
    print(kill_repeatedly(start_script, wait_until, flags(tmp_path / "run"), 50))
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 3), (signal.SIGUSR1, 3), (signal.SIGINT, 130)]
)
def test_a_signal_stops_the_run_with_a_checkpoint_and_it_resumes(
    start_script, wait_until, flags, tmp_path, straight, assert_same, number, status
):
    path = tmp_path / "run"
    worker = start_script("train", *flags(path, checkpoint_every=60))
    wait_until((path / "results.jsonl").exists)
    worker.send_signal(number)
    ended = worker.wait()
    assert ended.returncode == status
    assert (AFTER_STEP in ended.stderr) == (number == signal.SIGINT)
    stopped = RunState.INTERRUPTED if number == signal.SIGINT else RunState.PREEMPTED
    assert run_state(path) is stopped
    done = updates_in(path)
    assert 0 < done < 200
    ended = start_script("train", *flags(path, checkpoint_every=60)).wait()
    assert ended.returncode == 0, ended.stderr
    assert f"Resumes after {done} of 200 updates." in ended.stdout
    assert_same(path, straight)


class Sleeping(ERM):
    """An update takes ten minutes."""

    def update(self, minibatches, unlabeled=None):
        Path("in_update").touch()
        time.sleep(600)


def test_ctrl_c_is_answered_during_a_step_and_a_second_one_ends_it(
    start_script, wait_until, tmp_path, monkeypatch
):
    monkeypatch.setitem(REGISTRY, "Sleeping", Sleeping)
    worker = start_script("train", "--dataset", "Debug28", "--algorithm", "Sleeping", "--output_dir", "run")
    wait_until((tmp_path / "in_update").exists)
    worker.send_signal(signal.SIGINT)
    stderr = worker.ends[2]
    wait_until(lambda: AFTER_STEP in stderr.read_text())
    assert worker.is_running()
    worker.send_signal(signal.SIGINT)
    ended = worker.wait()
    assert ended.returncode == 130
    last = "Interrupted. Run the same command to resume from the last checkpoint, if there is one."
    assert [line for line in ended.stderr.splitlines() if line] == [AFTER_STEP, last]
    assert run_state(tmp_path / "run") is RunState.INTERRUPTED


def test_signals_that_arrive_while_the_run_stops_do_not_keep_it_from_recording_why(
    start_script, wait_until, flags, tmp_path
):
    # Slurm signals a whole job step while the worker in it signals its runs; and Linux signals a run once for
    # each thread of the sweep that dies after its main thread (prctl(2), PR_SET_PDEATHSIG).
    path = tmp_path / "run"
    worker = start_script("train", *flags(path))
    wait_until((path / "results.jsonl").exists)
    while worker.is_running():
        worker.send_signal(signal.SIGTERM)
    worker.wait()
    assert run_state(path) is RunState.PREEMPTED


class StopAfter:
    """Stop requests that raise Preempted at the given call of `check`."""

    def __init__(self, calls):
        self.calls = calls

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def check(self):
        self.calls -= 1
        if self.calls == 0:
            raise loop.Preempted("stopped")


SMALL = {"dataset": "Debug28", "steps": 6, "checkpoint_freq": 2, "test_envs": [0], "evaluate": "all"}
SMALL |= {"save_predictions": "all"}


def attempt(path, monkeypatch=None, stop_at=0, **settings):
    """Train a run in this process and stop it at call number `stop_at` of `check` (0: never)."""
    hparams = '{"batch_size": 4, "featurizer": "small_cnn"}'
    config = TrainConfig(**{**SMALL, "hparams": hparams, **settings, "output_dir": str(path)})
    if stop_at:
        monkeypatch.setattr(loop, "StopRequests", lambda notice: StopAfter(stop_at))
    kept = {name: value for name, value in config.recorded().items() if name != "output_dir"}
    try:
        with RunDir(path, kept, config.restart) as directory:
            if not directory.finished:
                loop.train(build(config), directory)
    except loop.Preempted:
        assert stop_at
    finally:
        if stop_at:
            monkeypatch.undo()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_resumes_in_the_middle_and_its_predictions_give_the_recorded_accuracies(
    name, tmp_path, monkeypatch, assert_same
):
    attempt(tmp_path / "straight", algorithm=name)
    attempt(tmp_path / "run", monkeypatch, stop_at=8, algorithm=name)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    assert 0 < updates_in(tmp_path / "run") < 6
    attempt(tmp_path / "run", algorithm=name)
    assert_same(tmp_path / "run", tmp_path / "straight")
    predictions = read_predictions(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert predictions.steps == [record["step"] for record in records] == [0, 2, 4, 5]
    for record in records:
        accuracies = {name: accuracy(predictions.part(name, record["step"])) for name in predictions.parts}
        assert accuracies == {name: record[f"{name}_acc"] for name in record["sizes"]}


def test_a_run_resumes_with_its_acceleration_options(tmp_path, monkeypatch, assert_same):
    settings = {"algorithm": "AgrRand", "precision": "bf16", "channels_last": True}
    attempt(tmp_path / "straight", **settings)
    attempt(tmp_path / "run", monkeypatch, stop_at=8, **settings)
    with pytest.raises(UsageError, match="precision was 'bf16', now 'fp32'"):
        attempt(tmp_path / "run", algorithm="AgrRand", channels_last=True)
    attempt(tmp_path / "run", **settings)
    assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("averaging", ["none", "sma"])
def test_a_run_with_cached_outputs_of_frozen_stages_resumes(tmp_path, monkeypatch, assert_same, averaging):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.pth")
    hparams = {"batch_size": 4, "featurizer": "timm:test_resnet", "weights_file": str(tmp_path / "mine.pth")}
    hparams |= {"freeze": "layer2", "weight_averaging": averaging}
    settings = {"algorithm": "AgrRand", "hparams": json.dumps(hparams), "cache_dir": str(tmp_path / "cache")}
    attempt(tmp_path / "straight", **settings)
    assert list((tmp_path / "cache").glob("*.outputs"))
    attempt(tmp_path / "run", monkeypatch, stop_at=8, **settings)
    assert 0 < updates_in(tmp_path / "run") < 6
    attempt(tmp_path / "run", **settings)
    assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("averaging", ["sma", "swad"])
def test_a_run_can_be_stopped_at_any_moment_even_during_evaluations(
    tmp_path, monkeypatch, assert_same, averaging
):
    hparams = {
        "batch_size": 4,
        "featurizer": "small_cnn",
        "weight_averaging": averaging,
        "swad_n_s": 1,
        "swad_n_e": 2,
    }
    settings = {"algorithm": "AgrRand", "hparams": json.dumps(hparams), "steps": 7}
    attempt(tmp_path / "straight", **settings)
    stops = 0
    for stop_at in range(1, 70, 5):
        path = tmp_path / f"run{stop_at}"
        attempt(path, monkeypatch, stop_at, **settings)
        stops += run_state(path) is RunState.PREEMPTED
        attempt(path, **settings)
        assert_same(path, tmp_path / "straight")
    assert stops > 5


def test_a_swad_run_of_an_earlier_release_keeps_equal_weights(tmp_path, monkeypatch, assert_same):
    hparams = {"batch_size": 4, "featurizer": "mlp", "weight_averaging": "swad", "swad_n_s": 1, "swad_r": 9.0}
    settings = {"algorithm": "ERM", "hparams": json.dumps(hparams), "steps": 9}
    attempt(tmp_path / "straight", earlier_swad=True, **settings)
    attempt(tmp_path / "public", **settings)
    path = tmp_path / "run"
    attempt(path, monkeypatch, stop_at=30, earlier_swad=True, **settings)
    # Earlier releases had neither the hyper-parameter nor provisional checkpoints.
    summary = json.loads((path / "run.json").read_text())
    assert summary["hparams"].pop("swad_counting") == "equal"
    (path / "run.json").write_text(json.dumps(summary))
    content = checkpoint.load(path)
    assert content["averaging"].pop("provisional") == []
    checkpoint.save(path, content)
    attempt(path, **settings)
    assert_same(path, tmp_path / "straight")
    files = [torch.load(tmp_path / name / "model.pkl", weights_only=True) for name in ("straight", "public")]
    weights = [file["model_dict"]["network.1.weight"] for file in files]
    assert not torch.equal(*weights)


def group(name):
    if name.endswith("_acc"):
        return "accuracy"
    return "metrics" if name.startswith("env") else "training"


def test_tensorboard_shows_every_step_once(tmp_path, monkeypatch, shown):
    settings = {"algorithm": "ERM", "tensorboard": True, "steps": 7}
    attempt(tmp_path / "run", monkeypatch, stop_at=22, **settings)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    assert 1 < len({step for _, step in shown(tmp_path / "run")}) < 4
    attempt(tmp_path / "run", **settings)
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    expected = {
        (f"{group(name)}/{name}", record["step"]): value
        for record in map(json.loads, lines)
        for name, value in record.items()
        if isinstance(value, int | float) and name != "step"
    }
    found = {key: event.value for key, event in shown(tmp_path / "run").items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert {step for _, step in found} == {0, 2, 4, 6}


def test_damaged_checkpoints_fall_back_to_the_previous_one_or_to_the_start(
    tmp_path, monkeypatch, assert_same, caplog
):
    settings = {"algorithm": "AgrRand", "checkpoint_every": 0}
    attempt(tmp_path / "straight", **settings)
    for damaged, attempts in (([checkpoint.NAME], 0), ([checkpoint.NAME, checkpoint.PREVIOUS], 1)):
        path = tmp_path / str(attempts)
        attempt(path, monkeypatch, stop_at=22, **settings)
        for name in damaged:
            (path / name).write_bytes((path / name).read_bytes()[:-100])
        attempt(path, **settings)
        assert "cannot use checkpoint" in caplog.text
        assert len(list(path.glob("attempt-*"))) == attempts
        assert_same(path, tmp_path / "straight")


def test_a_checkpoint_of_other_state_is_refused_in_one_line_and_restart_starts_over(tmp_path, monkeypatch):
    path = tmp_path / "run"
    attempt(path, monkeypatch, stop_at=12, algorithm="ERM")
    content = checkpoint.load(path)
    del content["algorithm"]["parts"]["optimizer"]
    checkpoint.save(path, content)
    with pytest.raises(UsageError, match=r"another version .* \('optimizer'\); .* --restart") as refused:
        attempt(path, algorithm="ERM")
    assert "\n" not in str(refused.value)
    assert (path / "results.jsonl").read_text()
    attempt(path, algorithm="ERM", restart=True)
    assert run_state(path) is RunState.DONE


class Counter(ERM):
    """ERM that counts its updates in a plain attribute."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count = 0

    def update(self, minibatches, unlabeled=None):
        self.count += 1
        return {**super().update(minibatches, unlabeled), "count": float(self.count)}


def test_a_plugin_is_warned_of_a_checkpoint_that_is_too_old_to_have_its_attributes(
    tmp_path, monkeypatch, caplog
):
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as registered:
        registered.setitem(REGISTRY, "Counter", Counter)
        attempt(path, monkeypatch, stop_at=12, algorithm="Counter")
    content = checkpoint.load(path)
    done = content["updates"]
    del content["attributes"]
    checkpoint.save(path, content)
    monkeypatch.setitem(REGISTRY, "Counter", Counter)
    attempt(path, algorithm="Counter")
    assert "an older version wrote the checkpoint: attributes of Counter that are not in STATE" in caplog.text
    last = json.loads((path / "results.jsonl").read_text().splitlines()[-1])
    assert last["count"] == 6 - done


def test_incomplete_and_foreign_lines_of_records_do_not_matter(tmp_path, monkeypatch, assert_same):
    attempt(tmp_path / "straight", algorithm="ERM")
    path = tmp_path / "run"
    attempt(path, monkeypatch, stop_at=12, algorithm="ERM")
    content = (path / "results.jsonl").read_bytes()
    (path / "results.jsonl").write_bytes(b"foreign\n" + content + b'{"step": 4, "los')
    attempt(path, algorithm="ERM")
    lines = (path / "results.jsonl").read_text().splitlines()
    assert lines.pop(0) == "foreign"
    (path / "results.jsonl").write_text("\n".join(lines))
    assert_same(path, tmp_path / "straight")


def test_missing_records_are_reported(tmp_path, monkeypatch):
    path = tmp_path / "run"
    attempt(path, monkeypatch, stop_at=12, algorithm="ERM")
    (path / "results.jsonl").write_text("")
    with pytest.raises(RunError, match="lacks the record of step 0"):
        attempt(path, algorithm="ERM")


def test_a_process_that_lost_its_claim_writes_nothing(tmp_path):
    """As after a hang, during which another process has taken over."""
    run = build(TrainConfig(**SMALL, output_dir=str(tmp_path)))
    with RunDir(tmp_path, {}) as directory:
        directory.write_summary({}, machine={})
        before = sorted(tmp_path.iterdir())
        (tmp_path / "claim-2.json").write_text("{}")
        with pytest.raises(RunError, match="taken over"):
            loop.train(run, directory)
    assert set(tmp_path.iterdir()) == {*before, tmp_path / "claim-2.json"}


def test_a_run_whose_directory_was_deleted_says_so(tmp_path):
    run = build(TrainConfig(**SMALL, output_dir=str(tmp_path / "run")))
    with RunDir(tmp_path / "run", {}) as directory:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(RunError, match="run was deleted while the run was at work"):
            loop.train(run, directory)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_the_same_augmented_images(tmp_path, monkeypatch, assert_same, num_workers):
    rng = np.random.default_rng(0)
    for place in (f"{environment}/{label}" for environment in "abc" for label in ("cat", "dog")):
        (tmp_path / "images" / place).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / place / f"{i}.png")
    hparams = {"batch_size": 4, "featurizer": "small_cnn", "input_size": 32}
    settings = {"dataset": str(tmp_path / "images"), "hparams": json.dumps(hparams), "algorithm": "AgrSum"}
    attempt(tmp_path / "straight", **settings, num_workers=0)
    attempt(tmp_path / "run", monkeypatch, stop_at=10, **settings, num_workers=num_workers)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    attempt(tmp_path / "run", **settings, num_workers=num_workers)
    assert_same(tmp_path / "run", tmp_path / "straight")
