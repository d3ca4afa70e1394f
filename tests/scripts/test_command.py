"""The command `domainbed`: what it lists, what it passes on, and its completion."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.scripts import command
from domainbed.sweep import flags as sweep_flags
from domainbed.sweep.commands import COMMANDS as SWEEP_COMMANDS
from domainbed.version import __version__

NAMES = list(command.COMMANDS)


def help_of(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(argv)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def arguments_of_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv])


def test_the_help_fits_a_screen_and_lists_all_commands(capsys):
    lines = help_of(["--help"], capsys).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    listed = [line.split()[0] for line in lines if re.match(r"  [a-z]\w+  ", line)]
    assert listed == NAMES
    assert {"train", "sweep", "collect", "list", "download", "top", "doctor", "plan", "similarity"} <= {
        *NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help_under_its_own_name_with_an_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of([name, "--help"], capsys)
    assert shown.startswith(f"usage: domainbed {name} ")
    flags, _, examples = shown.partition("\nexamples:\n")
    assert f"\n    domainbed {name}" in examples
    assert max(map(len, shown.splitlines())) <= 80
    headings = re.findall(r"^\S.*:$", flags, re.M)
    assert len(headings) >= (2 if flags.count("\n  --") > 10 else 1)  # many flags are in groups


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sweep"])
def test_examples_of_the_help_are_flags_that_the_command_takes(name, capsys):
    _, _, examples = help_of([name, "--help"], capsys).partition("\nexamples:\n")
    for line in re.findall(rf"^    domainbed {name}(.*)", examples, re.M):
        command.COMMANDS[name].build_parser().parse_args(shlex.split(line.partition(">")[0]))


def test_examples_of_sweep_are_commands_that_it_takes():
    for name, each in SWEEP_COMMANDS.items():
        for words in each.examples:
            args = sweep_flags.parse(shlex.split(words))
            assert args.command == name


@pytest.mark.parametrize(
    ("name", "takes", "lacks"),
    [
        ("launch", {"--n_trials", "--dry_run", "--slurm_time", "--trackers"}, {"watch"}),
        ("status", {"--output_dir", "--config", "--[no-]watch"}, {"n_trials", "--workers", "--steps"}),
        ("retry", {"--workers", "--ray_cpus", "--[no-]dry_run"}, {"n_trials", "watch", "--steps"}),
        ("work", {"--workers", "--time_limit"}, {"n_trials", "--slurm_time", "watch"}),
        ("delete_incomplete", {"--n_trials", "--steps"}, {"--slurm_time", "watch"}),
    ],
)
def test_the_help_of_a_sweep_command_has_its_own_flags(name, takes, lacks, capsys):
    shown = help_of(["sweep", name, "--help"], capsys)
    assert shown.startswith(f"usage: domainbed sweep {name} [options]\n")
    assert not [each for each in takes if each.replace("--d", "--[no-]d") not in shown and each not in shown]
    assert not [each for each in lacks if each in shown]
    assert len(help_of(["sweep", "--help"], capsys).splitlines()) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_the_module_of_each_command_still_runs_by_itself(name):
    module = command.COMMANDS[name].module
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_a_misspelt_command_gets_the_nearest_ones():
    with pytest.raises(UnknownName) as caught:
        command.main(["swep", "launch"])
    assert "Did you mean sweep?" in "".join(caught.value.__notes__)


def test_without_a_command_it_shows_its_help(capsys):
    assert command.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_the_version(capsys):
    assert help_of(["--version"], capsys) == f"domainbed-gs {__version__}\n"


def test_its_help_loads_no_heavy_library():
    code = "import sys\nfrom domainbed.scripts.command import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'pandas', 'scipy', 'matplotlib') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_flags_and_status_are_those_of_the_script(capsys):
    assert command.main(["list", "splits"]) == 0
    assert "stratified" in capsys.readouterr().out
    with pytest.raises(UsageError, match="needs the sweep directory"):
        command.main(["sweep", "status"])


def test_a_plugin_adds_a_command(tmp_path):
    (tmp_path / "greeting.py").write_text(
        "from domainbed.scripts.command import COMMANDS, Command\n"
        "COMMANDS['greet'] = Command('greeting', 'say hello')\n"
        "def main(argv):\n    print('hello', *argv)\n    return 3\n"
    )
    code = "from domainbed.scripts.command import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "greet", "you"],
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}", "DOMAINBED_PLUGINS": "greeting"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (3, "hello you\n")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_of_a_shell_knows_commands_and_flags(shell, capsys, tmp_path):
    assert command.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in (*NAMES, "--n_trials", "--relaunch_best"))
    assert "single_domain" in script  # a value of --grouping
    if shell == "bash":
        (tmp_path / "completion").write_text(script)
        completed = subprocess.run(
            ["bash", "-c", f"source {tmp_path}/completion; complete -p domainbed"],
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 0, completed.stderr
