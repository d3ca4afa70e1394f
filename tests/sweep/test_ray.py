"""The launcher `ray`: its checks, and sweeps on a real Ray of several nodes on this machine."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest

from domainbed.errors import UsageError
from domainbed.sweep.launchers import COMMON_FLAGS, LaunchOptions
from domainbed.sweep.process import BUSY
from domainbed.sweep.ray_address import connection_failure, named_address
from domainbed.sweep.ray_launcher import ray_launcher
from domainbed.sweep.ray_runs import exported, run_one
from domainbed.training.claims import Claim, latest_claim
from domainbed.training.run_state import RunState, failure_reason, run_state

ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--datasets", "Debug28", "--algorithms", "ERM", "--n_hparams", "1", "--single_test_envs"),
    *("--hparams", '{"batch_size": 8}', "--skip_model_save", "--skip_confirmation", "--quiet"),
    *("--steps", "80", "--checkpoint_freq", "40", "--evaluate", "selection", "--command_launcher", "ray"),
    *("--checkpoint_every", "0"),
)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


def test_without_ray_the_error_says_what_to_install_and_nothing_is_written(
    forked_script, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    rejected = forked_script("sweep", "launch", *FLAGS, "--output_dir", "sweep")
    assert rejected.returncode == 2
    assert rejected.stderr == 'error: launcher ray needs Ray: pip install "domainbed-gs[ray]".\n'
    assert not list(tmp_path.iterdir())


@pytest.fixture
def listening():
    """`listening()`: a socket that listens on a free port of this machine."""
    with contextlib.ExitStack() as sockets:

        def listen():
            made = sockets.enter_context(socket.socket())
            made.bind(("127.0.0.1", 0))
            made.listen(0)
            return made

        yield listen


@pytest.fixture
def refused(listening):
    """A port that refuses connections."""
    closed = listening()
    port = closed.getsockname()[1]
    closed.close()
    return port


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "ray://127.0.0.1:{}/namespace"])
def test_an_address_must_accept_connections(address, listening, refused):
    open_port = listening().getsockname()[1]
    assert connection_failure(address.format(open_port)) == ""
    reason = f"TCP connection to 127.0.0.1, port {refused}: Connection refused"
    assert connection_failure(address.format(refused)) == reason


def test_an_address_that_does_not_answer_is_given_up_after_the_timeout(listening):
    full = listening()
    port = full.getsockname()[1]
    waiting = [socket.socket() for _ in range(3)]  # more than wait to be accepted: others get no answer
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    reason = f"TCP connection to 127.0.0.1, port {port}: no answer in 0.2 s"
    assert connection_failure(f"127.0.0.1:{port}", timeout=0.2) == reason
    for each in waiting:
        each.close()


@pytest.mark.parametrize(
    "address", ["host", "127.0.0.1:port", "127.0.0.1:99999", "other://127.0.0.1:1", "::1"]
)
def test_ray_itself_checks_addresses_that_name_no_port_of_a_host(address):
    assert connection_failure(address) == ""


def test_the_last_cluster_of_this_machine_may_be_gone(monkeypatch, tmp_path, refused):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert connection_failure("auto") == ""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{refused}")
    assert connection_failure("auto").endswith(f"port {refused}: Connection refused")


def test_the_flag_goes_before_the_variable_unless_it_is_auto(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "there:1")
    assert [named_address(flag) for flag in (None, "auto", "local", "here:2")] == [
        *("there:1", "there:1", "local", "here:2")
    ]
    monkeypatch.delenv("RAY_ADDRESS")
    assert [named_address(flag) for flag in (None, "auto", "here:2")] == [None, "auto", "here:2"]


@needs_ray
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_launch_without_a_cluster_at_its_address_says_so_at_once(by, refused, monkeypatch):
    address = f"127.0.0.1:{refused}"
    if by == "variable":
        monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(UsageError) as error:
        ray_launcher(["true"], LaunchOptions(ray_address=address if by == "flag" else None))
    assert time.monotonic() - began < 60  # Ray itself takes two minutes
    assert str(error.value) == (
        f"no Ray cluster can be reached at {address} (TCP connection to 127.0.0.1, port {refused}: "
        "Connection refused); start it, or give the --ray_address of one that runs, or local"
    )


def test_ray_takes_the_flags_of_all_launchers_but_the_number_of_workers_which_ray_chooses():
    assert set(COMMON_FLAGS) - set(ray_launcher.flags) == {"workers"}
    assert (ray_launcher.waits, ray_launcher.elsewhere) == (True, True)
    assert ray_launcher.concurrency(LaunchOptions()) is None


def test_runs_get_the_launching_process_variables_with_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"plugins{os.pathsep}/elsewhere")
    monkeypatch.setenv("DOMAINBED_CACHE", "/cache")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # Ray sets it on each node
    assert exported() == {
        "PYTHONPATH": f"{tmp_path}/plugins{os.pathsep}/elsewhere",
        "DOMAINBED_CACHE": "/cache",
        **{name: value for name, value in exported().items() if name == "DOMAINBED_PLUGINS"},
    }


def test_a_task_leaves_a_run_that_another_process_works_on_or_has_finished(tmp_path):
    command = f"python -m domainbed.scripts.train --nosuch --output_dir {tmp_path}"
    task = (command, str(tmp_path), {}, 1, None)
    claim = Claim(tmp_path)
    assert run_one(*task) == BUSY
    claim.release(remove=True)
    (tmp_path / "done").touch()
    assert run_one(*task) == 0


def test_a_node_without_the_launch_folder_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"gone does not exist on .*; launch in a folder that all"):
        run_one("true", str(tmp_path / "gone"), {}, 1, None)


def children(pid):
    """All descendants of a process."""
    found = []
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (each / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(stat[1]) == pid:
                found += [int(each.name), *children(int(each.name))]
    return found


def training(sweep):
    """Process -> directory of each run that has done some updates and is running."""
    found = {}
    for records in sweep.glob("*/results.jsonl"):
        run = records.parent
        owner = latest_claim(run)[1]
        if run_state(run) is RunState.RUNNING and owner and records.stat().st_size:
            found[owner["pid"]] = run
    return found


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each, and a head without any."""
    folder = tempfile.mkdtemp(prefix="r.", dir="/tmp")  # short, for the names of sockets
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        node = {"object_store_memory": 2**27}
        head = {"num_cpus": 0, "include_dashboard": False, **node}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                nodes.add_node(num_cpus=1, **node)
            yield nodes
        finally:
            nodes.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def launch(tmp_path):
    """`launch(address, trials)`: a launch of 3 runs a trial into tmp_path/sweep. Killed at the end."""
    started = []

    def start(address, trials):
        command = [sys.executable, "-m", "domainbed.scripts.sweep", "launch", *FLAGS, "--output_dir", "sweep"]
        command += ["--n_trials", str(trials), "--ray_address", address]
        started.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


