"""Environments as users name them: by index, by name, or by the name of the folder with their images."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from domainbed.datasets import get_dataset_class
from domainbed.errors import UsageError, misspelt

_INDEX = re.compile(r"\s*[-+]?\d+\s*", re.ASCII)


def index_or_name(text: str) -> int | str:
    """The index that `text` writes, or else `text` itself, the name of an environment."""
    return int(text) if _INDEX.fullmatch(text) else text


def environment_indices(
    given: Iterable[int | str], environments: Sequence[str], dataset: str, flag: str = "--test_envs"
) -> list[int]:
    """The indices of the environments that a user gave by index or name. Indices stay as they are.

    Args:
        given: indices and names. A text of digits is an index.
        environments: names of the dataset's environments, in order.
        dataset: its name.
        flag: where the names were given, for errors.

    Raises: UsageError for a name that no environment has, or that several could mean.
    """
    found = (index_or_name(each) if isinstance(each, str) else each for each in given)
    return [_index(each, environments, dataset, flag) if isinstance(each, str) else each for each in found]


def is_environment(text: str, environments: Sequence[str], dataset: str) -> bool:
    """Whether `text` is the index or name of an environment."""
    return bool(_INDEX.fullmatch(text)) or bool(_matching(text, _tables(environments, dataset)))


def _index(name: str, environments: Sequence[str], dataset: str, flag: str) -> int:
    tables = _tables(environments, dataset)
    matching = _matching(name, tables)
    if not matching:
        known = dict.fromkeys(each for table in tables for each in table)
        raise misspelt(f"{flag} {name}: {dataset} has no such environment", name, known)
    if len(matching) > 1:
        listed = ", ".join(f"{index} ({environments[index]})" for index in matching)
        raise UsageError(
            f"{flag} {name} could be any of the environments {listed} of {dataset}; give an index"
        )
    return matching[0]


def _tables(environments: Sequence[str], dataset: str) -> list[Sequence[str]]:
    """The names of the environments, and those of their folders if the dataset has others for these."""
    folders: Mapping[str, str] = {}
    with contextlib.suppress(UsageError):  # a report need not have the data at hand
        folders = getattr(get_dataset_class(dataset), "FOLDERS", {})
    own = [environments]
    return [*own, [folders[each] for each in environments]] if {*environments} <= {*folders} else own


def _matching(name: str, tables: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the environments called `name`, without regard to capitals if none is written like it."""
    for simplified in (str, _simplified):
        for table in tables:
            found = [index for index, each in enumerate(table) if simplified(each) == simplified(name)]
            if found:
                return found
    return []


def _simplified(name: str) -> str:
    """`name` without capitals, and with one form of each accented letter: folders of macOS have another."""
    return unicodedata.normalize("NFC", name).casefold().strip()
