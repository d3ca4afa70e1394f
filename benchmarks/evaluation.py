"""Time of an evaluation, against DomainBed's way: all parts, batches of 64, a reader for each part.

    python benchmarks/evaluation.py [--rounds 7] [--device cpu]

On EmojiStyles with its small CNN: only the parts that selection methods read (the default of `train`), all
parts, all parts without metrics (accuracies alone), and the rival on all parts. Then the cost of the metrics,
as the ratio of evaluations with and without them that alternate in the same run. Then the share that
evaluation has in a run of the paper's protocol on PACS, by `--evaluate`: computed from the seconds of an
image in training and in evaluation, and the protocol's counts.
"""

import argparse
import statistics

import torch
from timing import interleaved, print_environment, report
from torch.utils.data import DataLoader

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams
from domainbed.metrics import METRICS
from domainbed.training import run
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import EVALUATION, Evaluator, PartBatches, parts_to_evaluate
from domainbed.training.prefetcher import Prefetcher
from domainbed.training.scores import Scores
from domainbed.training.train_command import keep_freed_memory

PACS = (2048, 2344, 1670, 3929)
"""Number of images of each environment."""
STEPS, EVERY, IMAGES = 1000, 20, 3 * 128
"""Updates, updates between two records, and images of an update (`sweeps/iccv2021_table1.toml`)."""
ALTERNATIONS = 12
"""How often evaluations with and without metrics alternate, in rounds."""
NETWORKS = {
    "AlexNet @224": ((3, 224, 224), {"featurizer": "alexnet"}),
    "EfficientNet-Lite0 @96": ((3, 96, 96), {"featurizer": "efficientnet_lite0"}),
    "its last two stages @96": ((3, 96, 96), {"featurizer": "efficientnet_lite0", "freeze": "blocks.4"}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    made = run.build(TrainConfig(dataset="EmojiStyles", test_envs=[0], device=args.device))
    assert isinstance(made.algorithm, get_algorithm_class("ERM"))
    ways = {
        "selection": ours(made, "selection"),
        "all": ours(made, "all"),
        "without metrics": ours(made, "all", metrics={}),
        "rival": textbook(made),
    }
    print_environment()
    times = interleaved(ways, args.rounds, args.warmup)
    report("Accuracies of one checkpoint", times, "rival")
    # Two ways alone, and often: single evaluations differ by more than the metrics cost.
    alone = {name: ways[name] for name in ("all", "without metrics")}
    often = interleaved(alone, ALTERNATIONS * args.rounds, args.warmup)
    ratio = statistics.median(a / b for a, b in zip(often["all"], often["without metrics"], strict=True))
    print(f"\nCost of the metrics: {100 * (ratio - 1):.1f} % of an evaluation")
    print("\n### Share of evaluation in a run of the paper's protocol on PACS, mean over targets, in %\n")
    print("| | " + " | ".join(f"`{which}`" for which in evaluated(0)) + " |")
    print("|---|" + "---:|" * len(evaluated(0)))
    for name, (shape, hparams) in NETWORKS.items():
        shares = shares_of_evaluation(*seconds_of_an_image(shape, hparams, args))
        print(f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares.values()) + " |")


def seconds_of_an_image(shape, hparams, args):
    """Seconds of one image in an update of 48 images by ERM, and in an evaluation."""
    torch.manual_seed(0)
    hparams = default_hparams("ERM", "PACS") | {"pretrained": False} | hparams
    algorithm = get_algorithm_class("ERM")(shape, 7, 3, hparams).to(args.device)
    x, y = torch.randn(48, *shape).to(args.device), (torch.arange(48) % 7).to(args.device)
    if algorithm.featurizer.frozen:
        x = algorithm.featurizer.frozen_outputs(x)

    def evaluate():
        algorithm.eval()
        with torch.inference_mode():
            algorithm.predict(x)
        algorithm.train()

    ways = {"update": lambda: algorithm.update([(x, y)]), "evaluation": evaluate}
    times = interleaved(ways, args.rounds, args.warmup)
    return [statistics.median(times[name]) / len(x) for name in ways]


def evaluated(target):
    """Number of images in an evaluation by `--evaluate`, with splits of 70/10/20."""
    validation = sum(0.1 * size for i, size in enumerate(PACS) if i != target)
    return {
        "all": float(sum(PACS)),
        "selection": validation + PACS[target],
        "reported": validation + 0.2 * PACS[target],
    }


def shares_of_evaluation(training, evaluation):
    """Share of evaluation in the time of a run, by `--evaluate`, given the seconds of one image in each."""
    records = 1 + -(-(STEPS - 1) // EVERY)
    shares = {}
    for which in evaluated(0):
        spent = [records * evaluated(target)[which] * evaluation for target in range(len(PACS))]
        shares[which] = statistics.mean(each / (each + STEPS * IMAGES * training) for each in spent)
    return shares


def ours(made, which, metrics=METRICS):
    parts = parts_to_evaluate(made.splits, [0], which)
    prefetcher = Prefetcher({EVALUATION: PartBatches(parts)}, made.num_workers)
    evaluator = Evaluator(made.algorithm, parts, made.device, prefetcher, seed=0)

    def evaluate():
        scores = Scores(metrics)
        evaluator.evaluate([scores], 0)
        return scores.accuracies() | scores.metrics()

    return evaluate


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
