import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "method_cost.py"


@pytest.mark.slow
def test_every_method_of_the_sweep_file_but_erm_has_a_cost(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "1", "--warmup", "0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    names = [row[0].removeprefix("| ") for row in rows]
    assert len(names) == 20  # nineteen methods, and the two kinds of GGA's updates
    assert {"AgrSum", "GAM", "GGA, an update with a search"} <= {*names}
    assert all(float(row[1]) > 0 for row in rows)
