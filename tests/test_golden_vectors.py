"""Every golden vector of the methods of 2021 to 2025 is read by a test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
EXCEPT = ("meta", "fad ", "gam_hvp ")
"""Notes, and vectors of formulas that were checked against nobody's code."""


@pytest.mark.slow
def test_every_vector_is_read(tmp_path):
    """The tests that compare with one have "golden" in their names."""
    uses = re.compile(r"field_networks|\bfield\[")
    files = [str(each) for each in TESTS.rglob("test_*.py") if uses.search(each.read_text(encoding="utf-8"))]
    unread = tmp_path / "unread.json"
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "recorded_vectors", "-k", "golden", *files],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": paths, "UNREAD_VECTORS": str(unread)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(unread.read_text(encoding="utf-8"))
    assert found.keys() == {"field_networks", "field_gradients"}
    for name, each in found.items():
        assert [path for path in each["unread"] if not path.startswith(EXCEPT)] == [], name
        assert each["number"] > 30
