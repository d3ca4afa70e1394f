"""How a sweep grows: many runs, many workers, some of which are killed.

    python benchmarks/sweep_scale.py [--runs 1000 10000 30000] [--workers 16] [--kill_every 2]

The sweep is launched with the launcher `dummy`, which leaves its runs to workers. They take runs from the
sweep directory as `sweep work` does, with its claims, and write records as a run does; in place of training
there is nothing, so that all that is measured is overhead. A worker is killed by SIGKILL every two seconds,
and another one starts. Then `sweep launch --dry_run` ("again"), `sweep status` and `collect_results` read the
sweep. Each command runs in a process of its own.
Goals: every run done once; time in proportion to the number of runs; at most 300 MB a worker and `status`, at
most 1 GB for `collect_results`. A launch imports torch, which takes about 500 MB by itself. A run is one
claim, and one more for each worker that was killed in it.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from scale_worker import STEPS
from timing import print_environment

from domainbed.records.results_file import RESULTS_FILE, read_records
from domainbed.sweep.job import Job
from domainbed.sweep.worker import sweep_jobs

HERE = Path(__file__).parent
ALGORITHMS = ("ERM", "AgrSum", "AgrRand", "PCGrad", "IRM", "Fishr", "SAM", "Mixup", "CORAL", "VREx")
MEASURED = """
import sys
sys.path.append(sys.argv[1])
from timing import peak_memory
from domainbed.scripts.command import main
main(sys.argv[2:])
print(peak_memory(), file=sys.stderr)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000, 30_000])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--kill_every", type=float, default=2.0, help="seconds")
    args = parser.parse_args()
    print_environment()
    seconds, memory = ["launch", "again", "status", "collect"], ["worker", "launch", "collect"]
    columns = ["runs", "killed", "runs/s", "ms/run", *seconds, *memory]
    units = [""] * 4 + ["s"] * len(seconds) + ["MB"] * len(memory)
    print(f"\n| {' | '.join(columns)} |\n|{'---:|' * len(columns)}")
    print(f"| {' | '.join(units)} |")
    for count in args.runs:
        with tempfile.TemporaryDirectory() as name:
            print(
                f"| {' | '.join(scale(Path(name) / 'sweep', count, args.workers, args.kill_every))} |",
                flush=True,
            )


def scale(folder, count, workers, kill_every):
    """The cells of a row."""
    trials = -(-count // (4 * len(ALGORITHMS)))
    flags = [
        *("--datasets", "EmojiStyles", "--algorithms", *ALGORITHMS, "--n_trials", str(trials)),
        *("--n_hparams", "1", "--single_test_envs", "--output_dir", str(folder), "--quiet"),
    ]
    first, most = measured("sweep", "launch", "--command_launcher", "dummy", "--skip_confirmation", *flags)
    jobs = sweep_jobs(folder)
    began = time.perf_counter()
    killed, of_workers = work(folder, workers, kill_every)
    wall = time.perf_counter() - began
    check(jobs)
    again, of_launch = measured("sweep", "launch", "--dry_run", *flags)
    status, of_status = measured("sweep", "status", "--output_dir", str(folder))
    collect, of_collect = measured("collect", "--input_dir", str(folder))
    return [
        *(f"{len(jobs):,}", str(killed), f"{len(jobs) / wall:.0f}", f"{1e3 * wall / len(jobs):.1f}"),
        *(f"{seconds:.1f}" for seconds in (first, again, status, collect)),
        *(f"{size / 1e6:.0f}" for size in (max(of_workers, of_status), max(most, of_launch), of_collect)),
    ]


def work(folder, workers, kill_every):
    """Let workers do all runs; returns how many were killed, and the largest memory of one."""
    log = folder.with_name("workers.log")
    processes = [start(folder, log) for _ in range(workers)]
    killed, next_kill = 0, time.monotonic() + kill_every
    while alive := [process for process in processes if process.poll() is None]:
        if time.monotonic() > next_kill:
            random.choice(alive).kill()
            processes.append(start(folder, log))
            killed += 1
            next_kill += kill_every
        time.sleep(0.05)
    statuses = Counter(process.returncode for process in processes)
    assert statuses.keys() <= {0, -signal.SIGKILL}, (
        f"exit statuses {statuses}\n{log.read_text(errors='replace')}"
    )
    return killed, max(int(process.stdout.read() or 0) for process in processes)


def start(folder, log):
    """A worker, whose errors are appended to `log`."""
    command = [sys.executable, str(HERE / "scale_worker.py"), str(folder)]
    with log.open("a") as errors:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)


def check(jobs: list[Job]):
    """Each run is done, and has each of its records once."""
    for job in jobs:
        path = Path(job.output_dir)
        assert (path / "done").exists(), path
        assert [record["step"] for record in read_records(path / RESULTS_FILE).records] == [*STEPS], path


def measured(*words):
    """Seconds and bytes of memory of a command."""
    began = time.perf_counter()
    code = [sys.executable, "-c", MEASURED, str(HERE), *words]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, int(done.stderr.split()[-1])


if __name__ == "__main__":
    main()
