"""Split files: `--write_splits FILE` writes the splits of a run, and `--splits FILE` uses them again.

A split file is a JSON object; its name ends with .json:

    {"dataset": "EmojiStyles",                              for the reader
     "data": {"checksum": "0f3c...", "version": 1},         as in run.json; must equal those of the dataset
     "counts": {"Flat": 1241, ...},                         environment -> number of samples
     "environments": {"Flat": {"in": [7, 0, ...], "out": [12, ...]}, ...}}

The parts `in`, `out`, `uda` and `test` are lists of positions in the environment. Their order matters:
minibatches are drawn from them by position. A file name may have the placeholders `{dataset}`,
`{trial_seed}` and `{test_envs}`, so that a sweep can have a file for each of its splits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.errors import UsageError, check_choice
from domainbed.files import create_atomic
from domainbed.json_input import DuplicateKey, json_without_duplicates
from domainbed.training.splits import by_trial

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.datasets.splitting import SplitDataset
    from domainbed.training.splits import Parts, SplitRequest

PARTS = ("in", "out", "uda", "test")


@by_trial(lambda options: "{trial_seed}" in ":".join(options))
def from_file(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """The parts in a split file. `--splits FILE.json` is short for `--splits file:FILE.json`.

    Raises: UsageError if the file cannot be read, is damaged, or was written for other data.
    """
    from domainbed.datasets.splitting import SplitDataset

    path = Path(":".join(request.options))
    environments = _read(path, dataset)
    splits = []
    for name, samples in zip(dataset.ENVIRONMENTS, dataset.datasets, strict=True):
        place, parts = f"split file {path}, environment {name}", environments[name]
        if not isinstance(parts, dict) or "in" not in parts:
            raise UsageError(f"{place}: expected an object of parts with the part in")
        for kind, keys in parts.items():
            check_choice(f"{place}: a part is", kind, PARTS)
            _check_positions(f"{place}, part {kind}", keys, len(samples))  # type: ignore[arg-type] # torch's Dataset type has no __len__
        splits.append({kind: SplitDataset(samples, keys) for kind, keys in parts.items()})
    return splits


def write(path: Path, dataset: MultipleDomainDataset, splits: Sequence[Parts]) -> None:
    """Write the parts of all environments to `path`. A file with the same split is not touched.

    Raises: UsageError if `path` has another split.
    """
    environments = {
        name: {kind: positions(part) for kind, part in parts.items()}
        for name, parts in zip(dataset.ENVIRONMENTS, splits, strict=True)
    }
    text = json.dumps({**_about(dataset), "environments": environments}) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not create_atomic(path, text) and path.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"--write_splits {path} has another split; name another file, or one for each split: "
            "splits-{trial_seed}-{test_envs}.json"
        )


def positions(part: SplitDataset) -> list[int]:
    """Positions of a part's samples in the environment."""
    from domainbed.datasets.splitting import SplitDataset

    keys, below = [int(key) for key in part.keys], part.underlying_dataset
    while isinstance(below, SplitDataset):
        keys, below = [int(below.keys[key]) for key in keys], below.underlying_dataset
    return keys


def _about(dataset: MultipleDomainDataset) -> dict[str, Any]:
    """The entries of a split file that describe the data."""
    summary = dataset.summary
    return {
        "dataset": type(dataset).__name__,
        "data": {name: summary[name] for name in ("checksum", "version")},
        "counts": {name: sum(counts.values()) for name, counts in summary["counts"].items()},
    }


def _read(path: Path, dataset: MultipleDomainDataset) -> Mapping[str, Any]:
    """The entry `environments` of a split file for `dataset`."""
    try:
        content = json_without_duplicates(path.read_text(encoding="utf-8"))
        found, environments = _line(content), content["environments"]
    except OSError as error:
        raise UsageError(f"split file {path} cannot be read: {error.strerror}") from None
    except DuplicateKey as error:
        raise UsageError(f"split file {path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not a split file; use one that --write_splits wrote") from None
    about = _about(dataset)
    if content["data"] != about["data"] or list(environments) != list(dataset.ENVIRONMENTS):
        raise UsageError(f"split file {path} was written for other data: {found}, not {_line(about)}")
    checked: Mapping[str, Any] = environments
    return checked


def _line(about: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in about["counts"].items())
    return f"{about['dataset']} ({counts}; checksum {about['data']['checksum']})"


def _check_positions(place: str, keys: object, size: int) -> None:
    found = keys if isinstance(keys, list) else [None]
    right = all(type(key) is int and 0 <= key < size for key in found)
    if not right or len(set(found)) < len(found):
        raise UsageError(f"{place}: expected distinct positions from 0 to {size - 1}")
