"""What became of the runs of a launch or of a worker: said on the screen, and as an exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.sweep.disk import bytes_in, in_words
from domainbed.sweep.job import Job
from domainbed.training.run_dir import Preempted, RunState

_SHOWN = 20


def report_ends(jobs: Sequence[Job]) -> int:
    """Print why runs failed, how many are left unfinished or to others, and how large all are.

    Returns: exit status: 1 if a run failed, 3 if some were told to leave and can go on, else 0.
    """
    elsewhere = [job for job in jobs if job.run_state is RunState.RUNNING]
    left = [job for job in jobs if job.run_state is RunState.PREEMPTED]
    failed = [job for job in jobs if job.state != Job.DONE and job not in elsewhere and job not in left]
    for job in failed[:_SHOWN]:
        reason = job.failure or "it left no reason; is the disk full?"
        print(f"FAILED {job}: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} runs failed; each says why in its directory.", file=sys.stderr)
    if elsewhere:
        print(f"{len(elsewhere)} runs are left to another process that is at work on them.")
    if left:
        print(f"{len(left)} runs left before they were done (time limit, or told to); launch again to go on.")
    size = bytes_in(Path(job.output_dir) for job in jobs)
    print(f"The directories of {len(jobs)} runs take {in_words(size)}.")
    if failed:
        return 1
    return Preempted.exit_status if left else 0
