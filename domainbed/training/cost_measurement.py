"""Measure what a run costs: the time of its steps and evaluations, and its memory, from a few real ones.

`python -m domainbed.training.cost_measurement` reads settings of runs as lines of JSON from stdin, and prints
the cost of each as a line of JSON. A process of its own leaves the caller's random numbers and memory as they
are.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from domainbed.errors import DomainBedError
from domainbed.memory import peak_memory
from domainbed.training.config import TrainConfig
from domainbed.training.cost import Cost
from domainbed.training.evaluation import BATCH_SIZE, parts_to_evaluate, without_augmentation
from domainbed.training.minibatches import load_minibatch
from domainbed.training.run import Run, build

_STEPS = 7
"""Most updates that are timed, after one that is not."""


def measure(config: TrainConfig, budget: float) -> Cost:
    """Build a run, do a few updates, and evaluate one batch of each part, within about `budget` seconds.

    The first update is timed only if there is no time for another one.

    Raises: as `domainbed.training.run.build`.
    """
    began = time.perf_counter()
    run = build(config)
    built = time.perf_counter()
    run.algorithm.train()
    steps: list[float] = []
    while len(steps) <= _STEPS and len(steps) < run.n_steps:
        steps.append(_seconds(lambda: _update(run, len(steps))))
        if time.perf_counter() - began + steps[-1] > budget:
            break
    return Cost(
        start=built - began,
        steps=steps[1:] or steps,
        record=_record(run),
        n_steps=run.n_steps,
        n_records=1 + -(-(run.n_steps - 1) // run.checkpoint_freq),
        memory=peak_memory(),
    )


def _update(run: Run, step: int) -> None:
    minibatches = [(x.to(run.device), y.to(run.device)) for x, y in run.minibatches[step]]
    unlabeled = None if run.unlabeled is None else [x.to(run.device) for x, _ in run.unlabeled[step]]
    run.algorithm.update(minibatches, unlabeled)
    _wait(run.device)


def _record(run: Run) -> float:
    """Seconds of an evaluation of all parts, from one batch of the largest."""
    parts = parts_to_evaluate(run.splits, run.config.test_envs, run.config.evaluate)
    if not parts:
        return 0.0
    samples = sum(map(len, parts.values()))
    largest = run.frozen.part(without_augmentation(max(parts.values(), key=len)))
    positions = np.arange(min(len(largest), BATCH_SIZE))
    run.algorithm.eval()

    def predict() -> None:
        x, _ = load_minibatch(largest, positions, (0,))
        with torch.inference_mode():
            run.algorithm.predict(x.to(run.device))
        _wait(run.device)

    return _seconds(predict) * samples / len(positions)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def main() -> None:
    """Measure the runs that stdin describes: {"settings": ..., "budget": seconds, "threads": number}."""
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["threads"]:
            torch.set_num_threads(asked["threads"])
        try:
            answer = asdict(measure(TrainConfig(**asked["settings"]), asked["budget"]))
        except (DomainBedError, RuntimeError, MemoryError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