def check_each_done_once(sweep, number, records_of):
    runs = [path for path in sweep.iterdir() if path.is_dir()]
    assert len(runs) == number
    for run in runs:
        assert run_state(run) is RunState.DONE, failure_reason(run)
        assert [record["step"] for record in records_of(run)] == [0, 40, 79]
        assert not list(run.glob("attempt-*"))


@needs_ray
@pytest.mark.slow
def test_cancelled_runs_give_their_claims_back_and_another_ray_resumes_them(
    cluster, launch, tmp_path, wait_until, records_of
):
    sweep = tmp_path / "sweep"
    first = launch(cluster.address, 1)
    wait_until(lambda: training(sweep) or first.poll() is not None)
    pid = next(iter(training(sweep)))
    worker = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    run = training(sweep)[pid]
    os.kill(worker, signal.SIGTERM)  # as on a node that leaves: the run starts again
    wait_until(lambda: pid not in training(sweep))
    wait_until(lambda: run in training(sweep).values() or run_state(run) is RunState.DONE)
    wait_until(lambda: training(sweep) or first.poll() is not None)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 3, first.stderr.read()
    states = {path: run_state(path) for path in sweep.iterdir() if path.is_dir()}
    assert RunState.RUNNING not in states.values()
    assert any(state is RunState.PREEMPTED for state in states.values())
    second = launch("local", 1)
    output, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert re.search(r"^Ray: 1 nodes with \d+ CPUs and 0 GPUs; a run takes 1 CPUs, 0 GPUs\.$", output, re.M)
    check_each_done_once(sweep, 3, records_of)


@needs_ray
@pytest.mark.slow
def test_a_killed_node_of_two_loses_and_doubles_no_run(cluster, launch, tmp_path, wait_until, records_of):
    def with_checkpoints():
        return {pid: run for pid, run in training(sweep).items() if (run / "checkpoint.pt").exists()}

    sweep = tmp_path / "sweep"
    launched = launch(cluster.address, 2)
    wait_until(lambda: with_checkpoints() or launched.poll() is not None)
    pid, run = with_checkpoints().popitem()
    nodes = {each.all_processes["raylet"][0].process.pid: each for each in cluster.worker_nodes}
    raylet, node = next((raylet, node) for raylet, node in nodes.items() if pid in children(raylet))
    processes = [raylet, *children(raylet)]
    for each in processes:
        os.kill(each, signal.SIGSTOP)
    assert run_state(run) is RunState.RUNNING
    for each in processes:
        os.kill(each, signal.SIGKILL)
    # As from another machine, which cannot look at this one's processes: silent for 45 s already.
    number, owner = latest_claim(run)
    claim = run / f"claim-{number}.json"
    claim.write_text(json.dumps({**owner, "processes": "another machine"}), encoding="utf-8")
    os.utime(claim, (time.time() - 45,) * 2)
    cluster.remove_node(node, allow_graceful=False)
    _, errors = launched.communicate(timeout=500)
    assert launched.returncode == 0, errors
    check_each_done_once(sweep, 6, records_of)
    assert "Resumes after" in (run / "out.txt").read_text(encoding="utf-8")
