import subprocess
import sys

HEAVY = ("torch", "torchvision", "wilds", "pandas", "scipy", "matplotlib", "PIL", "sklearn")


def test_no_module_imports_anything_heavy_before_a_dataset_is_built():
    program = f"""
import importlib, pkgutil, sys
import domainbed.datasets
for module in pkgutil.iter_modules(domainbed.datasets.__path__):
    importlib.import_module("domainbed.datasets." + module.name)
from domainbed.datasets.wilds import WILDSFMoW
assert len(WILDSFMoW.ENVIRONMENTS) == 6
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
