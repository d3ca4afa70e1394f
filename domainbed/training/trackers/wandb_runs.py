"""Weights & Biases as a tracker. Its own environment variables apply (WANDB_MODE, WANDB_DIR, ...)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from domainbed.training.trackers.registry import TRACKERS
from domainbed.training.trackers.stepwise import StepwiseTracker
from domainbed.training.trackers.tracker import Ending

if TYPE_CHECKING:
    import wandb

PROJECT = "domainbed"
"""Name of the project, unless WANDB_PROJECT is set."""

_FINISH_SECONDS = 60.0
"""How long the end of a run waits for uploads. `wandb sync` uploads what is left."""


@TRACKERS.register("wandb")
class WeightsAndBiases(StepwiseTracker):
    """A run of W&B, with settings and hyper-parameters as its config and each record's numbers as history."""

    PACKAGE = "wandb"
    EXTRA = "domainbed-gs[wandb]"

    _wandb_run: wandb.Run

    def start(self, run_id: str | None) -> str:
        import wandb

        is_online = wandb.setup().settings.mode in ("online", "run")
        if is_online and not wandb.login(prompt=False):
            raise RuntimeError("not logged in to W&B; run `wandb login`, or set WANDB_MODE=offline")
        own = run_id or uuid.uuid4().hex
        quiet = wandb.Settings(
            silent=True,
            console="off",  # out.txt has what the run prints
            reinit="create_new",  # leaves a run of the calling program alone
            finish_timeout=_FINISH_SECONDS,
        )
        self._wandb_run = wandb.init(
            id=own,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self.run.name,
            config={**self.run.settings, "hparams": dict(self.run.hparams)},
            settings=quiet,
        )
        return own

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._wandb_run.log(dict(values), step=step, commit=True)

    def close(self, ending: Ending) -> None:
        if ending is Ending.STOPPED:
            self._wandb_run.mark_preempting()
        self._wandb_run.finish(exit_code=0 if ending is Ending.FINISHED else 1)
