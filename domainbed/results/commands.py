"""Command lines that make runs again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from domainbed.results.conditions import algorithm_and_condition
from domainbed.sweep.job import command


def train_command(args: Mapping[str, Any], **changed: object) -> str:
    """The command of a run, given the arguments that its records have.

    Args:
        args: the arguments; `algorithm` may be a method's name such as "AgrSum/pooled".
        changed: arguments with another value; a dict is written as JSON.
    """
    algorithm, condition = algorithm_and_condition(args["algorithm"])
    own = {**args, "algorithm": algorithm}
    if condition != "domain":
        own["grouping"] = condition
    own |= {name: json.dumps(it) if isinstance(it, dict) else it for name, it in changed.items()}
    return command(own)
