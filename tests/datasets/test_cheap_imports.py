"""Dataset classes are available without heavy imports."""

import subprocess
import sys

HEAVY = ("torch", "torchvision", "wilds", "pandas", "scipy", "matplotlib", "PIL", "sklearn")


def test_no_dataset_class_imports_anything_heavy_before_it_is_built():
    program = f"""
import sys
from domainbed.datasets import REGISTRY
assert len([REGISTRY[name] for name in REGISTRY]) > 20
from domainbed.datasets.wilds import WILDSFMoW
assert len(WILDSFMoW.ENVIRONMENTS) == 6
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
