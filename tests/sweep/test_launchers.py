"""Launchers by name, the options they take, and launchers of plugins and forks."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from domainbed import command_launchers
from domainbed.errors import UnknownName, UsageError
from domainbed.sweep.devices import default_slots
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import (
    COMMON_FLAGS,
    LAUNCHER_FLAGS,
    RAY_FLAGS,
    REGISTRY,
    SLURM_FLAGS,
    FunctionLauncher,
    Launcher,
    LaunchOptions,
    check_flags,
    dummy_launcher,
    launcher_named,
)
from domainbed.sweep.local import local_launcher, multi_gpu_launcher

ROOT = Path(__file__).parents[2]


def test_upstreams_launchers_are_registered():
    assert {"local", "dummy", "multi_gpu"} <= set(REGISTRY)
    assert REGISTRY["local"] is local_launcher
    with pytest.raises(UnknownName, match="Command launcher not found: locl"):
        REGISTRY["locl"]


def test_upstreams_import_path_has_the_launchers():
    assert command_launchers.REGISTRY is REGISTRY
    assert command_launchers.local_launcher is local_launcher
    assert command_launchers.dummy_launcher is dummy_launcher
    assert command_launchers.multi_gpu_launcher is multi_gpu_launcher


@pytest.fixture
def two_gpus(monkeypatch):
    """As where torch finds two GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_launchers_say_whether_they_wait_and_how_many_runs_they_run_at_a_time(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    options = LaunchOptions(workers=3, slurm_array=5)
    facts = {
        name: (launcher.waits, launcher.concurrency(options))
        for name, launcher in (
            (name, launcher_named(name)) for name in ("local", "multi_gpu", "dummy", "slurm")
        )
    }
    # Slurm's workers are assumed to be like this machine: three runs on each of two GPUs.
    assert facts == {"local": (True, 3), "multi_gpu": (True, 6), "dummy": (False, None), "slurm": (False, 30)}


def test_a_function_becomes_a_launcher_that_takes_no_options(monkeypatch):
    received = []
    monkeypatch.setitem(REGISTRY, "mine", received.append)
    launcher = launcher_named("mine")
    assert isinstance(launcher, FunctionLauncher)
    assert (launcher.waits, launcher.flags, launcher.concurrency(LaunchOptions())) == (False, (), None)
    launcher.check()
    launcher(["a", "b"], LaunchOptions(workers=2))
    launcher(("c",))
    assert received == [["a", "b"], ["c"]]


def test_a_launcher_of_a_plugin_gets_the_options(tmp_path, monkeypatch):
    class Recorder(Launcher):
        flags = ("workers",)

        def __call__(self, commands, options):
            self.received = commands, options

    monkeypatch.setitem(REGISTRY, "recorder", Recorder())
    job = Job({"dataset": "Debug28"}, str(tmp_path))
    options = LaunchOptions(output_dir=tmp_path, workers=3)
    Job.launch([job], launcher_named("recorder"), options)
    assert REGISTRY["recorder"].received == ([job.command_str], options)


def test_flags_that_a_launcher_does_not_use_are_refused_or_ignored(capsys):
    check_flags("slurm", COMMON_FLAGS + SLURM_FLAGS)
    check_flags("local", ["workers", "retries", "time_limit"])
    assert capsys.readouterr().out == ""
    # A sweep file for Slurm can be tried on this machine.
    check_flags("local", ["slurm_array", "workers"])
    assert capsys.readouterr().out == "Launcher local ignores --slurm_array.\n"
    check_flags("slurm", RAY_FLAGS[:1])
    assert capsys.readouterr().out == "Launcher slurm ignores --ray_address.\n"
    with pytest.raises(UsageError, match="launcher dummy takes no --workers"):
        check_flags("dummy", ["workers"])
    assert set(COMMON_FLAGS + SLURM_FLAGS + RAY_FLAGS) == set(LAUNCHER_FLAGS)


def test_dummy_prints_and_runs_nothing(tmp_path, capsys):
    commands = [f"touch {tmp_path}/{i}" for i in range(3)]
    dummy_launcher(commands)
    assert capsys.readouterr().out.splitlines() == [f"Dummy launcher: {command}" for command in commands]
    assert not list(tmp_path.iterdir())


def test_local_runs_everything_and_does_not_change_the_list(tmp_path, capfd):
    commands = [f"echo $OMP_NUM_THREADS > {tmp_path}/{i}; exit {i}" for i in range(4)]
    given = list(commands)
    assert local_launcher(given, LaunchOptions(workers=2)) == [0, 1, 2, 3]
    assert given == commands
    # The cores are divided among the workers.
    assert len({path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}) == 1
    assert int((tmp_path / "0").read_text(encoding="utf-8")) >= 1
    assert "4/4" in capfd.readouterr().err


def test_python_is_this_interpreter(tmp_path):
    code = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'which')!r}).write_text(sys.executable)"
    assert local_launcher([f"python -c {shlex.quote(code)}"]) == [0]
    assert (tmp_path / "which").read_text(encoding="utf-8") == sys.executable


