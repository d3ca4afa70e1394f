"""A worker of `sweep_scale.py`: takes runs as `sweep work` does, claims them, and writes records."""

import random
import sys
import time
from pathlib import Path

from timing import peak_memory

from domainbed.records.results_file import RESULTS_FILE, append_record
from domainbed.sweep.job import flags_of_train
from domainbed.sweep.process import BUSY
from domainbed.sweep.worker import SweepQueue
from domainbed.training.run_dir import Busy, RunDir
from domainbed.training.train_command import build_parser

STEPS = (0, 100, 200)
"""Steps of a run's records."""


def main(folder):
    queue, parser = SweepQueue(Path(folder), retries=3), build_parser()
    while not queue.exhausted():
        task = queue.take()
        if task is None:
            time.sleep(0.02)
        else:
            queue.report(task, run(vars(parser.parse_args(flags_of_train(task.command)))))
    print(peak_memory())


def run(args):
    """Claim the directory of a run, write its records, and mark it as done; returns the exit status."""
    try:
        with RunDir(Path(args["output_dir"]), args) as directory:
            if directory.finished:
                return 0
            directory.write_summary({}, machine={})
            for step in STEPS:
                append_record(directory.path / RESULTS_FILE, record_of(args, step))
            directory.finish()
        return 0
    except Busy:
        return BUSY


def record_of(args, step):
    """A record with accuracies that follow from the run's seed."""
    draws = random.Random(f"{args['seed']} {step}")
    parts = [f"env{i}_{part}" for i in range(4) for part in ("in", "out")]
    return {
        **{f"{part}_acc": draws.random() for part in parts},
        "step": step,
        "args": args,
        "hparams": {"lr": 1e-3, "batch_size": 32},
        "sizes": dict.fromkeys(parts, 100),
    }


if __name__ == "__main__":
    main(sys.argv[1])
