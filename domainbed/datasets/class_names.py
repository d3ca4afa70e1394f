"""Names of classes: equal names in different Unicode forms, and classes that some environments lack."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from domainbed.console import shortened_list
from domainbed.datasets.reading_rules import ReadingRules
from domainbed.escaping import visible

_SHOWN = 6


def class_folders(
    folders: Mapping[str, Sequence[str]], rules: ReadingRules
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """The classes of each environment, and lines about what was joined.

    Some systems write é as one character (NFC) and some as e with an accent (NFD). Names that differ in this
    alone are one class if `rules.joins_names`, under the name in NFC.

    Args:
        folders: names of the class folders of each environment.
        rules: of the dataset.

    Returns: for each environment, class -> names of its folders, sorted by class.
    """
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for inside in folders.values():
        for name in inside:
            spellings[unicodedata.normalize("NFC", name)].add(name)
    joined = {name for name, forms in spellings.items() if len(forms) > 1 and rules.joins_names}
    classes: dict[str, dict[str, list[str]]] = {}
    for environment, inside in folders.items():
        names: defaultdict[str, list[str]] = defaultdict(list)
        for name in inside:
            composed = unicodedata.normalize("NFC", name)
            names[composed if composed in joined else name].append(name)
        classes[environment] = dict(sorted(names.items()))
    text = shortened_list([visible(name) for name in sorted(joined)], _SHOWN)
    return classes, [f"names of classes in two Unicode forms are joined: {text}"] if joined else []


def lacking_classes(classes: Mapping[str, Collection[str]]) -> list[str]:
    """For each environment that lacks classes of another one: "oil lacks dog, cow"."""
    every = sorted(set().union(*classes.values()))
    absent = {name: [each for each in every if each not in inside] for name, inside in classes.items()}
    return [
        f"{visible(name)} lacks {shortened_list([visible(each) for each in lacking], _SHOWN)}"
        for name, lacking in absent.items()
        if lacking
    ]
