"""The catalogue: facts of every registered method, from its declaration and from its class."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.base import Algorithm


def facts_of(name: str) -> dict[str, Any]:
    """Facts of the registered method `name`, JSON types only.

    Those of `Facts` by their names, of a class with `FACTS`; `one_environment`, see below; `shared`, whether
    several processes can share an update; and `module`.

    Raises: UnknownName for a name that is not registered.
    """
    algorithm = REGISTRY[name]
    declared = {} if algorithm.FACTS is None else asdict(algorithm.FACTS)
    return declared | {
        "one_environment": one_environment(algorithm),
        "shared": algorithm.DISTRIBUTED,
        "module": algorithm.__module__,
    }


def readable(formula: str) -> str:
    """A formula of `Facts` as it is printed: "2 (K - 2)/K"."""
    return formula.replace(" * ", " ").replace(" / ", "/")


def one_environment(algorithm: type[Algorithm]) -> str:
    """What a method is with one source environment: "refused", "as with more", or what is left of it."""
    if algorithm.MIN_DOMAINS > 1:
        return "refused"
    declared = algorithm.FACTS.one_environment if algorithm.FACTS is not None else ""
    return declared or "as with more"
