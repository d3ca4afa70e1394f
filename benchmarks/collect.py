"""How long `collect_results` takes for many records, and how much memory it needs.

    python benchmarks/collect.py [--trials 3] [--hparams 20]

Writes runs of 5 algorithms on 10 sets of test environments with 17 checkpoints each: by default 3,000 runs
and 51,000 records. Goal: at most 1.5 s and 250 MB.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import print_environment

ALGORITHMS = ("ERM", "IRM", "VREx", "CORAL", "AgrSum")
TARGETS = [[i] for i in range(4)] + [list(pair) for pair in itertools.combinations(range(4), 2)]
STEPS = range(0, 17 * 300, 300)
MEASURE = """
import sys
from domainbed.scripts.collect_results import main
main(["--input_dir", sys.argv[1]])
sys.path.append(sys.argv[2])
from timing import peak_memory
print(peak_memory(), file=sys.stderr)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--hparams", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print_environment()
    with tempfile.TemporaryDirectory() as folder:
        runs = write(Path(folder), args.trials, args.hparams)
        print(f"\n### collect_results on {runs} runs, {runs * len(STEPS)} records\n")
        for _ in range(args.rounds):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, folder, str(Path(__file__).parent)],
                check=True,
                capture_output=True,
                text=True,
            )
            wall = time.perf_counter() - began
            print(f"- {wall:.2f} s, {int(done.stderr.split()[-1]) / 1e6:.0f} MB")


def write(folder, trials, n_hparams):
    draws, number = random.Random(0), 0
    for algorithm, trial, hparams_seed, targets in itertools.product(
        ALGORITHMS, range(trials), range(n_hparams), TARGETS
    ):
        directory = folder / f"{number:032x}"
        directory.mkdir()
        (directory / "done").write_text("done", encoding="utf-8")
        args = {
            "algorithm": algorithm,
            "dataset": "PACS",
            "test_envs": targets,
            "trial_seed": trial,
            "hparams_seed": hparams_seed,
            "seed": number,
            "output_dir": str(directory),
            "task": "domain_generalization",
            "holdout_fraction": 0.2,
        }
        with (directory / "results.jsonl").open("w", encoding="utf-8") as file:
            for step in STEPS:
                record = {f"env{i}_{part}_acc": draws.random() for i in range(4) for part in ("in", "out")}
                record |= {"step": step, "epoch": step / 100, "loss": draws.random(), "step_time": 0.1}
                record |= {"hparams": {"lr": 5e-5, "batch_size": 32}, "args": args, "mem_gb": 0.0}
                file.write(json.dumps(record, sort_keys=True) + "\n")
        number += 1
    return number


if __name__ == "__main__":
    main()
