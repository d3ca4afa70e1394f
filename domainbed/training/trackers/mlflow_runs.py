"""MLflow as a tracker. Its own environment variables say where runs go (MLFLOW_TRACKING_URI)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from domainbed.training.trackers.registry import TRACKERS
from domainbed.training.trackers.stepwise import StepwiseTracker
from domainbed.training.trackers.tracker import Ending

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "domainbed"
"""Name of the experiment, unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID is set."""

_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Defaults of MLflow's variables in a run, which waits for the server: about a minute, not several."""

_MOST_PARAMS, _MOST_METRICS = 100, 1000  # in one request, https://mlflow.org/docs/latest/rest-api.html
_REFUSED = re.compile(r"[^\w -]")  # and dots and slashes, which it takes for parts of a path
_STATUS = {Ending.FINISHED: "FINISHED", Ending.FAILED: "FAILED", Ending.STOPPED: "KILLED"}


@TRACKERS.register("mlflow")
class MLflow(StepwiseTracker):
    """A run of MLflow, with settings and hyper-parameters as parameters and each record's numbers as metrics.

    A parameter is named as the setting, or "hparams.NAME"; a metric "GROUP/NAME".
    """

    PACKAGE = "mlflow"
    EXTRA = "domainbed-gs[mlflow]"

    _client: MlflowClient

    def start(self, run_id: str | None) -> str:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        tags = {"domainbed.output_dir": str(self.run.path.resolve())}
        run = self._client.create_run(_experiment(self._client), tags=tags, run_name=self.run.name)
        own: str = run.info.run_id
        values = {
            **{name: value for name, value in self.run.settings.items() if name != "hparams"},
            **{f"hparams.{name}": value for name, value in self.run.hparams.items()},
        }
        params = [Param(name, str(value)) for name, value in values.items()]
        for part in _parts(params, _MOST_PARAMS):
            self._client.log_batch(own, params=part, synchronous=True)
        return own

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(tag), value, now, step) for tag, value in values.items()]
        for part in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=part, synchronous=True)

    def close(self, ending: Ending) -> None:
        self._client.set_terminated(self.run_id, status=_STATUS[ending])


def _experiment(client: MlflowClient) -> str:
    """Id of the experiment, which is created if it does not exist."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run may have created it meanwhile
            if found is None:
                raise
    return str(found.experiment_id)


def _allowed(tag: str) -> str:
    """`tag` as the name of a metric: "_" stands for characters that MLflow refuses."""
    group, _, name = tag.partition("/")
    return f"{group}/{_REFUSED.sub('_', name)}"


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
