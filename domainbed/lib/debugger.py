"""A break point that works where stdout is redirected."""

from __future__ import annotations

import sys
from pdb import Pdb


def pdb() -> None:
    """Restore stdout and stop the caller in Python's debugger."""
    sys.stdout = sys.__stdout__
    Pdb().set_trace(sys._getframe(1))
