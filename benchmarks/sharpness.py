"""How much memory a measurement of sharpness needs: a process of its own for each case.

    python benchmarks/sharpness.py [--case "AlexNet 3x16 @224"] [--device cpu]

Measures the pooled loss of 3 sources, the sources and a target, 16 samples each. Goal: within 1.5 GB for
AlexNet, beside the pages of torch's library files (0.4 GB), which the system shares and can drop.
"""

import argparse
import subprocess
import sys

from cases import algorithm, minibatches
from timing import peak_memory, print_environment

CASES = ("AlexNet 3x16 @224", "small CNN 3x32 @64")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--of", help="measure this case alone, and print its peak in bytes")
    args = parser.parse_args()
    if args.of:
        print(peak(args.of, args.device))
        return
    print_environment()
    print("\n### Sharpness, 4x16 samples\n\n| | P | peak GiB |\n|---|---:|---:|")
    for case in [args.case] if args.case else CASES:
        count = sum(p.numel() for p in algorithm("ERM", case).network.parameters())
        command = [sys.executable, __file__, "--device", args.device, "--of", case]
        found = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"| {case} | {count} | {found / 2**30:.2f} |")


def peak(case, device):
    from domainbed_gs.curvature.losses import SampleLoss
    from domainbed_gs.curvature.network import Logits, ParameterVector, trained_names
    from domainbed_gs.sharpness.measure import Domain, measure_domains
    from domainbed_gs.sharpness.settings import Sharpness

    network = Logits(algorithm("ERM", case, device).eval())
    samples = minibatches(case, device, k=4, batch_size=16)
    parameters = ParameterVector(network, trained_names(network, samples[0][0][:2]))
    domains = [
        Domain("target" if i == 3 else "source", str(i), len(y), SampleLoss(network, parameters, x, y))
        for i, (x, y) in enumerate(samples)
    ]
    how = Sharpness(ascent_steps=2, lanczos_steps=3, probes=2, directions=1, points=3)
    measure_domains(domains, parameters, how)
    return peak_memory(device)


if __name__ == "__main__":
    main()
