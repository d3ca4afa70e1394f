"""How long a sweep will take, before it starts: from its finished runs, else from a few real steps."""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from domainbed.console import format_seconds
from domainbed.sweep.defaults import kept_defaults
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import read_manifest
from domainbed.training.cost import Cost
from domainbed.training.run_state import seconds_of_finished

_log = logging.getLogger(__name__)

FEW_UPDATES = 200
"""So many updates of a sweep take about as long as measuring them."""

Kind = tuple[object, ...]
"""What the cost of a run depends on, as far as the estimate goes: dataset, algorithm and hyper-parameters."""


@dataclass(frozen=True)
class Estimate:
    """How long some runs take, one after the other.

    Attributes:
        low, seconds, high: seconds; low and high from the quartiles of what was seen.
        memory: bytes of the largest process; None if it is not known.
        source: what it was made from, as a clause.
    """

    low: float
    seconds: float
    high: float
    memory: int | None
    source: str

    def line(self, runs: int, at_once: int) -> str:
        """A clause with the time of so many runs, and its spread.

        Args:
            runs: number of runs.
            at_once: how many run at a time, which is taken to divide the time by as much.
        """
        at_once = min(at_once, runs)
        low, middle, high = (format_seconds(each / at_once) for each in (self.low, self.seconds, self.high))
        return f"Estimated time: {middle} ({low} to {high}) for {runs:,} runs, {at_once} at a time"


def total_updates(jobs: Sequence[Job]) -> int:
    """Number of updates of all jobs together."""
    from domainbed.datasets import get_dataset_class

    default = {name: get_dataset_class(name).N_STEPS for name in {job.train_args["dataset"] for job in jobs}}
    return sum(job.train_args.get("steps") or default[job.train_args["dataset"]] for job in jobs)


def estimate(jobs: Sequence[Job], threads: int, budget: float) -> Estimate | None:
    """Estimate the time of `jobs`, or None if nothing could be measured.

    Runs of a kind that this sweep has finished take as long as these. Of each other kind a run is measured,
    and those for which no time is left take as long as the median of the measured ones.

    Args:
        jobs: the runs to launch.
        threads: number of threads of each run; 0: torch's default.
        budget: seconds that measurements may take.
    """
    by_kind: dict[Kind, list[Job]] = defaultdict(list)
    for job in jobs:
        by_kind[_kind(job.train_args)].append(job)
    recorded = _recorded(Path(jobs[0].output_dir).parent, by_kind)
    unknown = [kind for kind in by_kind if kind not in recorded]
    measured = dict(_measured({kind: by_kind[kind][0] for kind in unknown}, threads, budget))
    spans = recorded | {kind: _span(cost) for kind, cost in measured.items()}
    if not spans:
        return None
    typical = tuple(statistics.median(each) for each in zip(*spans.values(), strict=True))
    low, middle, high = (
        sum(len(of_kind) * spans.get(kind, typical)[i] for kind, of_kind in by_kind.items()) for i in range(3)
    )
    sources = []
    if recorded:
        sources.append(f"finished runs of {_share(len(recorded), len(by_kind))}")
    if measured:
        sources.append(f"a few steps of {_share(len(measured), len(by_kind))}")
    memory = max((cost.memory for cost in measured.values()), default=None)
    return Estimate(low, middle, high, memory, f"from {' and '.join(sources)}")


def _share(number: int, of: int) -> str:
    if number < of:
        return f"{number} of {of} kinds of run"
    return f"each of {of} kinds of run" if of > 1 else "one run"


def _kind(train_args: Mapping[str, object]) -> Kind:
    names = ("dataset", "algorithm", "hparams", "steps", "evaluate", "checkpoint_freq")
    return tuple(train_args.get(name) for name in names)


def _span(cost: Cost) -> tuple[float, float, float]:
    """Seconds of a run by the lower quartile, the median and the upper quartile of its updates."""
    if len(cost.steps) < 2:
        return (cost.seconds(),) * 3
    low, _, high = statistics.quantiles(cost.steps, n=4, method="inclusive")
    return cost.seconds(lambda _: low), cost.seconds(), cost.seconds(lambda _: high)


def _recorded(
    sweep_dir: Path, by_kind: Mapping[Kind, Sequence[Job]]
) -> dict[Kind, tuple[float, float, float]]:
    """Quartiles of the seconds of finished runs, for each of these kinds that has some."""
    manifest = read_manifest(sweep_dir)
    if manifest is None:
        return {}
    defaults = kept_defaults(manifest)
    found: dict[Kind, list[float]] = defaultdict(list)
    for name, args in manifest.jobs.items():
        seconds = seconds_of_finished(sweep_dir / name)
        if seconds is not None:
            found[_kind({**defaults, **args})].append(seconds)
    return {kind: _quartiles(found[kind]) for kind in by_kind if kind in found}


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _measured(jobs: Mapping[Kind, Job], threads: int, budget: float) -> Iterator[tuple[Kind, Cost]]:
    """Measure one run of each kind in a process of its own, which is ended when `budget` seconds are over."""
    if not jobs:
        return
    command = [sys.executable, "-m", "domainbed.training.cost_measurement"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    end = time.monotonic() + budget
    timer = threading.Timer(budget, process.kill)
    timer.start()
    try:
        left = len(jobs)
        for kind, job in tqdm(jobs.items(), "estimating", unit="method", leave=False, disable=None):
            share = max(0.0, end - time.monotonic()) / left
            left -= 1
            asked = {"settings": job.train_args, "budget": share, "threads": threads}
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:  # the time is over
                return
            answer = json.loads(line)
            if "error" in answer:
                _log.warning(
                    "note: a run of %s could not be measured, and is taken to be like the others: %s",
                    *(job.train_args["algorithm"], answer["error"]),
                )
            else:
                yield kind, Cost(**answer)
    except BrokenPipeError:
        return
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
