"""What a step costs: each method against ERM, ERM against a plain loop, and rivals against Agr-Sum.

    python benchmarks/step_time.py [--rounds 9] [--cases AlexNet small] [--device cpu]

Goals: AgrSum and Fishr at most 1.10 ERM steps, PCGrad, AgrRand, ANDMask and CAGrad at most 1.20; ERM at most
0.90 of a plain loop with Adam as it comes on AlexNet, 1.00 elsewhere; Agr-Sum in its authors' layout at least
2.3 AgrSum steps on AlexNet, a mask by retained backward passes at least 2.6 on AlexNet and MNIST_CNN.
"""

import argparse

from cases import CASES, algorithm, minibatches, plain_erm, retained_mask, stacked_agr_sum
from timing import interleaved, print_environment, report

from domainbed.training.memory import keep_freed_memory

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
    erm = algorithm("ERM", case, device)
    plain = plain_erm(algorithm("ERM", case, device).network, batches)
    times = interleaved({"plain loop": plain, "ERM": lambda: erm.update(batches)}, rounds, warmup)
    report(f"{case}: ERM against a plain loop", times, "plain loop")
    agr_sum = algorithm("AgrSum", case, device)
    rivals = {
        "AgrSum": lambda: agr_sum.update(batches),
        "Agr-Sum, stacked": stacked_agr_sum(algorithm("ERM", case, device).network, batches),
        "mask, retained graph": retained_mask(algorithm("ERM", case, device).network, batches),
    }
    report(f"{case}: rivals", interleaved(rivals, rounds, warmup), "AgrSum")


if __name__ == "__main__":
    main()
