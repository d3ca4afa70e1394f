"""The launcher `slurm`: an array of elastic workers, submitted through submitit.

Slurm is asked for workers only. Which runs are done is read from the sweep directory, never from Slurm's
accounting; so workers may be cancelled, requeued, or joined by others at any time.
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
from domainbed.sweep.process import run_directory
from domainbed.sweep.slots import slots_here
from domainbed.sweep.worker import work
from domainbed.training.run_dir import Preempted, forget_failure
from domainbed.training.signals import Requests

FOLDER = "slurm"
"""Where in the sweep directory submitit keeps the workers' logs."""
_SECONDS_TO_LEAVE = 120
_TIME_OUTS = 10_000  # a worker goes on for as long as there are runs; the sweep ends it
_LINGER_SECONDS = 60.0


def check_slurm() -> None:
    """Raise UsageError if there is no Slurm here, or no submitit."""
    if shutil.which("sbatch") is None:
        raise UsageError(
            "launcher slurm needs Slurm's sbatch, and there is none here; "
            "launch from a login node, or use --command_launcher local"
        )
    if importlib.util.find_spec("submitit") is None:
        raise UsageError('launcher slurm needs submitit: pip install "domainbed-gs[slurm]"')


def slurm_launcher(
    commands: Sequence[str],
    output_dir: str,
    workers: int | None = None,
    retries: int | None = None,
    time_limit: float | None = None,
    slurm_array: int = 4,
    slurm_time: int = 240,
    slurm_partition: str | None = None,
    slurm_gpus: int | None = None,
    slurm_cpus: int | None = None,
    slurm_mem: str | None = None,
    slurm_constraint: str | None = None,
) -> None:
    """Submit an array of workers over the sweep in `output_dir`, and print how to follow them.

    Args:
        commands: the runs that are launched; those that have failed before start afresh.
        output_dir: the sweep directory, on a file system that the nodes share.
        workers: how many runs at a time in each worker; by default one a GPU, else one a CPU.
        retries: how often a run that failed is started again.
        time_limit: minutes that a run may take in one worker.
        slurm_array: how many workers; no more than there are commands.
        slurm_time: minutes that Slurm gives a worker. It is requeued then, and its runs go on.
        slurm_partition, slurm_gpus, slurm_cpus, slurm_mem, slurm_constraint: of each worker, as in sbatch.

    Raises: UsageError without Slurm or submitit, or for what can't be put into a batch script; RunError if
        Slurm refuses.
    """
    check_slurm()
    import submitit

    folder = Path(output_dir).absolute() / FOLDER
    asked: dict[str, str | int | None] = {
        "slurm_partition": slurm_partition,
        "slurm_constraint": slurm_constraint,
        "slurm_mem": slurm_mem,
        "gpus_per_node": slurm_gpus,
        "cpus_per_task": slurm_cpus,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    _check_values({"--output_dir": str(folder), **given})
    for directory in filter(None, map(run_directory, commands)):
        forget_failure(directory)
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=_TIME_OUTS)
    executor.update_parameters(
        name="domainbed",
        timeout_min=slurm_time,
        slurm_array_parallelism=slurm_array,
        slurm_signal_delay_s=_SECONDS_TO_LEAVE,
        slurm_additional_parameters={"requeue": True},
        **given,
    )
    worker = ArrayWorker(str(Path(output_dir).absolute()), workers, retries or 0, time_limit)
    try:
        with executor.batch():
            jobs = [executor.submit(worker) for _ in range(min(slurm_array, len(commands)))]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise RunError(f"sbatch refused the workers: {' '.join(str(error).split())[:300]}") from None
    print(f"Slurm job {jobs[0].job_id.partition('_')[0]}: {len(jobs)} workers; their logs are in {folder}.")


def _check_values(values: dict[str, object]) -> None:
    """Refuse what would leave its line of a batch script, or what Slurm would expand in a file's name."""
    for name, value in values.items():
        if not str(value).isprintable() or "\\" in str(value):
            raise UsageError(f"{name} {value!r}: Slurm takes no line breaks or backslashes there")
    if "%" in str(values["--output_dir"]):
        raise UsageError(f"--output_dir {values['--output_dir']}: Slurm takes no % in the name of a log")


@dataclass(frozen=True)
class ArrayWorker:
    """What a task of the array does; submitit keeps it in a file and starts it again after a requeue."""

    sweep_dir: str
    workers: int | None
    retries: int
    time_limit: float | None

    def __call__(self) -> None:
        """Work on the sweep; told to leave, let the runs write their checkpoints first.

        Slurm's SIGTERM says that the worker is cancelled, or requeued by somebody, or comes just before the
        SIGUSR2 of a preemption; SIGUSR2 alone may be the end of its time.
        """
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's: it calls `checkpoint`, requeues, and exits
        with Requests(also=[signal.SIGUSR2]) as requests:
            try:
                slots = slots_here(self.workers)
                work(Path(self.sweep_dir), slots, self.retries, self.time_limit, requests)
                return
            except Preempted:
                until = time.monotonic() + _LINGER_SECONDS
                while signal.SIGUSR2 not in requests.received and time.monotonic() < until:
                    time.sleep(0.1)
        if signal.SIGUSR2 in requests.received and callable(requeue):
            requeue(signal.SIGUSR2, None)
        sys.exit(Preempted.exit_status)

    def checkpoint(self) -> object:
        """What is submitted when the worker is requeued: the same again, as all else is in the sweep."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
