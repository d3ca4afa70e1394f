"""Step and evaluation of EfficientNet-Lite0 with frozen stages, against those of the whole network.

    python benchmarks/frozen.py [--rounds 7] [--device cpu]

At 96 pixels, ERM on 3x16 images, and logits of 256. "outputs at hand" gets the outputs of the frozen stages,
as runs without augmentation do from the cache; "computed" passes images through them, without gradients. The
whole network is also shown in torch's own memory layout, which is the slower one.
Goals for the last two stages (`blocks.4` is the last frozen one), with outputs at hand: a step at most 0.25
of a whole one, an evaluation at most 0.20.
"""

import argparse
from functools import partial

import torch
from cases import K
from timing import interleaved, print_environment, report

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams
from domainbed.training.train_command import keep_freed_memory

SHAPE, B, CLASSES, EVALUATED = (3, 96, 96), 16, 7, 256
STAGES = {
    "last two stages": "blocks.4",
    "last stage": "blocks.5",
    "classifier alone": "all",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    print_environment()
    images = torch.randn(K * B, *SHAPE, generator=torch.Generator().manual_seed(0)).to(args.device)
    labels = (torch.arange(K * B) % CLASSES).to(args.device)
    many = images.repeat(-(-EVALUATED // len(images)), 1, 1, 1)[:EVALUATED]
    steps, evaluations = {}, {}
    for name, algorithm, make_inputs in ways(args.device):
        x, more = make_inputs(images), make_inputs(many)
        batches = list(zip(x.split(B), labels.split(B), strict=True))
        steps[name] = partial(algorithm.update, batches)
        evaluations[name] = partial(evaluate, algorithm, more)
    report("A step, 3x16", interleaved(steps, args.rounds, args.warmup), "whole network")
    report("Logits of 256 images", interleaved(evaluations, args.rounds, args.warmup), "whole network")


def ways(device):
    """Name, algorithm, and a function that makes its inputs of images."""
    yield "whole network", erm("none", device), lambda x: x
    algorithm = erm("none", device).to(memory_format=torch.contiguous_format)
    algorithm.featurizer.arrange = lambda x: x
    yield "whole network, torch's layout", algorithm, lambda x: x
    for name, stage in STAGES.items():
        algorithm = erm(stage, device)
        yield f"{name}, outputs at hand", algorithm, algorithm.featurizer.frozen_outputs
        if name == "last two stages":
            yield f"{name}, computed", algorithm, lambda x: x


def erm(freeze, device):
    torch.manual_seed(0)
    hparams = default_hparams("ERM", "PACS") | {"featurizer": "efficientnet_lite0", "freeze": freeze}
    return get_algorithm_class("ERM")(SHAPE, CLASSES, K, hparams).to(device)


def evaluate(algorithm, x):
    algorithm.eval()
    with torch.inference_mode():
        algorithm.predict(x)
    algorithm.train()


if __name__ == "__main__":
    main()
