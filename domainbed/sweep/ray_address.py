"""The address of a Ray cluster, and whether anything listens there.

Ray waits two minutes for a cluster that does not answer, and then ends the process. A TCP connection shows
within seconds whether one is there.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

AUTO = "auto"
"""The address with which Ray looks for the cluster of this machine."""
LOCAL = "local"
"""The address with which Ray starts on this machine."""
TIMEOUT_SECONDS = 5.0
"""Time that a cluster has to accept a connection."""

_CLIENT_PORT = 10001  # of ray://HOST


def named_address(flag: str | None) -> str | None:
    """The address in `flag`; if that is None or "auto", the one in RAY_ADDRESS if it is set, as in Ray."""
    if flag is not None and flag != AUTO:
        return flag
    return os.environ.get("RAY_ADDRESS") or flag


def latest_address() -> str | None:
    """Address of the cluster that `ray start` started last on this machine, which may have died since.

    None if there is none, or if it was ended by `ray stop`.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return (Path(folder) / "ray/ray_current_cluster").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def connection_failure(address: str, timeout: float = TIMEOUT_SECONDS) -> str:
    """Why `address` does not accept a TCP connection; "" if it does.

    Also "" for an address without a host or port and for one of a scheme other than `ray://`: Ray itself
    checks these.

    Args:
        address: `HOST:PORT`, or `ray://HOST:PORT` for Ray's client, or "auto": `latest_address`.
        timeout: seconds.
    """
    found = latest_address() if address == AUTO else address
    target = _host_and_port(found) if found else None
    if target is None:
        return ""
    try:
        socket.create_connection(target, timeout).close()
    except OSError as error:
        reason = f"no answer in {timeout:g} s" if isinstance(error, TimeoutError) else error.strerror
        return f"TCP connection to {target[0]}, port {target[1]}: {reason}"
    return ""


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Where to connect, or None if `address` does not say."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or (_CLIENT_PORT if parts.scheme == "ray" else None)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.scheme in ("", "ray") and parts.hostname and port else None
