"""What an update of each method of a sweep file costs, in ERM updates, with that file's hyper-parameters.

    python benchmarks/method_cost.py [--config sweeps/field_2026.toml] [--case small] [--rounds 9]

Goal: none, the table goes with the results of the sweep. Each method takes turns with ERM, all in one
process, on the same minibatches. GGA has two kinds of updates: few of a run's updates search.
"""

import argparse
from pathlib import Path

from cases import CASES, algorithm, minibatches
from timing import interleaved, print_environment, ratios

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
    print(
        f"\n### {case}: time of an update / ERM\n\n| method | median | quartiles |\n|---|---:|---:|",
        flush=True,
    )
    for name, hparams in methods_of(args.config, args.preset).items():
        for label, phase in PHASES.get(name, {name: {}}).items():
            own = hparams | phase
            low, middle, high = cost(name, own, case, args.rounds, args.warmup, args.device)
            print(f"| {label} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def methods_of(config, preset):
    """Name -> hyper-parameters of each method of a sweep file but ERM."""
    flags = ["--preset", preset] if preset else []
    jobs = make_jobs(parse(["launch", "--config", str(config), *flags]))
    first = {job.train_args["algorithm"]: job.train_args for job in reversed(jobs)}
    return {
        name: parse_overrides(args.get("hparams")) for name, args in reversed(first.items()) if name != "ERM"
    }


def cost(name, own, case, rounds, warmup, device):
    """(quartile, median, quartile) of the rounds' times of an update, divided by ERM's."""
    batches = minibatches(case, device)
    pair = {"ERM": algorithm("ERM", case, device), name: algorithm(name, case, device, own=own)}
    times = interleaved(
        {each: lambda method=method: method.update(batches) for each, method in pair.items()}, rounds, warmup
    )
    shares = sorted(each / erm for each, erm in zip(times[name], times["ERM"], strict=True))
    return shares[len(shares) // 4], ratios(times, "ERM")[name], shares[-1 - len(shares) // 4]


if __name__ == "__main__":
    main()
