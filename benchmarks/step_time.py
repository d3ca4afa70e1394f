"""How long a step takes: each method against ERM, ERM against a plain loop, and rivals against Agr-Sum.

    python benchmarks/step_time.py [--rounds 9] [--cases AlexNet small] [--device cpu]

Goals: AgrSum and Fishr at most 1.10 ERM steps, PCGrad, AgrRand, ANDMask and CAGrad at most 1.20; ERM at most
0.90 of a plain loop with torch's default Adam on AlexNet, 1.00 elsewhere; Agr-Sum in its authors' layout at
least 2.3 AgrSum steps on AlexNet, a mask by retained backward passes at least 2.6 on AlexNet and MNIST_CNN.

Methods are compared in one process, which keeps freed memory for reuse, as `train` does. The plain loop and
each rival run in a process of their own, like any script, against one that runs as `train` does.
"""

import argparse

from cases import CASES, algorithm, minibatches, plain_erm, retained_mask, stacked_agr_sum
from timing import Elsewhere, interleaved, print_environment, report

from domainbed.training.train_command import keep_freed_memory

METHODS = ("ERM", "AgrSum", "PCGrad", "AgrRand", "ANDMask", "CAGrad", "Fishr")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    print_environment()
    for case in CASES:
        if case.startswith(tuple(args.cases)):
            measure(case, args.rounds, args.warmup, args.device)


def measure(case, rounds, warmup, device):
    batches = minibatches(case, device)
    # Pairs, so that no more than two networks' states fight for the memory.
    for name in METHODS[1:]:
        pair = {each: algorithm(each, case, device) for each in ("ERM", name)}
        steps = {each: (lambda own=own: own.update(batches)) for each, own in pair.items()}
        report(f"{case}: {name}", interleaved(steps, rounds, warmup), "ERM")
    against(
        f"{case}: ERM against a plain loop",
        "plain loop",
        rounds,
        warmup,
        {
            "plain loop": (as_a_script, plain_erm, case, device),
            "ERM": (as_train_does, "ERM", case, device),
        },
    )
    against(
        f"{case}: rivals",
        "AgrSum",
        rounds,
        warmup,
        {
            "AgrSum": (as_train_does, "AgrSum", case, device),
            "Agr-Sum, stacked": (as_a_script, stacked_agr_sum, case, device),
            "mask, retained graph": (as_a_script, retained_mask, case, device),
        },
    )


def against(title, rival, rounds, warmup, made_of):
    steps = {name: Elsewhere(*made) for name, made in made_of.items()}
    report(title, interleaved(steps, rounds, warmup), rival)
    for step in steps.values():
        step.end()


def as_train_does(name, case, device):
    keep_freed_memory()
    own, batches = algorithm(name, case, device), minibatches(case, device)
    return lambda: own.update(batches)


def as_a_script(rival, case, device):
    return rival(algorithm("ERM", case, device).network, minibatches(case, device))


if __name__ == "__main__":
    main()
