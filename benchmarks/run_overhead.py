"""How long a run takes beyond its training.

    python benchmarks/run_overhead.py [--rounds 5] [--runs 40] [--workers 2]

A run of one step on Debug28 against `import torch, torchvision`, each in a fresh interpreter (goal: at most
1.4). Then a sweep of ten-step runs: a worker's time for a run beyond its updates (goal: at most 0.5 s).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import interleaved, print_environment, report

SMALL = ["--dataset", "Debug28", "--algorithm", "ERM", "--skip_model_save"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    print_environment()
    with tempfile.TemporaryDirectory() as folder:
        one_run(Path(folder), args.rounds, args.warmup)
        sweep(Path(folder) / "sweep", args.runs, args.workers)


def python(*words):
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def one_run(folder, rounds, warmup):
    number = iter(range(10**6))

    def train():
        directory = str(folder / str(next(number)))
        python("-m", "domainbed.scripts.train", *SMALL, "--steps", "1", "--output_dir", directory)

    starts = {"import torch, torchvision": lambda: python("-c", "import torch, torchvision"), "run": train}
    times = interleaved(starts, rounds, warmup)
    report("A run of one step on Debug28", times, "import torch, torchvision")


def sweep(directory, runs, workers):
    began = time.perf_counter()
    python(
        *("-m", "domainbed.scripts.sweep", "launch", "--datasets", "Debug28", "--algorithms", "ERM"),
        *("--n_hparams", str(runs), "--n_trials", "1", "--test_envs", "0", "--steps", "10"),
        *("--workers", str(workers), "--skip_model_save", "--skip_confirmation", "--quiet"),
        *("--output_dir", str(directory)),
    )
    wall = time.perf_counter() - began
    training, done = 0.0, 0
    for path in directory.glob("*/results.jsonl"):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        steps = [-1, *(record["step"] for record in records)]
        training += sum(
            record["step_time"] * (record["step"] - before)
            for record, before in zip(records, steps, strict=False)
        )
        done += 1
    print(f"\n### A sweep of {done} runs of 10 steps on Debug28, {workers} workers\n")
    print(f"{wall:.1f} s; (wall x workers - updates) / runs = {(wall * workers - training) / done:.2f} s")


if __name__ == "__main__":
    main()
