"""The operating systems that this project runs on; see docs/platforms.md."""

from __future__ import annotations

import sys


class UnsupportedSystem(ImportError):
    """The project does not run on this operating system."""


def check(platform: str = sys.platform, argv: tuple[str, ...] = tuple(sys.argv)) -> None:
    """Check that the project runs on this operating system.

    Raises:
        SystemExit: it does not, and this process is one of our scripts. The reason is printed in one line.
        UnsupportedSystem: it does not.
    """
    if platform != "win32":
        return
    reason = (
        "domainbed does not run on Windows, which lacks fork and POSIX file locks; use WSL "
        "(https://learn.microsoft.com/windows/wsl), where it runs as on Linux"
    )
    if argv[:1] == ("-m",):  # while Python looks for the module that `python -m` runs
        print(f"error: {reason}.", file=sys.stderr)  # noqa: T201 - the only line of output
        raise SystemExit(2)
    raise UnsupportedSystem(reason)
