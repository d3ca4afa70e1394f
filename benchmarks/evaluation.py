"""Time of an evaluation, against DomainBed's way: all parts, batches of 64, a reader for each part.

    python benchmarks/evaluation.py [--rounds 7] [--device cpu]

On EmojiStyles with its small CNN: only the parts that selection methods read (the default of `train`), all
parts, and the rival on all parts.
"""

import argparse

import torch
from timing import interleaved, print_environment, report
from torch.utils.data import DataLoader

from domainbed.algorithms import get_algorithm_class
from domainbed.training import run
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import EVALUATION, Evaluator, PartBatches, parts_to_evaluate
from domainbed.training.prefetcher import Prefetcher
from domainbed.training.train_command import keep_freed_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    made = run.build(TrainConfig(dataset="EmojiStyles", test_envs=[0], device=args.device))
    assert isinstance(made.algorithm, get_algorithm_class("ERM"))
    ways = {name: ours(made, name) for name in ("selection", "all")} | {"rival": textbook(made)}
    print_environment()
    report("Accuracies of one checkpoint", interleaved(ways, args.rounds, args.warmup), "rival")


def ours(made, which):
    parts = parts_to_evaluate(made.splits, [0], which)
    prefetcher = Prefetcher({EVALUATION: PartBatches(parts)}, made.num_workers)
    evaluator = Evaluator(made.algorithm, parts, made.device, prefetcher, seed=0)
    return lambda: evaluator.accuracies(0)


def textbook(made):
    parts = parts_to_evaluate(made.splits, [0], "all")

    def evaluate():
        made.algorithm.eval()
        for part in parts.values():
            right = 0.0
            with torch.no_grad():
                for x, y in DataLoader(part, batch_size=64):
                    logits = made.algorithm.predict(x.to(made.device))
                    right += (logits.argmax(1) == y.to(made.device)).float().sum().item()
        made.algorithm.train()

    return evaluate


if __name__ == "__main__":
    main()
