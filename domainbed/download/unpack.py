"""Unpacking archives from strangers: nothing leaves the target, nothing grows without bound."""

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
from typing import IO

from tqdm import tqdm

from domainbed.errors import RunError

_CHUNK = 1 << 20
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError),  # zipfile's for methods it does not know, and for passwords
)
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz)$")
_SUSPECT = re.compile(r"[\\\x00-\x1f]")  # another system's separators, and what breaks a line of a list
_Stream = IO[bytes] | BufferedIOBase
_COMPRESSED: dict[str, Callable[[Path], _Stream]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


class DamagedArchive(RunError):
    """An archive that cannot be unpacked to its end, or that has what none should have."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one archive may unpack to.

    Attributes:
        size: bytes.
        ratio: bytes for each byte of the archive; images hardly compress, tables do so twentyfold.
        members: files and folders.
    """

    size: int = 200 << 30
    ratio: int = 100
    members: int = 2_000_000


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    open: Callable[[], _Stream | None]


def unpack(archive: Path, into: Path, limits: Limits) -> None:
    """Unpack a zip, a tar (plain or compressed) or one compressed file into the folder `into`.

    Its name says which; any other file is copied. Only regular files and folders are made, with the
    usual permissions. Checksums of zip, gzip, bzip2 and xz are verified to the end.

    Raises: DamagedArchive if it is cut short or corrupt; holds a link, a device, an absolute path or one
        with `..`, the same file twice; or outgrows `limits`. What was unpacked so far is left to the caller.
    """
    allowed = min(limits.size, max(limits.ratio * archive.stat().st_size, _CHUNK))
    written = 0
    try:
        with tqdm(desc=f"unpacking {archive.name}", unit="file", leave=False, disable=None) as bar:
            for number, member in enumerate(_members(archive)):
                if number >= limits.members:
                    raise DamagedArchive(f"{archive} has more than {limits.members:,} members; refused")
                written += _place(member, into, allowed - written, archive)
                bar.update()
    except (*_DAMAGE, OSError) as error:
        # Readers raise an OSError too; one of the disk that is written to has another number.
        disk = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if disk or isinstance(error, RunError):
            raise
        raise DamagedArchive(
            f"{archive} is damaged ({type(error).__name__}: {error}){_web_page(archive)}"
        ) from error


def _place(member: _Member, into: Path, room: int, archive: Path) -> int:
    """Write one member; returns its number of bytes, at most `room`."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or _SUSPECT.search(member.name):
        raise DamagedArchive(f"{archive} has a member outside of it ({member.name!r}); refused")
    if member.kind not in ("file", "folder"):
        raise DamagedArchive(f"{archive} has a {member.kind} ({member.name!r}); refused")
    target = into / path
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            return _copy(member, file, room, archive)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DamagedArchive(f"{archive} has {member.name!r} twice; refused") from None


def _copy(member: _Member, file: IO[bytes], room: int, archive: Path) -> int:
    written = 0
    stream = member.open()
    if stream is None:
        raise DamagedArchive(f"{archive} has a member without content ({member.name!r}); refused")
    with stream:
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > room:
                raise DamagedArchive(
                    f"{archive} unpacks to more than was declared for it, as a bomb does; refused"
                )
            file.write(chunk)
    return written


def _members(archive: Path) -> Iterator[_Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _of_zip(archive)
    if _TAR.search(name):
        return _of_tar(archive)
    opener = _COMPRESSED.get(archive.suffix.lower())
    if opener:
        return iter([_Member(archive.stem, "file", lambda: opener(archive))])
    return iter([_Member(archive.name, "file", lambda: archive.open("rb"))])


def _of_zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where made on a system without modes
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if mode == stat.S_IFLNK else "device"
            else:
                kind = "folder" if info.is_dir() else "file"
            yield _Member(info.filename, kind, lambda info=info: archive.open(info))  # type: ignore[misc]


def _of_tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, "r:*") as archive:
        for info in archive:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "device"
            if info.issym() or info.islnk():
                kind = "link"
            yield _Member(info.name, kind, lambda info=info: archive.extractfile(info))  # type: ignore[misc]
        # The checksum of a compressed stream stands behind the last member.
        while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
            pass


def _web_page(archive: Path) -> str:
    with archive.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return ": it is a web page" if start.startswith((b"<!doctype", b"<html")) else ""
