"""Images with the same contents fall on one side of a split, except in runs that began before this rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.training.run_state import read_json
from domainbed.training.split_file import positions

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.training.splits import Parts, SplitRequest

_SCHEMES = ("holdout", "stratified")
"""Schemes that draw the split. Others are given by the user, or have one part only."""


_SIDES = {
    "together": "; copies are in the same part of the split",
    "apart": "; copies may be in different parts of the split, as in the sweep or run that began before",
}


def split_copies(
    dataset: MultipleDomainDataset, splits: Sequence[Parts], request: SplitRequest, directory: Path
) -> list[Parts]:
    """The splits, with all copies of an image in the part of the first one.

    Nothing changes for a dataset without known copies, for splits that the user gives, and for a run that
    began before the rule existed. If the rule applies, `dataset.summary["copies"]["split"]` is "together".

    Args:
        dataset: a dataset with a `summary`.
        splits: parts of each environment.
        request: what the splits were made from.
        directory: directory of the run.
    """
    copies = dataset.copies
    if not copies or not dataset.summary.get("copies", {}).get("images") or request.scheme not in _SCHEMES:
        return list(splits)
    together = not began_without("duplicates", directory)
    rule = {**dataset.summary["copies"], "split": "together" if together else "apart"}
    dataset.summary = {**dataset.summary, "copies": rule}
    if not together:
        return list(splits)
    return [
        _together(environment, parts, firsts)
        for environment, parts, firsts in zip(dataset.datasets, splits, copies, strict=True)
    ]


def describe_copies(copies: Mapping[str, Any]) -> Iterator[str]:
    """A line about the entry `copies` of a summary; none if there are no copies."""
    if copies.get("images"):
        line = f"\t{copies['images']} images have the same contents as an earlier one of their environment"
        if copies["other_class"]:
            line += f", {copies['other_class']} of them in another class"
        yield line + _SIDES.get(copies.get("split", ""), "")


def began_without(setting: str, directory: Path) -> bool:
    """Whether the run in `directory`, or another one of its sweep, began before `setting` existed."""
    runs = [directory]
    if (directory.parent / "sweep.json").exists():
        runs += sorted(path for path in directory.parent.iterdir() if path.is_dir())
    contents = (read_json(run / "run.json") for run in runs)
    return any(
        setting not in content["settings"] for content in contents if content and "settings" in content
    )


def _together(environment: object, parts: Parts, firsts: np.ndarray) -> Parts:
    """The parts of one environment, with each copy in the part of the first image of its group."""
    from domainbed.datasets.splitting import SplitDataset

    keys = {kind: positions(part) for kind, part in parts.items()}
    part_of = {key: kind for kind, inside in keys.items() for key in inside}
    home: dict[int, str] = {}
    for key in sorted(part_of):
        home.setdefault(int(firsts[key]), part_of[key])
    moved = sorted(key for key, kind in part_of.items() if home[int(firsts[key])] != kind)
    if not moved:
        return parts
    new: Parts = {}
    for kind, inside in keys.items():
        stays = [key for key in inside if home[int(firsts[key])] == kind]
        new[kind] = SplitDataset(
            environment, stays + [key for key in moved if home[int(firsts[key])] == kind]
        )
    return new
