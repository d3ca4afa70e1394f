"""The scripts and commands of docs/clusters.md that no test runs are at least well formed."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from domainbed.sweep.flags import parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SCRIPTS = [block for block in BLOCKS if block.startswith("#!")]
COMMANDS = [
    line
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(exec )?domainbed sweep ", line)
]


@pytest.mark.parametrize("script", SCRIPTS, ids=["slurm", "grid_engine", "pbs"])
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_flags_that_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command.removeprefix("exec "))
    assert parse(words[2:]).command in ("launch", "work")


def test_the_job_for_kubernetes_starts_workers_that_may_be_stopped():
    (text,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    job = yaml.safe_load(text)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    assert parse(container["command"][2:]).command == "work"
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert pod["terminationGracePeriodSeconds"] > 60  # what a worker gives its runs to write checkpoints
