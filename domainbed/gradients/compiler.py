"""Whether torch.compile has what it needs, which torch itself finds out only when a compilation fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path


def lacks_for_compilation(device_type: str) -> str | None:
    """What is missing to compile for "cpu" or "cuda", and how to get it; None if nothing is."""
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        return "needs the package triton; install it: pip install triton"
    variable, usual = ("CC", ["gcc", "clang"]) if device_type == "cuda" else ("CXX", ["g++"])
    compilers = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, compilers)):
        return (
            f"needs the compiler {' or '.join(compilers)}, and there is none; install it (apt-get install "
            f"g++), name another one as {variable} in the environment"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "needs Python's headers; install them (apt-get install python3-dev)"
    return None
