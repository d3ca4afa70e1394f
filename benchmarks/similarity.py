"""How long a measurement of gradient similarities takes: AlexNet, 224 pixels, 3 environments of 8 samples.

    python benchmarks/similarity.py [--rounds 5] [--threads 2] [--device cpu]

Compares `similarities` of all 24 samples with a plain step of ERM on the same samples (forward, backward,
Adam), and shows the peak memory of the process. Goal: at most 3 steps, and 4 GB.
"""

import argparse

import torch
from timing import interleaved, peak_memory, print_environment, report

from domainbed.algorithms import get_algorithm_class
from domainbed.algorithms.base import concatenate
from domainbed.hparams_registry import default_hparams
from domainbed_gs.similarity.measure import similarities

SIZES = [8, 8, 8]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--featurizer", default="alexnet")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    hparams = default_hparams("ERM", "PACS")
    hparams |= {"featurizer": args.featurizer, "pretrained": False, "resnet50_augmix": False}
    algorithm = get_algorithm_class("ERM")((3, 224, 224), 7, len(SIZES), hparams).to(args.device)
    minibatches = [
        (
            torch.randn(n, 3, 224, 224, device=args.device),
            torch.zeros(n, dtype=torch.int64, device=args.device),
        )
        for n in SIZES
    ]
    x, y = concatenate(minibatches)

    def step():
        algorithm.network.train()
        algorithm.update(minibatches)

    def measure():
        algorithm.network.eval()
        similarities(algorithm.network, x, y, SIZES)

    step()
    before = peak_memory(args.device) / 2**30
    measure()
    after = peak_memory(args.device) / 2**30
    times = interleaved({"plain step": step, "similarities": measure}, args.rounds, args.warmup)
    print_environment()
    title = f"{args.featurizer}, {len(SIZES)}x{SIZES[0]} samples of 224 pixels, {args.device}"
    report(title, times, "plain step")
    print(f"\nPeak memory: {before:.2f} GiB after one step, {after:.2f} GiB after one measurement more.")


if __name__ == "__main__":
    main()
