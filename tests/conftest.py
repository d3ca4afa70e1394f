"""What all tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

# Two workers of pytest share two cores; results must not depend on the number anyway.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def vectors():
    """`vectors(name)`: reference numbers from tests/data."""
    return lambda name: json.loads((ROOT / "tests" / "data" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(tmp_path):
    """`script(name, *flags)`: run a script as a user does, in an empty directory; its completed process."""

    def run(name, *flags, env=None, input=None, cwd=None):
        environment = os.environ | {"PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", f"domainbed.scripts.{name}", *map(str, flags)],
            cwd=cwd or tmp_path,
            env=environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def float64():
    """Everything is built and drawn in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
