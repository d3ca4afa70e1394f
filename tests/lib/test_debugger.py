import subprocess
import sys

DEBUGGED = """
import io, sys
from domainbed.lib.debugger import pdb

def caller():
    inside = 41 + 1
    sys.stdout = io.StringIO()
    pdb()
    return inside

caller()
"""


def test_it_stops_in_its_caller_with_stdout_restored():
    result = subprocess.run(
        [sys.executable, "-c", DEBUGGED], input="p inside\nc\n", capture_output=True, text=True, check=False
    )
    assert "42" in result.stdout, result.stderr
