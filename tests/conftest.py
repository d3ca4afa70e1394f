"""What all tests share."""

import builtins
import contextlib
import faulthandler
import io
import json
import logging
import multiprocessing
import os
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
_LONGEST = 300
"""Seconds that a script of a test may take."""

# Two workers of pytest share two cores; results must not depend on the number anyway.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline for one example: the machine may be busy, and nothing here is slow by itself.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# Code compiled for another processor corrupts memory, and torch's cache does not tell imitated ones apart.
if "ATEN_CPU_CAPABILITY" in os.environ:
    cache = f"torchinductor-{os.getuid()}-{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / cache))


def pytest_configure():
    # A shell that runs the tests in the background ignores Ctrl-C, and what they start would do so too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    # The longest tests, begun last, would leave the other workers idle. Large networks leave a large process,
    # of which every later fork would copy the page tables.
    folders = {ROOT / "tests" / "documents": 0, ROOT / "tests" / "networks": 2}
    items.sort(key=lambda item: folders.get(item.path.parent, 1))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Decoded images go nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOMAINBED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """A loader that is left to the garbage collector would stop some other test for five seconds."""
    yield
    assert not multiprocessing.active_children()


@pytest.fixture(scope="session")
def vectors():
    """`vectors(name)`: reference numbers from tests/data."""
    return lambda name: json.loads((ROOT / "tests" / "data" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def identical():
    """`identical(a, b)`: whether two states, tensors in containers, are equal bit for bit."""

    def compare(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(compare(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(compare, a, b))
        return a == b

    return compare


@pytest.fixture(scope="session")
def write_mnist():
    """`write_mnist(root, train=60, test=30)`: MNIST's files in a data directory, by default the golden ones.

    420 and 60 images are enough for every digit to be in every environment.
    """

    def write_idx(path, array):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        path.write_bytes(header + array.astype(np.uint8).tobytes())

    def write(root, train=60, test=30):
        raw = root / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, size, (a, b, c), d in (("train", train, (7, 3, 5), 1), ("t10k", test, (11, 2, 13), 3)):
            n, i, j = np.ogrid[:size, :28, :28]
            write_idx(raw / f"{part}-images-idx3-ubyte", (a * n + b * i + c * j) % 256)
            write_idx(raw / f"{part}-labels-idx1-ubyte", d * np.arange(size) % 10)

    return write


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Format -> EmojiStyles as `--export` writes it, but of each class the first two images alone."""
    from domainbed.datasets import emoji_styles
    from domainbed.datasets.uint8_images import UInt8Images
    from domainbed.download.export import FORMATS, export

    few = []
    for environment in emoji_styles._environments():
        first = torch.cat([(environment.targets == label).nonzero()[:2, 0] for label in range(7)])
        few.append(UInt8Images(environment.images[first], environment.targets[first], mean=0.0, std=0.25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji_styles, "_environments", lambda: few)
        return {name: export("EmojiStyles", tmp_path_factory.mktemp(name), name) for name in FORMATS}


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
            timeout=_LONGEST,
        )

    return run


@pytest.fixture
def one_line_error():
    """`one_line_error(process, status)`: the single line that a script said on stderr as it gave up."""

    def line(process, status):
        assert process.returncode == status, process.stderr
        assert process.stderr.startswith("error: "), process.stderr
        assert process.stderr.count("\n") == 1, process.stderr
        return process.stderr.rstrip()

    return line


@pytest.fixture
def wait_until():
    """`wait_until(f)`: the first true value of f()."""

    def wait(condition, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.002)
        raise AssertionError(f"the condition is still false after {seconds} s")

    return wait


@pytest.fixture
def forked_script(start_script):
    """Like `script`, in a fork of this process, which has torch loaded: a tenth of the time."""
    return lambda name, *flags, **options: start_script(name, *flags, **options).wait()


@pytest.fixture
def start_script(tmp_path_factory, tmp_path):
    """Like `forked_script`, without waiting: a `Forked`; with `new_session=True` in its own session."""
    import torchvision  # noqa: F401

    def start(name, *flags, input="", cwd=None, new_session=False):
        module = f"domainbed.scripts.{name}"

        def run():
            if new_session:
                os.setsid()
            _run_module(module)

        return Forked(run, [module, *map(str, flags)], input, cwd or tmp_path, tmp_path_factory)

    return start


@pytest.fixture(scope="session")
def forked_python(tmp_path_factory):
    """`forked_python(arguments, cwd, environment, input)`: `python` with these; its completed process.

    It runs in a fork of this process that imports our packages anew, as a process of its own would.
    """
    import torchvision  # noqa: F401

    def run(arguments, cwd, environment, input=""):
        option, program, *flags = arguments

        def start():
            for name in [name for name in sys.modules if name.startswith(("domainbed.", "domainbed_gs."))]:
                del sys.modules[name]
            sys.modules.pop("domainbed", None)
            sys.modules.pop("domainbed_gs", None)
            warnings.resetwarnings()
            warnings.simplefilter("ignore")
            os.environ.update(environment)
            sys.path.insert(0, str(cwd))
            if option == "-m":
                _run_module(program)
            else:
                exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})

        return Forked(start, [program, *flags], input, cwd, tmp_path_factory).wait()

    return run


@pytest.fixture
def forked(tmp_path_factory, tmp_path):
    """`forked(function)`: call it in a fork of this process; its completed process."""
    return lambda function: Forked(function, ["test"], "", tmp_path, tmp_path_factory).wait()


class Forked:
    """A function at work in a fork of this process, with arguments and streams of its own."""

    def __init__(self, function, argv, text, cwd, tmp_path_factory):
        folder = tmp_path_factory.mktemp("script")
        self.argv = argv
        self.ends = [folder / stream for stream in ("stdin", "stdout", "stderr")]
        self.ends[0].write_text(text, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: idle threads of libraries
            self.pid = os.fork()
        if self.pid == 0:
            _become(function, argv, self.ends, cwd)

    def send_signal(self, number):
        """Send it a signal."""
        os.kill(self.pid, number)

    def is_running(self):
        """Whether it has not ended, nor been waited for."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def wait(self):
        """Its completed process."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        stdout, stderr = (end.read_text(encoding="utf-8") for end in self.ends[1:])
        return subprocess.CompletedProcess(self.argv, status, stdout, stderr)


def _run_module(name):
    sys.modules.pop(name, None)
    runpy.run_module(name, run_name="__main__")


def _become(function, argv, ends, cwd):
    status = 1
    # tqdm's lock is shared with forks, and one that is killed or frozen may hold it.
    tqdm.set_lock(threading.RLock())
    try:
        os.chdir(cwd)
        for descriptor, end in enumerate(ends):
            os.dup2(os.open(end, os.O_RDWR | os.O_CREAT), descriptor)
        faulthandler.dump_traceback_later(_LONGEST, exit=True, file=os.fdopen(2, "w", closefd=False))
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(i, "w", buffering=1, closefd=False) for i in (1, 2))
        sys.argv = argv
        logging.getLogger().handlers.clear()  # pytest's
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):  # closed by its reader, or by itself
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@pytest.fixture
def terminal(monkeypatch):
    """`terminal()`: stderr is a terminal from now on; returns what is shown there."""

    def become():
        stream = io.StringIO()
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return become


@pytest.fixture
def hide(monkeypatch):
    """`hide(package)`: as where it is not installed."""
    real = builtins.__import__

    def hidden(package):
        def other(name, *args, **kwargs):
            if name.split(".")[0] == package:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", other)

    return hidden


@pytest.fixture
def without_matplotlib(hide):
    """As where the extra `plots` is not installed."""
    hide("matplotlib")


@pytest.fixture
def float64():
    """Everything is built and drawn in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
