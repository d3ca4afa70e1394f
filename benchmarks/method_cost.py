"""What an update of each method of a sweep file costs, in ERM updates, with that file's hyper-parameters.

    python benchmarks/method_cost.py [--config sweeps/field_2026.toml] [--case small] [--rounds 9]

Goal: none, the table goes with the results of the sweep. Each method takes turns with ERM, all in one
process, on the same minibatches. Gradients: samples that a network processes for a gradient in an update,
divided by the samples of its minibatches. GGA has two kinds of updates: few of a run's updates search.
"""

import argparse
import statistics
from pathlib import Path

from cases import CASES, algorithm, minibatches
from timing import interleaved, print_environment

from domainbed.hparams import parse_overrides
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.training.train_command import keep_freed_memory

CONFIG = Path(__file__).parents[1] / "sweeps" / "field_2026.toml"
PHASES = {
    "GGA": {
        "GGA, an update without a search": {"gga_start": 10**9},
        "GGA, an update with a search": {"gga_start": 0, "gga_length": 10**9},
    }
}
"""Methods with several kinds of updates -> the kinds, and hyper-parameters that make all updates one kind."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--preset")
    parser.add_argument("--case", default="small", help="beginning of a case's name")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    keep_freed_memory()
    print_environment()
    case = next(case for case in CASES if case.startswith(args.case))
    print(f"\n### {case}: cost of an update\n\n| method | time / ERM | quartiles | ms | gradients |")
    print("|---|---:|---:|---:|---:|", flush=True)
    for name, hparams in methods_of(args.config, args.preset).items():
        for label, phase in PHASES.get(name, {name: {}}).items():
            own = hparams | phase
            low, middle, high, seconds = cost(name, own, case, args.rounds, args.warmup, args.device)
            passes = gradients(algorithm(name, case, args.device, own=own), minibatches(case, args.device))
            cells = f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{1e3 * seconds:.1f}", f"{passes:.2f}"
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


def methods_of(config, preset):
    """Name -> hyper-parameters of each method of a sweep file."""
    flags = ["--preset", preset] if preset else []
    jobs = make_jobs(parse(["launch", "--config", str(config), *flags]))
    first = {job.train_args["algorithm"]: job.train_args for job in reversed(jobs)}
    return {name: parse_overrides(args.get("hparams")) for name, args in reversed(first.items())}


def cost(name, own, case, rounds, warmup, device):
    """(quartile, median, quartile) of the times of an update divided by ERM's; its median in seconds."""
    batches = minibatches(case, device)
    rivals = {"rival": algorithm("ERM", case, device), name: algorithm(name, case, device, own=own)}
    times = interleaved(
        {each: lambda method=method: method.update(batches) for each, method in rivals.items()},
        rounds,
        warmup,
    )
    shares = sorted(each / erm for each, erm in zip(times[name], times["rival"], strict=True))
    low, high = shares[len(shares) // 4], shares[-1 - len(shares) // 4]
    return low, statistics.median(shares), high, statistics.median(times[name])


def gradients(method, batches):
    """Samples whose features are differentiated in an update, each time, / samples of the minibatches."""
    processed = 0

    def count(gradient):
        nonlocal processed
        processed += len(gradient)

    def watch(module, inputs, features):
        if features.requires_grad:
            features.register_hook(count)

    networks = [part for part in method.modules() if type(part) is type(method.featurizer)]
    hooks = [network.register_forward_hook(watch) for network in networks]
    method.update(batches)
    for hook in hooks:
        hook.remove()
    return processed / sum(len(y) for _, y in batches)


if __name__ == "__main__":
    main()
