"""Download one file from its declared address, with resume, retries and a checksum."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.download.receive import Interrupted, receive, version_path
from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    from domainbed.download.source import File


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry, and when to give up.

    Attributes:
        timeout: seconds without data after which an attempt fails.
        tries: number of consecutive attempts without progress after which the download fails.
        wait: seconds before the second attempt, doubled before each further one, up to a minute.
    """

    timeout: float = 30.0
    tries: int = 5
    wait: float = 1.0


def fetch(file: File, data_dir: Path, retries: RetryPolicy) -> bool:
    """Download `file` into `data_dir` unless it exists, and return whether it was downloaded.

    The file gets its name when it is complete. Until then it is `<name>.part`, which a later call resumes.

    Raises: RunError that says what to download by hand and where to put it; UsageError for an unknown kind of
        address.
    """
    path = data_dir / file.name
    if path.exists():
        _check(file, path)
        return False
    kind = file.where.partition(":")[0]
    try:
        if kind == "hand":
            raise RunError(f"{file.name} cannot be downloaded automatically")
        if kind == "gdown":
            _from_drive(file, path, retries)
            _check(file, path)
        elif kind in ("http", "https"):
            _from_server(file, path, retries)
        else:
            raise UsageError(
                f"{file.name} has the unknown address {file.where!r}; known are http:, https:, gdown:, hand:"
            )
    except RunError as error:
        error.add_note(f"Fetch it by hand: {file.link()}; put it at {path}, and run the same command again.")
        raise
    return True


def _from_server(file: File, path: Path, retries: RetryPolicy) -> None:
    part = path.with_name(f"{path.name}.part")
    failures = most = 0
    while True:
        try:
            receive(file.where, part, retries.timeout)
            _check(file, part)
            part.replace(path)
            version_path(part).unlink(missing_ok=True)
            return
        except Interrupted as error:
            have = part.stat().st_size if part.exists() else 0
            failures = 0 if have > most else failures + 1
            most = max(most, have)
            if failures >= retries.tries:
                raise RunError(f"{file.name}: {error}; gave up after {retries.tries} attempts") from None
            time.sleep(min(retries.wait * 2 ** max(failures - 1, 0), 60.0))


def _check(file: File, path: Path) -> None:
    """Compare the file at `path` with its declared checksum.

    Raises: RunError if a complete file differs; Interrupted if a `.part` differs, which is removed.
    """
    if not file.checksum:
        return
    algorithm, _, expected = file.checksum.partition(":")
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, algorithm).hexdigest()
    if actual == expected:
        return
    if path.name == file.name:
        raise RunError(f"{path} has the {algorithm} checksum {actual}, not {expected}; delete it")
    path.unlink()
    version_path(path).unlink(missing_ok=True)
    raise Interrupted(f"its {algorithm} checksum is {actual}, not {expected}")


def _from_drive(file: File, path: Path, retries: RetryPolicy) -> None:
    try:
        gdown = importlib.import_module("gdown")
        if "retries" not in inspect.signature(gdown.download).parameters:
            raise ImportError("too old")
    except ImportError:
        raise RunError(
            f"{file.name} is on Google Drive, for which the package gdown is needed; "
            "run: pip install -U 'gdown>=6.3'"
        ) from None
    try:
        gdown.download(
            id=file.where.partition(":")[2],
            output=str(path),
            resume=True,
            timeout=retries.timeout,
            retries=retries.tries,
        )
    except Exception as error:  # of gdown, of requests, or of the operating system
        first_line = str(error).strip().partition("\n")[0]
        raise RunError(f"gdown cannot fetch {file.name} ({type(error).__name__}: {first_line})") from error
