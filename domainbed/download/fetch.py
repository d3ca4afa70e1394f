"""Fetching one file: from where it is declared to be, with resume, retries and its checksum."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.download.receive import Interrupted, receive, version_of
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    from domainbed.download.source import File


@dataclass(frozen=True)
class Patience:
    """How long to go on.

    Attributes:
        timeout: seconds of silence after which an attempt is given up.
        tries: attempts in a row that bring nothing new.
        wait: seconds before the second of them, doubled for each further one up to a minute.
    """

    timeout: float = 30.0
    tries: int = 5
    wait: float = 1.0


def fetch(file: File, data_dir: Path, patience: Patience) -> bool:
    """Fetch `file` into `data_dir`, unless it is there; whether it was fetched.

    It has its name only once it is whole; until then it is `<name>.part`, from which a later call goes on.

    Raises: RunError that says what to fetch by hand, and where to put it; UsageError for an address of a
        kind that nobody knows.
    """
    path = data_dir / file.name
    if path.exists():
        _check(file, path)
        return False
    kind = file.where.partition(":")[0]
    try:
        if kind == "hand":
            raise RunError(f"{file.name} is not to be had without a person")
        if kind == "gdown":
            _from_drive(file, path, patience)
            _check(file, path)
        elif kind in ("http", "https"):
            _from_server(file, path, patience)
        else:
            raise UsageError(f"{file.name} comes from {file.where!r}; known are http:, https:, gdown:, hand:")
    except RunError as error:
        error.add_note(f"Fetch it by hand: {file.link()}; put it at {path}, and run the same command again.")
        raise
    return True


def _from_server(file: File, path: Path, patience: Patience) -> None:
    part = path.with_name(f"{path.name}.part")
    failures = most = 0
    while True:
        try:
            receive(file.where, part, patience.timeout)
            _check(file, part)
            part.replace(path)
            version_of(part).unlink(missing_ok=True)
            return
        except Interrupted as error:
            have = part.stat().st_size if part.exists() else 0
            failures = 0 if have > most else failures + 1
            most = max(most, have)
            if failures >= patience.tries:
                raise RunError(f"{file.name}: {error}; given up after {patience.tries} attempts") from None
            time.sleep(min(patience.wait * 2 ** max(failures - 1, 0), 60.0))


def _check(file: File, path: Path) -> None:
    """Compare with the declared checksum; what was fetched and differs is removed."""
    if not file.checksum:
        return
    algorithm, _, expected = file.checksum.partition(":")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if found == expected:
        return
    if path.name == file.name:
        raise RunError(f"{path} has the {algorithm} checksum {found}, not {expected}; delete it")
    path.unlink()
    version_of(path).unlink(missing_ok=True)
    raise Interrupted(f"its {algorithm} checksum is {found}, not {expected}")


def _from_drive(file: File, path: Path, patience: Patience) -> None:
    try:
        gdown = importlib.import_module("gdown")
        if "retries" not in inspect.signature(gdown.download).parameters:
            raise ImportError("too old")
    except ImportError:
        raise RunError(
            f"{file.name} lies at Google Drive, for which the package gdown is needed: "
            "pip install -U 'gdown>=6.3'"
        ) from None
    try:
        gdown.download(
            id=file.where.partition(":")[2],
            output=str(path),
            resume=True,
            timeout=patience.timeout,
            retries=patience.tries,
        )
    except Exception as error:  # gdown's, requests' and the system's
        first_line = str(error).strip().partition("\n")[0]
        raise RunError(f"gdown cannot fetch {file.name} ({type(error).__name__}: {first_line})") from error
