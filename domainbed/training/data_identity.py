"""A run resumes with the data that it began with, read in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainbed.errors import UsageError
from domainbed.training.run_dir import RunDir
from domainbed.training.run_state import read_json

_REMEDY = "start over, by --restart or in another --output_dir; reports do not mix such runs"


def check_same_data(directory: RunDir, data: Mapping[str, Any]) -> None:
    """Check that a run with a checkpoint has the data of run.json.

    Args:
        directory: directory of the run.
        data: identity of the data now: `checksum`, `version`, and `contents` if it is known.

    Raises: UsageError if the data or the way in which this version reads them has changed.
    """
    before = (read_json(directory.path / "run.json") or {}).get("data")
    if directory.checkpoint is None or not isinstance(before, dict):
        return
    for name in ("checksum", "contents"):
        if name in before and name in data and before[name] != data[name]:
            raise UsageError(
                f"{directory.path} holds a run on other data ({name} was {before[name]}, now {data[name]}); "
                f"restore the data, or {_REMEDY}"
            )
    if before.get("version") != data.get("version"):
        raise UsageError(
            f"{directory.path} holds a run of a version that read these images in another way (data.version "
            f"was {before.get('version')}, now {data.get('version')}); use that version, or {_REMEDY}"
        )
