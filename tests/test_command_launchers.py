import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed.command_launchers import REGISTRY, dummy_launcher, local_launcher, multi_gpu_launcher
from domainbed.errors import UnknownName, UsageError

ROOT = Path(__file__).parents[1]


def test_the_references_launchers_are_there():
    assert {"local", "dummy", "multi_gpu"} <= set(REGISTRY)
    assert REGISTRY["local"] is local_launcher
    with pytest.raises(UnknownName, match="Command launcher not found: locl"):
        REGISTRY["locl"]


def test_dummy_prints_and_runs_nothing(tmp_path, capsys):
    commands = [f"touch {tmp_path}/{i}" for i in range(3)]
    dummy_launcher(commands)
    assert capsys.readouterr().out.splitlines() == [f"Dummy launcher: {command}" for command in commands]
    assert not list(tmp_path.iterdir())


def test_local_runs_everything_and_keeps_the_callers_list(tmp_path, capfd):
    commands = [f"echo $OMP_NUM_THREADS > {tmp_path}/{i}; exit {i}" for i in range(4)]
    given = list(commands)
    assert local_launcher(given, workers=2) == [0, 1, 2, 3]
    assert given == commands
    # The cores are divided among the workers.
    assert len({path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}) == 1
    assert int((tmp_path / "0").read_text(encoding="utf-8")) >= 1
    assert "4/4" in capfd.readouterr().err


def test_python_is_this_interpreter(tmp_path):
    code = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'which')!r}).write_text(sys.executable)"
    assert local_launcher([f"python -c {shlex.quote(code)}"]) == [0]
    assert (tmp_path / "which").read_text(encoding="utf-8") == sys.executable


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


def test_multi_gpu_runs_several_on_a_gpu_if_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    # Four that wait for each other: with fewer at a time this would never end.
    meet = f"while [ $(ls {tmp_path} | wc -l) -lt 4 ]; do sleep 0.02; done"
    commands = [f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/{i}; {meet}" for i in range(4)]
    assert multi_gpu_launcher(commands, workers=2) == [0] * 4
    seen = sorted(path.read_text(encoding="utf-8").strip() for path in tmp_path.iterdir())
    assert seen == ["0", "0", "1", "1"]


@pytest.mark.parametrize("visible", ["", "-1", ","])
def test_multi_gpu_without_a_gpu_refuses(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = ["true"]
    with pytest.raises(UsageError, match="needs a GPU, and there is none here; use --command_launcher local"):
        multi_gpu_launcher(given)
    assert given == ["true"]


@pytest.mark.parametrize("works", [True, False])
def test_a_forks_own_module_adds_launchers(tmp_path, works):
    (tmp_path / "facebook.py").write_text(
        ("" if works else "import a_module_that_is_not_there\n")
        + "def register_command_launchers(registry):\n    registry['cluster'] = print\n",
        encoding="utf-8",
    )
    code = (
        f"import domainbed; domainbed.__path__.append({str(tmp_path)!r})\n"
        "from domainbed.command_launchers import REGISTRY\n"
        "print('local' in REGISTRY, 'cluster' in REGISTRY)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"True {works}\n"
    assert ("skipped: No module named 'a_module_that_is_not_there'" in done.stderr) is not works
