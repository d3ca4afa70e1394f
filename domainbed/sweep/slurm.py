"""The launcher `slurm`: submits an array of workers through submitit.

Slurm only provides the workers. Which runs are done is read from the sweep directory, never from Slurm's
accounting, so workers may be cancelled, requeued or joined by others at any time.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import RunError, UsageError
from domainbed.sweep.devices import default_slots
from domainbed.sweep.job import run_directory
from domainbed.sweep.launchers import COMMON_FLAGS, DEFAULTS, SLURM_FLAGS, Launcher, LaunchOptions
from domainbed.sweep.worker import work
from domainbed.training.run_state import clear_failure
from domainbed.training.stop_requests import Preempted, StopRequests

FOLDER = "slurm"
"""Folder in the sweep directory for submitit's files and the workers' logs."""

_SIGNAL_SECONDS = 120
"""How long before the end of a worker's time Slurm signals it."""
_MAX_TIMEOUTS = 10_000  # submitit's limit of requeues; a worker ends when no runs are left
_REQUEUE_SIGNAL_SECONDS = 60.0
"""How long a worker that received SIGTERM waits for a SIGUSR2, which asks it to requeue itself."""


class SlurmLauncher(Launcher):
    """Submit an array of Slurm jobs, each a worker that runs what is left of the sweep."""

    elsewhere = True
    flags = COMMON_FLAGS + SLURM_FLAGS

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> None:
        """Submit the workers and print the Slurm job and where their logs are.

        Args:
            commands: the launched runs. Earlier failures of these runs no longer count.
            options: `output_dir` must be on a file system that the nodes share. At most as many workers are
                submitted as there are commands.

        Raises:
            UsageError: Slurm or submitit is missing, or an option has characters that a batch script cannot
                hold.
            RunError: sbatch failed.
        """
        self.check()
        import submitit

        sweep_dir = options.output_dir.absolute()
        folder = sweep_dir / FOLDER
        requested: dict[str, str | int | None] = {
            "slurm_partition": options.slurm_partition,
            "slurm_constraint": options.slurm_constraint,
            "slurm_mem": options.slurm_mem,
            "gpus_per_node": options.slurm_gpus,
            "cpus_per_task": options.slurm_cpus,
        }
        resources = {name: value for name, value in requested.items() if value is not None}
        _check_characters({"--output_dir": str(folder), **resources})
        for directory in filter(None, map(run_directory, commands)):
            clear_failure(directory)
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=_MAX_TIMEOUTS)
        executor.update_parameters(
            name="domainbed",
            timeout_min=options.slurm_time,
            slurm_array_parallelism=options.slurm_array,
            slurm_signal_delay_s=_SIGNAL_SECONDS,
            slurm_additional_parameters={"requeue": True},
            **resources,
        )
        worker = ArrayWorker(str(sweep_dir), options.workers, options.retries, options.time_limit)
        try:
            with executor.batch():
                jobs = [executor.submit(worker) for _ in range(min(options.slurm_array, len(commands)))]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise RunError(f"sbatch rejected the workers: {' '.join(str(error).split())[:300]}") from None
        number = jobs[0].job_id.partition("_")[0]
        print(f"Slurm job {number}: {len(jobs)} workers; their logs are in {folder}.")

    def check(self) -> None:
        if shutil.which("sbatch") is None:
            raise UsageError(
                "launcher slurm needs sbatch, which was not found; "
                "launch from a login node, or use --command_launcher local"
            )
        if importlib.util.find_spec("submitit") is None:
            raise UsageError('launcher slurm needs submitit: pip install "domainbed-gs[slurm]"')

    def concurrency(self, options: LaunchOptions) -> int:
        return options.slurm_array * len(default_slots(options.workers))


slurm_launcher = SlurmLauncher()


def _check_characters(values: dict[str, object]) -> None:
    """Reject values that would break out of their line of the batch script, or that Slurm would expand."""
    for name, value in values.items():
        if not str(value).isprintable() or "\\" in str(value):
            raise UsageError(f"{name} {value!r}: Slurm accepts no line breaks or backslashes here")
    if "%" in str(values["--output_dir"]):
        raise UsageError(f"--output_dir {values['--output_dir']}: Slurm accepts no % in the path of a log")


@dataclass(frozen=True)
class ArrayWorker:
    """One task of the Slurm array. submitit pickles it, and calls it again after a requeue.

    Attributes:
        sweep_dir: the sweep directory.
        workers: number of runs at a time, as in `default_slots`.
        retries: number of times that a failed run is started again.
        time_limit: minutes that a run may take.
    """

    sweep_dir: str
    workers: int | None
    retries: int
    time_limit: float | None

    def __call__(self) -> None:
        """Work on the sweep. On a signal, let the runs write their checkpoints and exit.

        SIGTERM means that the worker was cancelled, was requeued, or is about to be preempted. In the last
        case SIGUSR2 follows. SIGUSR2 alone announces the end of the worker's time. On SIGUSR2 the worker is
        requeued.
        """
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's handler: calls `checkpoint`, requeues, exits
        with StopRequests(extra_signals=[signal.SIGUSR2]) as requests:
            try:
                slots = default_slots(self.workers)
                work(Path(self.sweep_dir), slots, self.retries, self.time_limit, requests)
                return
            except Preempted:
                deadline = time.monotonic() + _REQUEUE_SIGNAL_SECONDS
                while signal.SIGUSR2 not in requests.received and time.monotonic() < deadline:
                    time.sleep(0.1)
        if signal.SIGUSR2 in requests.received and callable(requeue):
            requeue(signal.SIGUSR2, None)
        sys.exit(Preempted.exit_status)

    def checkpoint(self) -> object:
        """What submitit submits to requeue this worker: the same worker, as all progress is on disk."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    __submitit_checkpoint__ = checkpoint  # the name that newer versions of submitit look for first
