"""Records are complete, and their state survives a stop during the evaluation."""

import json

import pytest
import torch

from domainbed.errors import RunError
from domainbed.metrics import METRICS
from domainbed.training import recorder
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import PartOutputs
from domainbed.training.recorder import Recorder, Stopwatch
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir
from domainbed.training.stop_requests import Preempted


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(recorder, "time", clock)
    return clock


class FixedEvaluator:
    """Has the same outputs at every step, after a call of `before_batch`: one of two samples is correct."""

    parts = {}
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])

    def evaluate(self, consumers, step, before_batch):
        before_batch()
        for consumer in consumers:
            consumer(PartOutputs("env0_in", self.logits, torch.tensor([0, 1])))


@pytest.fixture
def run():
    return build(TrainConfig(dataset="Debug28", steps=10, checkpoint_freq=4))


@pytest.fixture
def directory(tmp_path):
    with RunDir(tmp_path, {}) as directory:
        yield directory


def records_of(directory):
    return [json.loads(line) for line in (directory.path / "results.jsonl").read_text().splitlines()]


def stop():
    raise Preempted("stopped")


def go_on():
    pass


def test_a_stopwatch_adds_up_its_intervals(clock):
    watch = Stopwatch()
    watch.stop()
    watch.start()
    clock.now = 2.0
    watch.stop()
    clock.now = 5.0
    watch.start()
    clock.now = 6.5
    watch.stop()
    assert watch.seconds == 3.5


def test_a_record_has_means_of_logged_values_and_the_time_of_an_update(clock, run, directory):
    records = Recorder(run, directory, FixedEvaluator())
    assert [step for step in range(-1, 10) if records.is_due(step)] == [0, 4, 8, 9]
    records.stopwatch.start()
    for loss in (1.0, 2.0, 6.0):
        records.log({"loss": loss})
        clock.now += 0.5
    records.begin(4, go_on)
    clock.now += 100
    records.finish(go_on)
    (record,) = records_of(directory)
    assert (record["loss"], record["step_time"], record["step"], record["env0_in_acc"]) == (3.0, 0.5, 4, 0.5)
    assert record["sizes"]["env1_in"] == 13
    assert [step for step in range(-1, 10) if records.is_due(step)] == [8, 9]


def test_a_record_that_was_begun_before_a_stop_is_finished_later(clock, run, directory):
    first = Recorder(run, directory, FixedEvaluator())
    first.stopwatch.start()
    first.log({"loss": 2.0})
    clock.now = 3.0
    first.begin(0, go_on)
    clock.now = 50.0  # the evaluation is not part of the time of updates
    with pytest.raises(Preempted):
        first.finish(stop)
    first.stopwatch.stop()
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["seconds"], state["logged"], state["recorded"]) == (0.0, {}, -1)

    second = Recorder(run, directory, FixedEvaluator())
    second.load_state_dict(state)
    second.stopwatch.start()
    second.begin(0, go_on)
    second.finish(go_on)
    (record,) = records_of(directory)
    assert (record["loss"], record["step_time"], record["step"]) == (2.0, 3.0, 0)


def test_a_loss_that_is_not_finite_is_an_error_after_it_was_recorded(run, directory):
    records = Recorder(run, directory, FixedEvaluator())
    records.log({"loss": float("nan")})
    records.begin(0, go_on)
    with pytest.raises(RunError, match=r"loss is nan at step 0 .* try a smaller lr"):
        records.finish(go_on)
    assert len(records_of(directory)) == 1


class ImpossibleLabel(FixedEvaluator):
    """Gives the label of one sample probability 0."""

    logits = torch.tensor([[1.0, -torch.inf], [1.0, -torch.inf]])


def test_metrics_are_recorded_but_not_printed_and_an_infinite_one_stops_no_run(
    run, directory, capsys, monkeypatch
):
    monkeypatch.setitem(METRICS, "loss_like", METRICS["nll"])
    records = Recorder(run, directory, ImpossibleLabel())
    records.begin(0, go_on)
    records.finish(go_on)
    (record,) = records_of(directory)
    assert record["env0_in_nll"] == record["env0_in_loss_like"] == float("inf")
    assert (record["env0_in_balanced"], record["env0_in_worst"], record["env0_in_acc"]) == (0.5, 0.0, 0.5)
    header, values = capsys.readouterr().out.splitlines()
    assert header.split() == ["env0_in_acc", "epoch", "mem_gb", "step", "step_time"]
    assert len(values.split()) == 5


def test_rows_have_five_digits_and_the_file_has_all(run, directory, capsys):
    records = Recorder(run, directory, FixedEvaluator())
    records.log({"loss": 2 / 3})
    records.begin(0, go_on)
    records.finish(go_on)
    header, values = (line.split() for line in capsys.readouterr().out.splitlines())
    assert dict(zip(header, values, strict=True))["loss"] == "0.66667"
    assert records_of(directory)[0]["loss"] == 2 / 3
