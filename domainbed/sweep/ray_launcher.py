"""The launcher `ray`: each run is a task of a Ray cluster, which finds it a node with free CPUs and GPUs.

Ray only provides the processes. Whether a run is done is read from its directory, so a run that Ray starts
twice, or that another worker has taken, is done once. The launching process waits for all runs; if it is
killed, another launch resumes them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainbed.cores import cores
from domainbed.errors import RunError, UsageError
from domainbed.sweep.launchers import COMMON_FLAGS, DEFAULTS, RAY_FLAGS, Launcher, LaunchOptions
from domainbed.sweep.ray_address import AUTO, LOCAL, connection_failure, named_address
from domainbed.sweep.ray_runs import RayRuns, TaskResources
from domainbed.training.stop_requests import AFTER_CHECKPOINTS, StopRequests

_OBJECT_STORE = 2**27  # bytes, of which tasks that return a number need next to nothing


class RayLauncher(Launcher):
    """Run each command as a Ray task, on an existing cluster or on a Ray that is started on this machine."""

    waits = True
    elsewhere = True
    flags = (*(name for name in COMMON_FLAGS if name != "workers"), *RAY_FLAGS)

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> list[int]:
        """Run all commands; returns their exit statuses as `local.run_commands` does.

        Args:
            commands: command lines. Their directories, and the current one, must be on a file system that
                all nodes share.
            options: the resources of a run, and how often it is started again.

        Raises:
            UsageError: Ray is not installed, or cannot be reached.
            Preempted, Interrupted: a signal stopped this process. The runs have been cancelled.
        """
        self.check()
        with _connected(options.ray_address), StopRequests(notice=AFTER_CHECKPOINTS) as requests:
            nodes = _nodes()
            resources = _resources(options, nodes)
            _print_cluster(nodes, resources)
            runs = RayRuns(commands, resources, options.retries, options.time_limit)
            runs.work(requests)
            return runs.statuses

    def check(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError('launcher ray needs Ray: pip install "domainbed-gs[ray]"')


ray_launcher = RayLauncher()


@dataclass(frozen=True)
class _Node:
    """What a node has in total: CPUs, GPUs, bytes of memory."""

    cpus: float
    gpus: float
    memory: float

    def fits(self, resources: TaskResources) -> bool:
        """Whether the node, if it were idle, could take a run."""
        return (
            self.cpus >= resources.cpus
            and self.gpus >= resources.gpus
            and self.memory >= (resources.memory or 0)
        )


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one here, and leave it at the end.

    Uses the cluster that this process is connected to, if there is one.

    Raises: UsageError if there is no cluster at `address`.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address)
        yield
    finally:
        ray.shutdown()
        if in_main_thread:
            signal.signal(signal.SIGTERM, handler)  # Ray has set its own


def _connect(flag: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = named_address(flag)
    if address != LOCAL:
        failure = connection_failure(address or AUTO)
        try:
            if failure:
                raise ConnectionError(failure)
            ray.init(address or AUTO, **quiet)
            return
        except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
            if address is not None:
                reason = " ".join(str(error).split())[:200]
                raise UsageError(
                    f"no Ray cluster can be reached at {address} ({reason}); start it, or give the "
                    "--ray_address of one that runs, or local"
                ) from None
        if failure:
            print(
                f"warning: Ray starts on this machine, since its last cluster is gone ({failure})",
                file=sys.stderr,
            )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            LOCAL,
            num_cpus=cores(),
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            **quiet,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"Ray does not start on this machine ({reason}); try --command_launcher local"
        ) from None


def _nodes() -> list[_Node]:
    import ray

    totals = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [_Node(each.get("CPU", 0.0), each.get("GPU", 0.0), each.get("memory", 0.0)) for each in totals]


def _resources(options: LaunchOptions, nodes: Sequence[_Node]) -> TaskResources:
    gpus = options.ray_gpus
    if gpus is None:
        gpus = float(any(node.gpus for node in nodes))
    memory = None if options.ray_memory is None else int(options.ray_memory * 2**30)
    return TaskResources(options.ray_cpus, gpus, memory, options.ray_restarts)


def _print_cluster(nodes: Sequence[_Node], resources: TaskResources) -> None:
    """Print what the cluster has and what a run takes, and warn if no node can take one."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    memory = "" if resources.memory is None else f", {resources.memory / 2**30:g} GiB"
    needs = f"{resources.cpus:g} CPUs, {resources.gpus:g} GPUs{memory}"
    print(f"Ray: {len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs; a run takes {needs}.", flush=True)
    if not any(node.fits(resources) for node in nodes):
        print(f"warning: no node has {needs}; runs wait until one joins the cluster", file=sys.stderr)
