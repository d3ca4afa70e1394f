"""How the time of a step grows with K, for the same number of samples in all.

    python benchmarks/scaling.py [--rounds 9] [--device cpu]

Goal: steps of AgrSum with K = 2, 4 and 8 take equally long within a factor of 1.10.
"""

import argparse

from cases import algorithm, minibatches
from timing import interleaved, print_environment, report

from domainbed.training.train_command import keep_freed_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", default="AlexNet 3x16 @224")
    parser.add_argument("--samples", type=int, default=48, help="of all environments")
    args = parser.parse_args()
    keep_freed_memory()
    print_environment()
    for name in ("AgrSum", "PCGrad"):
        steps = {}
        for k in (2, 4, 8):
            own = algorithm(name, args.case, args.device, k)
            batches = minibatches(args.case, args.device, k, args.samples // k)
            steps[f"K = {k}"] = lambda own=own, batches=batches: own.update(batches)
        times = interleaved(steps, args.rounds, args.warmup)
        report(f"{args.case}: {name}, {args.samples} samples in all", times, "K = 2")


if __name__ == "__main__":
    main()
