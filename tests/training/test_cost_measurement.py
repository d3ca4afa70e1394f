"""What a run costs is measured in a process of its own."""

import json
import subprocess
import sys

PARENT = """
import subprocess, sys
taken = b"x" * (3 << 30)
subprocess.run([sys.executable, "-m", "domainbed.training.cost_measurement"], check=True)
"""


def test_the_memory_of_a_run_is_not_that_of_the_process_that_measures_it():
    settings = {"dataset": "Debug28", "algorithm": "ERM", "steps": 3}
    asked = json.dumps({"settings": settings, "budget": 1, "threads": 1})
    done = subprocess.run([sys.executable, "-c", PARENT], input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 10**8 < json.loads(done.stdout)["memory"] < 2 << 30
