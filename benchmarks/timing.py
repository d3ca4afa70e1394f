"""What the benchmarks share: interleaved timing, medians and ratios, a description of the machine.

The functions that are compared run in turns, in one process or each in its own (`Elsewhere`), so that a
machine that slows down slows all of them down; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from domainbed import memory


def interleaved(
    functions: Mapping[str, Callable[[], None]], rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Seconds of `rounds` calls of each function, after `warmup` calls that do not count.

    Every round calls each function once; the order is turned round from round to round. Where CUDA is in
    use, a call ends when the device has done its work.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for number in range(warmup + rounds):
        for name in order:
            _finish()
            began = time.perf_counter()
            functions[name]()
            _finish()
            if number >= warmup:
                times[name].append(time.perf_counter() - began)
        order.reverse()
    return times


class Elsewhere:
    """A function that runs in a process of its own, from which it keeps its memory and its settings.

    Args:
        make: makes the function there, of `args`.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *args: object) -> None:
        fresh = multiprocessing.get_context("spawn")
        self._pipe, theirs = fresh.Pipe()
        fresh.Process(target=_serve, args=(theirs, make, args), daemon=True).start()
        self._pipe.recv()

    def __call__(self) -> None:
        self._pipe.send(True)
        self._pipe.recv()

    def end(self) -> None:
        """End the process."""
        self._pipe.send(False)


def _serve(pipe: Connection, make: Callable[..., Callable[[], object]], args: tuple[object, ...]) -> None:
    function = make(*args)
    pipe.send(None)
    while pipe.recv():
        function()
        _finish()
        pipe.send(None)


def ratios(times: Mapping[str, Sequence[float]], rival: str) -> dict[str, float]:
    """Name -> median over the rounds of its time divided by the rival's in the same round."""
    return {
        name: statistics.median(own / other for own, other in zip(each, times[rival], strict=True))
        for name, each in times.items()
    }


def report(
    title: str,
    times: Mapping[str, Sequence[float]],
    rival: str,
    units: Mapping[str, float] | None = None,
    unit: str = "",
) -> dict[str, float]:
    """Print a Markdown table of medians, quartiles and ratios; returns `ratios`.

    Args:
        title: printed above the table.
        times: of `interleaved`.
        rival: name of the function that all are compared with.
        units: amount of work of one call, by name, for a column of work per second.
        unit: what it is counted in, e.g. "images".
    """
    found = ratios(times, rival)
    print(f"\n### {title}\n")
    columns = ["", "median ms", "quartiles", f"time / {rival}", *([f"{unit}/s"] if units else [])]
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (len(columns) - 1)}")
    for name, each in times.items():
        middle = statistics.median(each)
        low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else [middle] * 3
        cells = [name, f"{1e3 * middle:.2f}", f"{1e3 * low:.2f} to {1e3 * high:.2f}", f"{found[name]:.3f}"]
        cells += [f"{units[name] / middle:.0f}"] if units else []
        print(f"| {' | '.join(cells)} |")
    return found


def print_environment() -> None:
    """Print what the figures were taken on, as a Markdown list."""
    for name, value in environment().items():
        print(f"- {name}: {value}")


def environment() -> dict[str, str]:
    """Processor, cores, memory, device, versions, threads."""
    import torch

    described = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores for this process",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "threads of torch": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(
            f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "pillow")
        ),
    }
    if torch.cuda.is_available():
        described["device"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return described


def peak_memory(device: str = "cpu") -> int:
    """Most bytes that this process has taken: of main memory, or of a CUDA device's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated()
    return memory.peak_memory()


def _processor() -> str:
    """Name of the processor, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _finish() -> None:
    """Wait for the device, if this process uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
