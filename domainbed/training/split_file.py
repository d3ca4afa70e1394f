"""Splits as files: `--write_splits FILE` writes a run's, `--splits FILE` takes it, here or elsewhere.

A file is a JSON object (its name ends with .json):

    {"dataset": "EmojiStyles",                              its name, for the reader
     "data": {"checksum": "0f3c...", "version": 1},         that of run.json: other data are refused
     "counts": {"Flat": 1241, ...},                         environment -> number of samples
     "environments": {"Flat": {"in": [7, 0, ...], "out": [12, ...]}, ...}}

Parts are `in`, `out`, `uda` and `test`, and hold positions in the environment; minibatches are drawn from
them by their order. In a file's name `{dataset}`, `{trial_seed}` and `{test_envs}` stand for those of the
run, so that a sweep can have a file for each of its splits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.errors import UsageError, check_choice
from domainbed.files import create_atomic

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.datasets.splitting import SplitDataset
    from domainbed.training.config import TrainConfig
    from domainbed.training.splits import Parts, SplitRequest

SUFFIX = ".json"
PARTS = ("in", "out", "uda", "test")


def filled(text: str, config: TrainConfig) -> str:
    """`text` with what its placeholders stand for."""
    values = {
        "dataset": Path(config.dataset).stem,
        "trial_seed": str(config.trial_seed),
        "test_envs": "_".join(map(str, config.test_envs)),
    }
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def from_file(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """The parts that a file says, one that --write_splits wrote; its path will do as the scheme's name.

    Raises: UsageError if the file can't be read, or is that of other data.
    """
    from domainbed.datasets.splitting import SplitDataset

    path = Path(":".join(request.options))
    environments = _read(path, dataset)
    splits = []
    for name, samples in zip(dataset.ENVIRONMENTS, dataset.datasets, strict=True):
        place, parts = f"split file {path}, environment {name}", environments[name]
        if not isinstance(parts, dict) or "in" not in parts:
            raise UsageError(f"{place}: expected are parts, `in` among them")
        for kind, keys in parts.items():
            check_choice(f"{place}: a part is", kind, PARTS)
            _check_positions(f"{place}, part {kind}", keys, len(samples))  # type: ignore[arg-type] # torch's Dataset type has no __len__
        splits.append({kind: SplitDataset(samples, keys) for kind, keys in parts.items()})
    return splits


def write(path: Path, dataset: MultipleDomainDataset, splits: Sequence[Parts]) -> None:
    """Write the parts of all environments, whole; a file that has this very split already is left as it is.

    Raises: UsageError if a file with another split is there.
    """
    environments = {
        name: {kind: positions(part) for kind, part in parts.items()}
        for name, parts in zip(dataset.ENVIRONMENTS, splits, strict=True)
    }
    text = json.dumps({**_about(dataset), "environments": environments}) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not create_atomic(path, text) and path.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"--write_splits {path} holds another split; name another file, or one for each split: "
            "splits-{trial_seed}-{test_envs}.json"
        )


def positions(part: SplitDataset) -> list[int]:
    """Positions in the environment of a part's samples."""
    from domainbed.datasets.splitting import SplitDataset

    keys, below = [int(key) for key in part.keys], part.underlying_dataset
    while isinstance(below, SplitDataset):
        keys, below = [int(below.keys[key]) for key in keys], below.underlying_dataset
    return keys


def _about(dataset: MultipleDomainDataset) -> dict[str, Any]:
    """What a file says of the data."""
    summary = dataset.summary
    return {
        "dataset": type(dataset).__name__,
        "data": {name: summary[name] for name in ("checksum", "version")},
        "counts": {name: sum(counts.values()) for name, counts in summary["counts"].items()},
    }


def _read(path: Path, dataset: MultipleDomainDataset) -> Mapping[str, Any]:
    """The environments in a file that is for this dataset."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, environments = _line(content), content["environments"]
    except OSError as error:
        raise UsageError(f"split file {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no split file; expected is one that --write_splits wrote") from None
    about = _about(dataset)
    if content["data"] != about["data"] or list(environments) != list(dataset.ENVIRONMENTS):
        raise UsageError(f"split file {path} is for other data: {found}, not {_line(about)}")
    checked: Mapping[str, Any] = environments
    return checked


def _line(about: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in about["counts"].items())
    return f"{about['dataset']} ({counts}; checksum {about['data']['checksum']})"


def _check_positions(place: str, keys: object, size: int) -> None:
    found = keys if isinstance(keys, list) else [None]
    right = all(type(key) is int and 0 <= key < size for key in found)
    if not right or len(set(found)) < len(found):
        raise UsageError(f"{place}: expected are positions from 0 to {size - 1}, each once")
