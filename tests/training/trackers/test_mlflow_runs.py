"""MLflow has each step of a run once, in one run of its own, in real stores on the disk."""

from __future__ import annotations

import json

import pytest

from domainbed.training.trackers.stepwise import STATE_FILE

STORES = [
    "file",
    pytest.param(
        "sqlite",
        marks=[
            pytest.mark.slow,  # it creates the tables of a database
            pytest.mark.filterwarnings("default::DeprecationWarning"),  # MLflow's use of SQLAlchemy
        ],
    ),
]


@pytest.fixture
def client(tmp_path, monkeypatch):
    """`client(store)`: MLflow's client for an empty store of this kind, which is also that of runs."""

    def make(store):
        place = {"file": f"file://{tmp_path}/mlruns", "sqlite": f"sqlite:///{tmp_path}/mlflow.db"}[store]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=place)

    return make


def runs_of(client):
    experiment = client.get_experiment_by_name("domainbed")
    return client.search_runs([experiment.experiment_id])


@pytest.mark.parametrize("store", STORES)
def test_a_resumed_run_goes_on_in_the_same_mlflow_run_and_repeats_no_step(store, client, resumed, expected):
    mlflow = client(store)
    records = resumed("mlflow")
    (run,) = runs_of(mlflow)
    history = {
        (name, metric.step): metric.value
        for name in run.data.metrics
        for metric in mlflow.get_metric_history(run.info.run_id, name)
    }
    assert sum(len(mlflow.get_metric_history(run.info.run_id, name)) for name in run.data.metrics) == len(
        history
    )
    assert {step for _, step in history} == {0, 2, 4, 6}
    known = {key: value for key, value in history.items() if key[0] != "training/step_time"}
    assert known == pytest.approx(expected(records))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "ERM Debug28, target 0, trial 0, hparams 0"
    params = run.data.params
    assert (params["algorithm"], params["test_envs"], params["hparams.batch_size"]) == ("ERM", "[0]", "4")
    assert set(params) == {*records[0]["args"], *(f"hparams.{name}" for name in records[0]["hparams"])} - {
        "hparams"
    }


def test_a_run_that_starts_over_is_another_mlflow_run(client, attempt, tmp_path):
    mlflow = client("file")
    attempt(["mlflow"], crash_at=2)
    assert [run.info.status for run in runs_of(mlflow)] == ["FAILED"]
    attempt(["mlflow"], stop_at=1)
    assert sorted(run.info.status for run in runs_of(mlflow)) == ["FAILED", "KILLED"]
    assert (tmp_path / "run/attempt-1" / STATE_FILE).exists()


def test_any_value_and_name_of_a_record_is_logged(client, attempt, monkeypatch):
    from domainbed.training.scores import Scores

    mlflow = client("file")
    odd = {"a/b.c": 1.0, "../x": 2.0, "é<b>\n": float("inf"), "n": float("nan")}
    accuracies = Scores.accuracies
    monkeypatch.setattr(Scores, "accuracies", lambda self: accuracies(self) | odd)
    attempt(["mlflow"], stop_at=1)
    (run,) = runs_of(mlflow)
    found = run.data.metrics
    assert (found["training/a_b_c"], found["training/___x"]) == (1.0, 2.0)
    assert found["training/é_b__n"] == float("inf")
    assert found["training/n"] != found["training/n"]


def test_a_server_that_does_not_answer_stops_no_run_and_gets_all_steps_later(
    client, attempt, caplog, tmp_path, monkeypatch
):
    mlflow = client("file")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        attempt(["mlflow"], stop_at=3)
    (warning,) = [line for line in caplog.messages if "mlflow" in line]
    assert warning.startswith("tracker mlflow is off: ")
    assert "\n" not in warning
    records = attempt(["mlflow"])
    (run,) = runs_of(mlflow)
    history = mlflow.get_metric_history(run.info.run_id, "training/loss")
    assert [(each.step, each.value) for each in history] == [(each["step"], each["loss"]) for each in records]
    state = json.loads((tmp_path / "run" / STATE_FILE).read_text())
    assert state == {"mlflow": {"run": run.info.run_id, "step": 6}}
