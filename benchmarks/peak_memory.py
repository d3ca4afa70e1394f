"""How much more memory surgery needs than ERM, each in a process of its own.

    python benchmarks/peak_memory.py [--case "AlexNet 3x16 @224"] [--device cpu]

Goal: AgrSum's peak is at most 1.35 x 4P bytes above that of ERM, with P the number of parameters.
"""

import argparse
import subprocess
import sys

from cases import algorithm, minibatches
from timing import peak_memory, print_environment

METHODS = ("ERM", "AgrSum", "AgrRand", "ANDMask", "PCGrad", "CAGrad", "Fishr")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="AlexNet 3x16 @224")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--of", help="train this one alone, and print its peak in bytes")
    args = parser.parse_args()
    if args.of:
        print(peak(args.of, args.case, args.device))
        return
    print_environment()
    count = sum(p.numel() for p in algorithm("ERM", args.case).network.parameters())
    print(f"\n### {args.case}, P = {count}\n\n| | peak GiB | above ERM, in 4P bytes |\n|---|---:|---:|")
    peaks = {}
    for name in METHODS:
        command = [sys.executable, __file__, "--case", args.case, "--device", args.device, "--of", name]
        peaks[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {name} | {peaks[name] / 2**30:.2f} | {(peaks[name] - peaks['ERM']) / (4 * count):.2f} |")


def peak(name, case, device):
    own, batches = algorithm(name, case, device), minibatches(case, device)
    for _ in range(3):
        own.update(batches)
    return peak_memory(device)


if __name__ == "__main__":
    main()
