"""What make does is what the documents say."""

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECT = "python -m domainbed.scripts.collect_results --input_dir"
TRAIN = "python -m domainbed.scripts.train"


def test_make_runs_the_lines_that_the_readme_gives_for_it():
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = [line for line in shown.splitlines() if line.startswith(".venv/bin/python -m domainbed")]
    assert len(made) == 2
    assert all(f"\n{line}\n" in text for line in made)


def test_a_hook_checks_before_a_commit_what_make_lint_checks():
    shown = subprocess.run(
        ["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    checks = [line for line in shown.splitlines() if line.startswith((".venv/bin/ruff", ".venv/bin/mypy"))]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"entry: (.*)", hooks) == checks


def test_make_quick_names_tests_that_exist():
    command = ["make", "-n", "quick"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    patterns = [word for word in shown.split() if word.startswith("tests/")]
    assert "tests/gradients" in patterns
    assert not [pattern for pattern in patterns if not list(ROOT.glob(pattern))]


@pytest.fixture
def clone(tmp_path):
    """A fresh clone whose quickstart has two trials instead of eight, and three steps."""
    path = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, path], check=True)
    quickstart = path / "sweeps/quickstart.toml"
    shorter = (
        quickstart.read_text().replace("n_trials = 8", "n_trials = 2").replace("steps = 121", "steps = 3")
    )
    quickstart.write_text(shorter)
    yield path
    shutil.rmtree(path)


UNKNOWN_USER = (
    "setpriv --reuid=54321 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
"""Runs a command as a user that the system does not know. It may read what root may read."""


def as_a_stranger(command, clone, without=()):
    """Run a command in the clone, with nothing of this process's environment in the way."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", *without)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, shell=True, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_make_run_with_nothing_prepared_and_again_at_no_cost(clone):
    for expected in ("About to launch 32 jobs.", "Nothing to launch in runs/quickstart."):
        shown = as_a_stranger("make run", clone)
        assert expected in shown
        assert "Figure: runs/quickstart/figures/EmojiStyles.png" in shown


@pytest.mark.slow
def test_the_lines_that_need_no_make(clone, blocks):
    block = next(block for block in blocks("console") if block.startswith("python3 -m venv"))
    shown = [as_a_stranger(line, clone) for line in block.splitlines()]
    assert "Figure: runs/quickstart/figures/EmojiStyles.png" in shown[-1]


@pytest.mark.slow
def test_a_release_works_in_an_environment_of_its_own(clone):
    listed = as_a_stranger("make release-check", clone)
    assert all(name in listed for name in ("AgrSum", "Debug28", "wide_resnet", "slurm", "domainbed_gs"))
    sweeps = {f"domainbed/sweeps/{path.name}" for path in (clone / "sweeps").glob("*.toml")}
    with zipfile.ZipFile(next((clone / "dist").glob("*.whl"))) as wheel:
        installed = {*wheel.namelist()}
    assert installed >= sweeps | {"domainbed/py.typed", "domainbed_gs/py.typed"}
    assert not [name for name in installed if name.startswith(("tests/", "docs/", "benchmarks/"))]
    with tarfile.open(next((clone / "dist").glob("*.tar.gz"))) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert files >= {
        "sweeps/quickstart.toml",
        "docs/report.md",
        "tests/conftest.py",
        "Makefile",
        "CITATION.cff",
    }
    fresh = clone / "build/fresh"
    place = clone.parent / "empty"
    place.mkdir()
    place.chmod(0o777)
    user = UNKNOWN_USER if os.getuid() == 0 else ""
    for command in (
        "domainbed doctor",
        "domainbed list",
        "domainbed sweep launch --config quickstart --steps 2 --skip_confirmation --quiet",
        "domainbed collect --input_dir runs/quickstart --paired --html page.html",
    ):
        as_a_stranger(f"{user} {fresh}/bin/{command}", place, without=("HOME", "XDG_CACHE_HOME"))
    assert (place / "page.html").stat().st_size > 10_000
    shutil.rmtree(place)
    for command in (
        f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --steps 1 --output_dir sweep/run",
        f"{COLLECT} sweep --html page.html",
        """python -c "from domainbed_gs.report.published import load; load('iccv2021', 'iccv2021')\"""",
    ):
        as_a_stranger(f"bin/{command}", fresh)
    assert (fresh / "page.html").stat().st_size > 10_000
