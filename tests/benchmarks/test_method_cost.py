import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "method_cost.py"


@pytest.mark.slow
def test_every_method_of_the_sweep_file_has_a_cost(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "1", "--warmup", "0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    rows = {line[0]: line[1:] for line in lines}
    assert len(rows) == len(lines) == 21  # twenty methods, and the two kinds of GGA's updates
    assert {"AgrSum", "GGA, an update with a search"} <= {*rows}
    assert all(float(row[0]) > 0 and float(row[2]) > 0 for row in rows.values())
    gradients = {name: float(row[3]) for name, row in rows.items()}
    # GAM differentiates at four points; LFME's experts process each minibatch once more.
    assert {name: gradients[name] for name in ("ERM", "AgrSum", "LFME", "GAM")} == {
        "ERM": 1,
        "AgrSum": 1,
        "LFME": 2,
        "GAM": 4,
    }
