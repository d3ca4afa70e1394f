"""One attempt to receive a file by HTTP(S), going on where an earlier one ended."""

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
_PASSING = (408, 425, 429)  # of the statuses 4xx, those that another attempt may not get


class Interrupted(Exception):
    """An attempt that another one may make good."""


def receive(url: str, part: Path, timeout: float) -> None:
    """Write what `url` gives to `part`; if some of it is there, ask only for the rest (Range, If-Range).

    A server that knows no ranges, or whose file has changed, sends all of it anew.

    Args:
        url: where from.
        part: where to. What identifies the file's version at the server is kept beside it, see `version_of`.
        timeout: seconds of silence after which the server is given up.

    Raises: Interrupted if it was cut short and trying again may help; RunError if it will not.
    """
    have = part.stat().st_size if part.exists() else 0
    version = version_of(part)
    headers = {"User-Agent": f"domainbed-gs/{__version__}", "Accept-Encoding": "identity"}
    if have and version.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text(encoding="latin-1")}
    try:
        response = _answer(urllib.request.Request(url, headers=headers), timeout)
    except _NothingMore as error:
        if error.size == have:
            return
        part.unlink()
        raise Interrupted(f"{url} is shorter than what was there of it") from None
    with response:
        _store(response, part, version, have)


def version_of(part: Path) -> Path:
    """The file that says which version of the server's file `part` is of."""
    return part.with_name(f"{part.name}.version")


class _NothingMore(Exception):
    """The range asked for begins at or behind the file's end; `size` is the file's, if the server says it."""

    def __init__(self, content_range: str) -> None:
        size = content_range.removeprefix("bytes */")
        self.size = int(size) if size.isdecimal() else None


def _answer(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    url = request.full_url
    try:
        return cast("http.client.HTTPResponse", urllib.request.urlopen(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _NothingMore(error.headers["Content-Range"] or "") from None
        failure = f"{url} answers {error.code} {error.reason}"
        raise (Interrupted if error.code >= 500 or error.code in _PASSING else RunError)(failure) from None
    except urllib.error.URLError as error:
        raise Interrupted(f"{url} cannot be reached ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"{url} does not answer ({type(error).__name__}: {error})") from None


def _store(response: http.client.HTTPResponse, part: Path, version: Path, have: int) -> None:
    start = 0
    if response.status == 206:
        start = have
        if not (response.headers["Content-Range"] or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise Interrupted("the server sent another part than was asked for")
    length = response.headers["Content-Length"] or ""
    rest = int(length) if length.isdecimal() else None
    free = shutil.disk_usage(part.parent).free
    if rest is not None and rest > free:
        raise RunError(
            f"{part.parent} has room for {free:,} bytes, but {rest:,} are to come; make room there"
        )
    if start == 0:
        # A weak tag ("W/...") may not be used with If-Range.
        tag = response.headers["ETag"] or ""
        strong = tag if tag.startswith('"') else response.headers["Last-Modified"]
        part.unlink(missing_ok=True)
        version.unlink(missing_ok=True)
        if strong:
            write_atomic(version, strong.encode("latin-1"))
    total = None if rest is None else start + rest
    bar = tqdm(
        *(None, f"fetching {part.stem}", total),
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
        raise Interrupted(f"the connection broke off ({type(error).__name__}: {error})") from None
