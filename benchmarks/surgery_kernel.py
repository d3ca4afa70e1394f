"""How near the consensus of signs comes to copying the same bytes.

    python benchmarks/surgery_kernel.py [--components 57000000] [--rounds 9] [--device cpu]

Agr-Sum reads K gradients and writes one; the rival copies as many bytes. Goal: at least 0.7 of the copy's
bytes per second where the gradients come block by block, as in training.
"""

import argparse

import torch
from timing import interleaved, print_environment, report

from domainbed.training.memory import keep_freed_memory
from domainbed_gs.surgery import agreeing_sum

K, BLOCK = 3, {"cpu": 2**18}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", type=int, default=57_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    size = BLOCK.get(args.device, 2**24)
    gradients = torch.randn(K, args.components, device=args.device)
    result = torch.empty(args.components, device=args.device)
    # (K + 1) P numbers are read or written: a copy of half as many does the same.
    source = torch.randn((K + 1) * args.components // 2, device=args.device)
    target = torch.empty_like(source)

    def consensus():
        for block, out in zip(gradients.split(size, 1), result.split(size), strict=True):
            out.copy_(agreeing_sum(block.unbind()))

    print_environment()
    times = interleaved(
        {"copy": lambda: target.copy_(source), "Agr-Sum": consensus}, args.rounds, args.warmup
    )
    amount = (K + 1) * args.components * 4 / 1e9
    report(
        f"{K} gradients of {args.components} components",
        times,
        "copy",
        {"copy": amount, "Agr-Sum": amount},
        "GB",
    )


if __name__ == "__main__":
    main()
