"""A thousand runs by workers that are killed: each is done once, in little memory."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_thousand_runs_by_sixteen_workers_that_are_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "sweep_scale.py", "--runs", "1000", "--kill_every", "1"],
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    runs, killed, *_, memory, _, collect_memory = (float(cell.replace(",", "")) for cell in cells)
    assert runs == 1000
    assert killed >= 5
    assert memory < 300
    assert collect_memory < 1000
