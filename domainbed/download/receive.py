"""One attempt to download a file by HTTP(S), which resumes a partial file of an earlier attempt."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import cast

from tqdm import tqdm

from domainbed.errors import RunError
from domainbed.files import write_atomic
from domainbed.version import __version__

_CHUNK = 1 << 16
_TEMPORARY = (408, 425, 429)  # client errors (4xx) that another attempt may not get


class Interrupted(Exception):
    """A failed attempt after which another one may succeed."""


def receive(url: str, part: Path, timeout: float) -> None:
    """Download `url` to `part`, or only the remainder if `part` exists.

    The request has the headers Range and If-Range (RFC 9110, sections 14.2 and 13.1.5). If the server does
    not support them, or its file has changed, the whole file is downloaded again.

    Args:
        url: address of the file.
        part: the partial file. Its version on the server is kept beside it (see `version_path`).
        timeout: seconds without data after which the attempt fails.

    Raises: Interrupted if another attempt may succeed; RunError if it will not.
    """
    have = part.stat().st_size if part.exists() else 0
    version = version_path(part)
    headers = {"User-Agent": f"domainbed-gs/{__version__}", "Accept-Encoding": "identity"}
    if have and version.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text(encoding="latin-1")}
    try:
        response = _open(urllib.request.Request(url, headers=headers), timeout)
    except _RangeNotSatisfiable as error:
        if error.size == have:
            return
        part.unlink()
        raise Interrupted(f"{url} is shorter than the part that was downloaded earlier") from None
    with response:
        _store(response, part, version, have)


def version_path(part: Path) -> Path:
    """File with the entity tag or modification time of the server's file that `part` belongs to."""
    return part.with_name(f"{part.name}.version")


class _RangeNotSatisfiable(Exception):
    """Status 416: the range begins at or after the end of the file, whose `size` is set if known."""

    def __init__(self, content_range: str) -> None:
        size = content_range.removeprefix("bytes */")
        self.size = int(size) if size.isdecimal() else None


def _open(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    url = request.full_url
    try:
        return cast("http.client.HTTPResponse", urllib.request.urlopen(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _RangeNotSatisfiable(error.headers["Content-Range"] or "") from None
        failure = f"{url} answers {error.code} {error.reason}"
        raise (Interrupted if error.code >= 500 or error.code in _TEMPORARY else RunError)(failure) from None
    except urllib.error.URLError as error:
        raise Interrupted(f"{url} cannot be reached ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"{url} does not answer ({type(error).__name__}: {error})") from None


def _store(response: http.client.HTTPResponse, part: Path, version: Path, have: int) -> None:
    """Append the response to `part`, or replace `part` if the response is the whole file."""
    start = 0
    if response.status == 206:
        start = have
        if not (response.headers["Content-Range"] or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise Interrupted("the server sent another range than was requested")
    length = response.headers["Content-Length"] or ""
    remaining = int(length) if length.isdecimal() else None
    free = shutil.disk_usage(part.parent).free
    if remaining is not None and remaining > free:
        raise RunError(
            f"{part.parent} has {free:,} bytes of free disk space, but the download needs {remaining:,}; "
            "free some space"
        )
    if start == 0:
        # If-Range does not accept a weak entity tag ("W/...").
        tag = response.headers["ETag"] or ""
        validator = tag if tag.startswith('"') else response.headers["Last-Modified"]
        part.unlink(missing_ok=True)
        version.unlink(missing_ok=True)
        if validator:
            write_atomic(version, validator.encode("latin-1"))
    total = None if remaining is None else start + remaining
    bar = tqdm(
        desc=f"fetching {part.stem}",
        total=total,
        initial=start,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
    )
    received = start
    with bar, part.open("ab", buffering=0) as file:
        while chunk := _read(response):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise Interrupted(f"the connection ended after {received:,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"the connection broke ({type(error).__name__}: {error})") from None
