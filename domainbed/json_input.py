"""JSON from files of unknown origin: nesting is limited, and every fault is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MOST_NESTED = 100
"""Most objects and arrays within each other. Code that walks through deeper values overflows its stack."""


class NestedTooDeep(ValueError):
    """JSON with more than `MOST_NESTED` objects and arrays within each other."""

    def __init__(self) -> None:
        super().__init__(f"nested more than {MOST_NESTED} deep")


def parse_json(
    text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text. NaN and infinities are accepted, as `json.loads` does.

    Args:
        text: the text.
        object_pairs_hook: as that of `json.loads`.

    Raises: ValueError if the text is not JSON; NestedTooDeep, which is one, for deep nesting.
    """
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise NestedTooDeep from None
    if may_nest_deep(text) and _is_deep(value):
        raise NestedTooDeep
    return value


class DuplicateKey(ValueError):
    """An object in JSON that a user wrote has a key twice."""


def json_without_duplicates(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value in `text`, which a user wrote.

    Raises: DuplicateKey if an object has a key twice; ValueError as `parse_json`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DuplicateKey(f"the key {json.dumps(twice)} occurs twice; leave one out")
        return found

    return parse_json(text, unique)


def may_nest_deep(text: str | bytes) -> bool:
    """Whether `text` has so many brackets that its values may be nested too deep. Quick."""
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    return sum(map(text.count, brackets)) > MOST_NESTED  # type: ignore[arg-type] # of the same type


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MOST_NESTED):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)
