import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from domainbed.training.train_command import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
np.ones(2**23)
before = faults()
for _ in range(5):
    np.ones(2**23)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has this setting")
def test_freed_memory_is_reused():
    def faults(argument):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < faults("not") / 10
