"""What all tests share."""

import json
import logging
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
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
def forked_script(tmp_path):
    """Like `script`, in a fork of this process, which has torch loaded: a tenth of the time."""
    import torchvision  # noqa: F401

    def run(name, *flags, input="", cwd=None):
        with tempfile.TemporaryDirectory() as folder:
            ends = [Path(folder) / stream for stream in ("stdin", "stdout", "stderr")]
            ends[0].write_text(input, encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
                pid = os.fork()
            if pid == 0:
                _become(f"domainbed.scripts.{name}", [str(flag) for flag in flags], ends, cwd or tmp_path)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            stdout, stderr = (end.read_text(encoding="utf-8") for end in ends[1:])
        return subprocess.CompletedProcess([name, *flags], status, stdout, stderr)

    return run


def _become(module, flags, ends, cwd):
    status = 1
    try:
        os.chdir(cwd)
        for descriptor, end in enumerate(ends):
            os.dup2(os.open(end, os.O_RDWR | os.O_CREAT), descriptor)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(i, "w", buffering=1, closefd=False) for i in (1, 2))
        sys.argv = [module, *flags]
        logging.getLogger().handlers.clear()  # pytest's
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.fixture
def float64():
    """Everything is built and drawn in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
