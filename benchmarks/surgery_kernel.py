"""How close Agr-Sum comes to the speed of copying the same bytes.

    python benchmarks/surgery_kernel.py [--components 57000000] [--rounds 9] [--device cpu]

Agr-Sum reads K gradients and writes one; the rival copies as many bytes. Gradients arrive in blocks, as in
training, where the rule is compiled for large ones. Goal: at least 0.7 of the copy's bytes per second.
"""

import argparse

import torch
from timing import interleaved, print_environment, report

from domainbed.gradients.compilation import compiles
from domainbed.gradients.componentwise import Componentwise
from domainbed.gradients.pieces import Piece, Rows, Span
from domainbed.process_group import SINGLE_PROCESS
from domainbed.training.train_command import keep_freed_memory
from domainbed_gs.algorithms.agr import AgrSum

K = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", type=int, default=57_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    gradients = list(torch.randn(K, args.components, device=args.device))
    result = torch.empty(args.components, device=args.device)
    # (K + 1) P numbers are read or written: a copy of half as many does the same.
    source = torch.randn((K + 1) * args.components // 2, device=args.device)
    target = torch.empty_like(source)

    def agr_sum(compile_rule):
        piece = Piece([Span(0, args.components)], Rows(gradients))
        rule = lambda block: AgrSum.combine(None, block)  # noqa: E731 - it needs no algorithm
        Componentwise(rule, 1.0, result, None, compile_rule).combine(iter([piece]), SINGLE_PROCESS)

    print_environment()
    functions = {"copy": lambda: target.copy_(source), "Agr-Sum, plain": lambda: agr_sum(False)}
    if compiles(args.components, source.device):
        functions["Agr-Sum"] = lambda: agr_sum(True)
    times = interleaved(functions, args.rounds, args.warmup)
    amount = (K + 1) * args.components * 4 / 1e9
    report(
        f"{K} gradients of {args.components} components",
        times,
        "copy",
        dict.fromkeys(functions, amount),
        "GB",
    )


if __name__ == "__main__":
    main()
