"""Run a sweep: `python -m domainbed.scripts.sweep launch --algorithms AgrSum`; see how it is: `status`.

`work --output_dir DIR` joins in a sweep that was launched, from this or any other host.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UsageError, run_script
from domainbed.sweep.checks import check_jobs, check_numbers, given_for_launcher
from domainbed.sweep.flags import FOR_SLURM, PASSED_ON, parse
from domainbed.sweep.grid import all_test_env_combinations, make_args_list
from domainbed.sweep.job import Job
from domainbed.sweep.outcome import report_ends
from domainbed.training.run_dir import RunState

if TYPE_CHECKING:
    DATASETS: list[str]

__all__ = ["DATASETS", "Job", "all_test_env_combinations", "ask_for_confirmation", "main", "make_args_list"]

_WATCH_SECONDS = 5.0


def choose(args: argparse.Namespace) -> None:
    """Fill in datasets, algorithms and output directory where they are not given, and say so."""
    from domainbed.algorithms import ALGORITHMS
    from domainbed.datasets import DATASETS as ALL_DATASETS
    from domainbed.datasets import get_dataset_class

    if args.datasets is None:
        args.datasets = [name for name in ALL_DATASETS if "Debug" not in name]
        if args.data_dir is None:
            args.datasets = [name for name in args.datasets if not get_dataset_class(name).NEEDS_DATA]
            print(f"No --data_dir: the datasets that need none, {', '.join(args.datasets)}.")
    if args.algorithms is None:
        args.algorithms = list(ALGORITHMS)
    # A name given twice would make every run twice, in the same directory.
    args.datasets, args.algorithms = list(dict.fromkeys(args.datasets)), list(dict.fromkeys(args.algorithms))
    if args.output_dir is None:
        about = "-".join([*args.datasets, *args.algorithms]) if len(args.algorithms) <= 8 else "all"
        args.output_dir = str(Path("sweep_output") / about.replace("/", "_")[:80])
        print(f"No --output_dir: {args.output_dir}.")


def make_jobs(args: argparse.Namespace) -> list[Job]:
    """All runs of the sweep."""
    extra = {name: getattr(args, name) for name in PASSED_ON}
    args_list = [
        train_args
        for grouping in dict.fromkeys(args.grouping or [None])
        for train_args in make_args_list(
            *(args.n_trials, args.datasets, args.algorithms, args.n_hparams_from, args.n_hparams, args.steps),
            *(args.data_dir, args.task, args.holdout_fraction, args.single_test_envs, args.hparams),
            seed_scheme=args.seed_scheme,
            extra=extra | {"grouping": grouping},
            test_envs=args.test_envs,
        )
    ]
    return [Job(train_args, args.output_dir) for train_args in args_list]


def ask_for_confirmation() -> None:
    """Ask; end the process with status 0 on anything but yes.

    Raises: UsageError if there is nobody to answer.
    """
    try:
        response = input("Are you sure? (y/n) ")
    except EOFError:
        print()
        raise UsageError("no answer on stdin; give --skip_confirmation where nobody can be asked") from None
    if response.strip()[:1].lower() != "y":
        print("Nevermind!")
        sys.exit(0)


def launcher_of(args: argparse.Namespace) -> Callable[[list[str]], object]:
    """The launcher asked for, with the flags that it takes."""
    import functools

    from domainbed.command_launchers import REGISTRY as LAUNCHERS

    launcher = LAUNCHERS[args.command_launcher]
    takes = inspect.signature(launcher).parameters
    keywords = {"output_dir": args.output_dir} if "output_dir" in takes else {}
    for name, value in given_for_launcher(args).items():
        if name in takes:
            keywords[name] = value
        elif name in FOR_SLURM:  # a sweep file for Slurm may be tried out here
            print(f"Launcher {args.command_launcher} has no use for --{name}.")
        else:
            raise UsageError(f"launcher {args.command_launcher} takes no --{name}")
    bound = functools.partial(launcher, **keywords)
    bound.waits = getattr(launcher, "waits", False)  # type: ignore[attr-defined] # partials take attributes
    bound.computes = "workers" in takes  # type: ignore[attr-defined]
    return bound


def launch(args: argparse.Namespace, jobs: Sequence[Job], typed: Sequence[str]) -> int:
    """Launch what was not launched, and again what was interrupted or has failed; the exit status.

    The words `typed` on the command line are noted in the sweep's directory.
    """
    from domainbed.sweep.disk import check_room
    from domainbed.sweep.manifest import add_to_manifest
    from domainbed.sweep.slots import slots_here

    bad_ends = (RunState.INTERRUPTED, RunState.PREEMPTED, RunState.FAILED)
    again = [job for job in jobs if job.run_state in bad_ends]
    todo = [job for job in jobs if job.run_state in (RunState.ABSENT, *bad_ends)]
    if again:
        failed = sum(job.run_state is RunState.FAILED for job in again)
        print(f"{failed} incomplete jobs failed, {len(again) - failed} were interrupted: they start again.")
    print(f"About to launch {len(todo)} jobs.")
    if not todo:
        waiting = {
            state: sum(job.run_state is state for job in jobs)
            for state in (RunState.RUNNING, RunState.QUEUED)
        }
        elsewhere = ", ".join(f"{n} {state.value}" for state, n in waiting.items() if n)
        print(f"Nothing to do in {args.output_dir}" + (f": others see to {elsewhere}." if elsewhere else "."))
        return 0
    launcher = launcher_of(args)
    if getattr(launcher, "computes", False):
        at_a_time = len(slots_here(args.workers)) * (args.slurm_array or 1)
        check_room(Path(args.output_dir), todo, at_a_time)
    if not args.skip_confirmation:
        ask_for_confirmation()
    try:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        named = {job.name: {k: v for k, v in job.train_args.items() if k != "output_dir"} for job in jobs}
        command = shlex.join(["python", "-m", "domainbed.scripts.sweep", *typed])
        add_to_manifest(Path(args.output_dir), named, tuple(args.selection or ()), command)
    except OSError as error:
        raise UsageError(f"--output_dir {args.output_dir} can't be written: {error.strerror}") from None
    Job.launch(todo, launcher)
    if not getattr(launcher, "waits", False):
        return 0
    status = report_ends([job.looked_at_again() for job in todo])
    report = f"python -m domainbed.scripts.collect_results --input_dir {shlex.quote(args.output_dir)}"
    print(f"The sweep is in {args.output_dir}; its tables:\n    {report}")
    return status


def work(args: argparse.Namespace) -> int:
    """Work on the sweep in `--output_dir` until none of its runs is left; the exit status."""
    from domainbed.sweep.slots import slots_here
    from domainbed.sweep.worker import work

    check_numbers(args)
    sweep_dir = _sweep_dir(args)
    return report_ends(work(sweep_dir, slots_here(args.workers), args.retries or 0, args.time_limit))


def _sweep_dir(args: argparse.Namespace) -> Path:
    if args.output_dir is None:
        raise UsageError(f"{args.command} needs the sweep's directory: give --output_dir (or --config)")
    return Path(args.output_dir)


def show_status(args: argparse.Namespace) -> int:
    """Print how the sweep in `--output_dir` gets on; 1 if a run has failed."""
    from domainbed.sweep.status import as_json, as_text, counts, status_of

    sweep_dir = _sweep_dir(args)
    while True:
        runs = status_of(sweep_dir)
        number = counts(runs)
        if args.watch and sys.stdout.isatty():
            print("\033[2J\033[H", end="")  # clears the terminal
        print(as_json(runs) if args.json else "\n".join(as_text(runs)), flush=True)
        if not args.watch or not number[RunState.RUNNING.value] + number[RunState.QUEUED.value]:
            return 1 if number[RunState.FAILED.value] else 0
        time.sleep(_WATCH_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, show the runs, and launch or delete them; returns the exit status."""
    args = parse(argv)
    if args.command in ("status", "work"):
        return {"status": show_status, "work": work}[args.command](args)
    choose(args)
    jobs = make_jobs(args)
    if args.command == "launch":
        check_jobs(args, jobs)
    for job in jobs if not args.quiet else ():
        print(job)
    count = {
        state: sum(job.state == state for job in jobs)
        for state in (Job.DONE, Job.INCOMPLETE, Job.NOT_LAUNCHED)
    }
    print(
        f"{len(jobs)} jobs: {count[Job.DONE]} done, {count[Job.INCOMPLETE]} incomplete, "
        f"{count[Job.NOT_LAUNCHED]} not launched."
    )
    if args.command == "launch":
        return launch(args, jobs, sys.argv[1:] if argv is None else argv)
    running = [job for job in jobs if job.run_state is RunState.RUNNING]
    if running:
        print(f"{len(running)} of the incomplete ones are running and stay.")
    doomed = [job for job in jobs if job.state == Job.INCOMPLETE and job not in running]
    print(f"About to delete {len(doomed)} jobs.")
    if doomed:
        if not args.skip_confirmation:
            ask_for_confirmation()
        # Some may have started while we waited for the answer.
        Job.delete([job for job in doomed if job.looked_at_again().run_state is not RunState.RUNNING])
    return 0


def __getattr__(name: str) -> object:
    if name == "DATASETS":
        from domainbed.datasets import DATASETS as ALL_DATASETS

        return [dataset for dataset in ALL_DATASETS if "Debug" not in dataset]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    run_script(main)
