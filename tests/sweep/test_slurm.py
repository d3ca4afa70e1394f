"""The launcher `slurm`: its checks, and a sweep on a real Slurm cluster."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.launchers import LaunchOptions
from domainbed.sweep.slurm import ArrayWorker, slurm_launcher
from domainbed.training.claims import latest_claim
from domainbed.training.run_state import RunState, run_state

ROOT = Path(__file__).parents[2]
TOOL = Path(os.environ.get("SLURM_LOCAL", ROOT.parent / "shared" / "tools" / "slurm-local"))
"""A script with commands `start` and `clean` for a cluster on this machine in SLURM_LOCAL_DIR."""

FLAGS = (
    *("--datasets", "Debug28", "--algorithms", "ERM", "--n_hparams", "1", "--single_test_envs"),
    *("--hparams", '{"batch_size": 8}', "--skip_model_save", "--skip_confirmation", "--quiet"),
)
SLURM = ("--command_launcher", "slurm")


def test_without_slurm_the_launcher_fails_before_it_writes_anything(forked_script, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    rejected = forked_script("sweep", "launch", *FLAGS, *SLURM, "--output_dir", "sweep")
    assert rejected.returncode == 2
    assert rejected.stderr == (
        "error: launcher slurm needs sbatch, which was not found; "
        "launch from a login node, or use --command_launcher local.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Fake Slurm commands that record whether they were called."""
    for name in ("sbatch", "srun"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.mark.usefixtures("fake_slurm")
def test_without_submitit_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=re.escape('pip install "domainbed-gs[slurm]"')):
        slurm_launcher.check()


@pytest.mark.usefixtures("fake_slurm")
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit")
@pytest.mark.parametrize(
    ("folder", "flags", "message"),
    [
        ("a\ntouch owned", {}, "accepts no line breaks"),
        ("a%j", {}, "accepts no % in the path of a log"),
        ("a", {"slurm_partition": "main\ntouch owned"}, "slurm_partition"),
        ("a", {"slurm_constraint": "x\\"}, "slurm_constraint"),
    ],
)
def test_values_that_would_break_the_batch_script_are_rejected(tmp_path, folder, flags, message):
    with pytest.raises(UsageError, match=message):
        slurm_launcher(["true"], LaunchOptions(output_dir=tmp_path / folder, **flags))
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit")
@pytest.mark.parametrize("name", ["checkpoint", "__submitit_checkpoint__"])
def test_a_worker_requeues_itself_under_both_names_that_submitit_looks_for(name):
    worker = ArrayWorker("sweep", 2, 1, None)
    assert getattr(worker, name)().function == worker