@pytest.mark.usefixtures("two_gpus")
def test_multi_gpu_shows_each_command_one_gpu(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,,7")
    monkeypatch.chdir(tmp_path)
    commands = [f"echo $CUDA_VISIBLE_DEVICES > {i}; sleep 0.05; exit {i}" for i in range(6)]
    given = list(commands)
    assert multi_gpu_launcher(given) == list(range(6))
    assert given == commands
    seen = [(tmp_path / str(i)).read_text(encoding="utf-8").strip() for i in range(6)]
    assert seen[:2] == ["4", "7"]
    assert set(seen) == {"4", "7"}
    assert "WARNING: using experimental multi_gpu_launcher." in capfd.readouterr().out


@pytest.mark.usefixtures("two_gpus")
def test_multi_gpu_runs_several_commands_per_gpu_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    # Four commands wait for each other: with fewer at a time they would never end.
    meet = f"while [ $(ls {tmp_path} | wc -l) -lt 4 ]; do sleep 0.02; done"
    commands = [f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/{i}; {meet}" for i in range(4)]
    assert multi_gpu_launcher(commands, LaunchOptions(workers=2)) == [0] * 4
    seen = sorted(path.read_text(encoding="utf-8").strip() for path in tmp_path.iterdir())
    assert seen == ["0", "0", "1", "1"]


@pytest.mark.parametrize("visible", ["", "-1", ","])
def test_multi_gpu_without_a_gpu_is_refused(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = ["true"]
    message = "needs a GPU, and none was found; use --command_launcher local"
    with pytest.raises(UsageError, match=message):
        multi_gpu_launcher.check()
    with pytest.raises(UsageError, match=message):
        multi_gpu_launcher(given)
    assert given == ["true"]


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="this machine has GPUs")
def test_multi_gpu_is_refused_where_gpus_are_listed_and_the_driver_is_missing(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UsageError, match="needs a GPU, and none was found"):
        multi_gpu_launcher.check()
    assert not any(slot.environment for slot in default_slots())


def test_gpus_that_are_listed_and_do_not_exist_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UsageError, match=r"CUDA_VISIBLE_DEVICES is 0,1, and .* only the first 1; list GPUs"):
        multi_gpu_launcher.check()


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("imports", ["", "from domainbed.command_launchers import local_launcher\n"])
def test_the_module_of_a_fork_adds_launchers(tmp_path, works, imports):
    (tmp_path / "facebook.py").write_text(
        imports
        + ("" if works else "import a_module_that_does_not_exist\n")
        + "def register_command_launchers(registry):\n    registry['cluster'] = print\n",
        encoding="utf-8",
    )
    code = (
        f"import domainbed; domainbed.__path__.append({str(tmp_path)!r})\n"
        "from domainbed.scripts import sweep\n"
        "from domainbed.command_launchers import REGISTRY\n"
        "print('local' in REGISTRY, 'cluster' in REGISTRY)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"True {works}\n"
    assert ("skipped: No module named 'a_module_that_does_not_exist'" in done.stderr) is not works
