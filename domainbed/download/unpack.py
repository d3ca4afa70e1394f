"""Safe unpacking of untrusted archives: no file outside the target folder, bounded memory and total size."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from domainbed.errors import RunError
from domainbed.escaping import shortened

_CHUNK = 1 << 20
_HEADERS = 1 << 18
"""Largest size of the headers of one member of a tar, which tarfile keeps in memory. Usual are 512 bytes."""

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # of zipfile, for an unknown compression method
    RuntimeError,  # of zipfile, for an encrypted archive
)
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz)$")
_SUSPECT = re.compile(
    r"[\\\x00-\x1f]"
)  # Windows' separator, and control characters, which would break the lines of a manifest
_Stream = IO[bytes] | BufferedIOBase
_COMPRESSED: dict[str, Callable[[Path], _Stream]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


class DamagedArchive(RunError):
    """An archive that is corrupt, or has members that are not allowed."""


@dataclass(frozen=True)
class Limits:
    """Bounds on the contents of one archive.

    Attributes:
        size: largest total size in bytes, for a tar with its headers and what follows its last member.
        ratio: largest total size per byte of the archive. Images hardly compress, tables about twentyfold.
        members: largest number of files and folders.
    """

    size: int = 200 << 30
    ratio: int = 100
    members: int = 2_000_000


@dataclass(frozen=True)
class _Member:
    """A member of an archive; `kind` is "file", "folder", "link", "sparse file" or "device"."""

    name: str
    kind: str
    open: Callable[[], _Stream | None]


def unpack(archive: Path, into: Path, limits: Limits) -> None:
    """Unpack a zip, a tar (plain or compressed) or one compressed file into the folder `into`.

    The suffix determines the format; any other file is copied. Only regular files and folders are created,
    with default permissions. Checksums of zip, gzip, bzip2 and xz are verified to the end. Memory is bounded:
    by a few MiB for a tar, whatever its headers declare, and by the size of the archive for a zip.

    Raises: DamagedArchive if the archive is truncated or corrupt, contains a link, a device, an absolute
        path, a path with `..` or the same file twice, or exceeds `limits`. Files unpacked so far remain in
        `into`.
    """
    allowed = min(limits.size, max(limits.ratio * archive.stat().st_size, _CHUNK))
    written = 0
    try:
        with tqdm(desc=f"unpacking {archive.name}", unit="file", leave=False, disable=None) as bar:
            for number, member in enumerate(_members(archive, allowed)):
                if number >= limits.members:
                    raise DamagedArchive(
                        f"{archive} has more than {limits.members:,} members, the limit for it"
                    )
                written += _write_member(member, into, allowed - written, archive)
                bar.update()
    except (*_DAMAGE, OSError) as error:
        # Readers raise OSError too, but without an error number or with EINVAL.
        is_disk_error = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_disk_error or isinstance(error, RunError):
            raise
        raise DamagedArchive(
            f"{archive} is damaged ({type(error).__name__}: {shortened(str(error))}){_web_page_note(archive)}"
        ) from error


def _write_member(member: _Member, into: Path, room: int, archive: Path) -> int:
    """Write one member of at most `room` bytes, and return its size."""
    path, shown = PurePosixPath(member.name), repr(shortened(member.name))
    if path.is_absolute() or ".." in path.parts or _SUSPECT.search(member.name):
        raise DamagedArchive(f"{archive} has a member outside the target folder ({shown})")
    if member.kind not in ("file", "folder"):
        raise DamagedArchive(f"{archive} contains a {member.kind} ({shown}); allowed are files and folders")
    target = into / path
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            return _copy(member, file, room, archive)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DamagedArchive(f"{archive} contains {shown} twice") from None


def _copy(member: _Member, file: IO[bytes], room: int, archive: Path) -> int:
    written = 0
    stream = member.open()
    if stream is None:
        raise DamagedArchive(f"{archive} has a member without content ({shortened(member.name)!r})")
    with stream:
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > room:
                raise _too_large(archive)
            file.write(chunk)
    return written


def _too_large(archive: Path) -> DamagedArchive:
    return DamagedArchive(f"{archive} unpacks to more than its declared limit, as a decompression bomb does")


def _members(archive: Path, allowed: int) -> Iterator[_Member]:
    """The members of an archive whose unpacked size, with all headers, is at most `allowed` bytes."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive)
    if _TAR.search(name):
        return _tar_members(archive, allowed)
    opener = _COMPRESSED.get(archive.suffix.lower())
    if opener:
        return iter([_Member(archive.stem, "file", lambda: opener(archive))])
    return iter([_Member(archive.name, "file", lambda: archive.open("rb"))])


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 if created on a system without modes
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if mode == stat.S_IFLNK else "device"
            else:
                kind = "folder" if info.is_dir() else "file"
            yield _Member(info.filename, kind, lambda info=info: archive.open(info))  # type: ignore[misc]


class _LimitedStream:
    """A stream that raises DamagedArchive before it has given more than `end` bytes since it was opened."""

    def __init__(self, stream: _Stream, archive: Path, allowed: int) -> None:
        self._stream = stream
        self._archive = archive
        self._allowed = allowed
        self._given = 0
        self._in_headers = self._header_end = 0

    def expect_headers(self) -> None:
        """The next bytes are the headers of a member, until `expect_content`."""
        self._header_end = self._given + _HEADERS

    def expect_content(self) -> None:
        """The next bytes are the content of a member, of any size."""
        self._header_end = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer only at the end."""
        data = self._stream.read(size)
        self._given += len(data)
        if self._given > self._allowed:
            raise _too_large(self._archive)
        if self._header_end and self._given > self._header_end:
            raise DamagedArchive(
                f"{self._archive} has a member with more than {_HEADERS:,} bytes of headers, the limit for it"
            )
        return data


def _tar_members(path: Path, allowed: int) -> Iterator[_Member]:
    with _decompressed(path) as stream:
        limited = _LimitedStream(stream, path, allowed)
        limited.expect_headers()
        # "r|" reads once from start to end, in blocks.
        with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|") as archive:
            while (info := archive.next()) is not None:
                limited.expect_content()
                yield _Member(info.name, _tar_kind(info), lambda info=info: archive.extractfile(info))  # type: ignore[misc]
                cast(Any, archive).members.clear()  # tarfile would keep a kilobyte for each
                limited.expect_headers()
        # The checksum of a compressed stream comes after the last member.
        limited.expect_content()
        while limited.read(_CHUNK):
            pass


def _decompressed(path: Path) -> _Stream:
    """The tar in the file `path`, whose first bytes, unlike its suffix, cannot be wrong about its format."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, suffix in ((b"\x1f\x8b", ".gz"), (b"BZh", ".bz2"), (b"\xfd7zXZ\x00", ".xz")):
        if start.startswith(magic):
            return _COMPRESSED[suffix](path)
    return path.open("rb")


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    if info.issparse():
        return "sparse file"
    return "file" if info.isreg() else "folder" if info.isdir() else "device"


def _web_page_note(archive: Path) -> str:
    with archive.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return ", because it is a web page" if start.startswith((b"<!doctype", b"<html")) else ""