@pytest.fixture
def cluster():
    """Environment of a cluster of three nodes on this machine."""
    if not TOOL.exists():
        pytest.skip(f"{TOOL}, which starts a cluster (or name one in SLURM_LOCAL), is missing")
    if shutil.which("sbatch") is None or importlib.util.find_spec("submitit") is None:
        pytest.skip("Slurm (Debian: slurm-wlm, munge) or submitit is not installed")
    folder = tempfile.mkdtemp(prefix="slurm.", dir="/tmp")
    settings = {"DIR": folder, "ACCT": "no", "NODES": "3", "CPUS": "1", "MEM": "2048", "REQUEUE_DELAY": "5"}
    env = os.environ | {f"SLURM_LOCAL_{name}": value for name, value in settings.items()}
    started = subprocess.run([TOOL, "start"], env=env, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"no cluster can be started here: {started.stderr.strip()}")
    yield env | {"SLURM_CONF": f"{folder}/slurm.conf", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([TOOL, "clean"], env=env, check=True, capture_output=True)


@pytest.mark.slow
def test_one_run_on_two_nodes_is_stopped_before_its_time_is_over_and_resumed(
    cluster, tmp_path, records_of, wait_until
):
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    script = next(block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "torchrun" in block)
    changes = {
        "$first:29500": "localhost:29533",  # the names of the nodes lead nowhere
        "srun torchrun": f"srun {sys.executable} -m torch.distributed.run",
        "--cpus-per-task 8 --gpus-per-node 1": "--cpus-per-task 1",
        "--steps 300": "--steps 60 --checkpoint_freq 20 --evaluate selection --skip_model_save",
    }
    for before, after in changes.items():
        assert before in script
        script = script.replace(before, after)
    (tmp_path / "run.sbatch").write_text(script, encoding="utf-8")

    def slurm(*command):
        done = subprocess.run(command, env=cluster, cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout

    number = slurm("sbatch", "--parsable", "run.sbatch").strip()
    run = tmp_path / "shared"
    wait_until(lambda: (run / "results.jsonl").exists() and (run / "results.jsonl").stat().st_size)
    slurm("scancel", "--signal", "TERM", number)  # what Slurm sends before the end of the job's time
    wait_until(lambda: run_state(run) is RunState.DONE, seconds=300)
    wait_until(lambda: not slurm("squeue", "--noheader"))
    shown = slurm("scontrol", "show", "job", number)
    assert "Restarts=1" in shown
    assert "NumNodes=2" in shown
    assert [record["step"] for record in records_of(run)] == [0, 20, 40, 59]
    assert "Resumes after" in (run / "out.txt").read_text(encoding="utf-8")


def task_of(pid):
    """Index of the task in the Slurm array that the process belongs to; None if there is none."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((int(v[20:]) for v in variables if v.startswith(b"SLURM_ARRAY_TASK_ID=")), None)


def tasks_in_training(sweep):
    """Directory of the run that each task of the array trains, by the task's index."""
    found = {}
    for run in sweep.glob("*/results.jsonl"):
        owner = latest_claim(run.parent)[1]
        if run_state(run.parent) is RunState.RUNNING and owner and run.stat().st_size:
            found[task_of(owner["pid"])] = run.parent
    return found


@pytest.mark.slow
def test_three_slurm_workers_do_twelve_runs_although_one_is_cancelled_and_one_requeued(
    cluster, tmp_path, records_of, wait_until
):
    def slurm(*command):
        return subprocess.run(command, env=cluster, check=True, capture_output=True, text=True).stdout

    sweep = tmp_path / 'my sweep\'s "$(touch owned)"; touch owned'
    launch = [sys.executable, "-m", "domainbed.scripts.sweep", "launch", *FLAGS, *SLURM]
    launch += ["--n_trials", "4", "--steps", "80", "--checkpoint_freq", "40", "--evaluate", "selection"]
    launch += ["--slurm_array", "3", "--slurm_cpus", "1", "--slurm_mem", "1G", "--slurm_time", "30"]
    launch += ["--workers", "1", "--output_dir", str(sweep), "--data_dir", "$(touch owned)"]
    launched = subprocess.run(launch, env=cluster, cwd=tmp_path, capture_output=True, text=True)
    assert launched.returncode == 0, launched.stderr
    job = re.search(r"^Slurm job (\d+): 3 workers", launched.stdout, re.MULTILINE)[1]
    wait_until(lambda: {0, 1} <= tasks_in_training(sweep).keys())
    slurm("scancel", f"{job}_0")
    slurm("scancel", "--signal", "USR2", f"{job}_1")  # what Slurm sends before the end of a worker's time
    runs = [path for path in sweep.iterdir() if path.is_dir() and path.name != "slurm"]
    assert len(runs) == 12
    wait_until(lambda: all(run_state(run) is RunState.DONE for run in runs), seconds=400)
    wait_until(lambda: not slurm("squeue", "--noheader", "--array"))
    assert "Restarts=1" in slurm("scontrol", "show", "job", f"{job}_1")
    assert "JobState=CANCELLED" in slurm("scontrol", "show", "job", f"{job}_0")
    for run in runs:
        assert [record["step"] for record in records_of(run)] == [0, 40, 79]
        assert not list(run.glob("attempt-*"))
    assert any("Resumes after" in (run / "out.txt").read_text(encoding="utf-8") for run in runs)
    assert not list(tmp_path.rglob("owned"))
