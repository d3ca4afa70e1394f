"""From nothing to a dataset in its place: fetch, unpack, arrange, verify, and only then remove archives."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.download.fetch import Patience, fetch
from domainbed.download.file_list import keep_list
from domainbed.download.source import File, Source
from domainbed.download.unpack import DamagedArchive, unpack
from domainbed.download.verify import Report, verify
from domainbed.errors import RunError
from domainbed.files import file_lock


@dataclass(frozen=True)
class How:
    """How a dataset is installed.

    Attributes:
        patience: with servers.
        open_images: whether every image is decoded before the dataset counts as verified.
        keep_archives: whether the archives stay.
        accept: whether a dataset is put into its place although it is not what was declared; its archives
            stay then.
    """

    patience: Patience = field(default_factory=Patience)
    open_images: bool = True
    keep_archives: bool = False
    accept: bool = False


def install(source: Source, data_dir: Path, how: How) -> Report:
    """Put a dataset into its place, unless it is there; what it now has.

    Nothing is in its place before all of it is verified, so a call that was killed is simply repeated:
    files that were fetched stay, and one that was cut short goes on. Two calls at once wait for each other.

    Raises: RunError if a file cannot be had, an archive is damaged, or what came is not what was declared.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with file_lock(data_dir / f".{source.name}.lock"):
            if source.is_there(data_dir):
                report = _verified(source, data_dir, how)
            else:
                report = _install(source, data_dir, how)
            if not how.keep_archives and not report.problems:
                for file in source.files:
                    (data_dir / file.name).unlink(missing_ok=True)
            return report
    except OSError as error:
        raise RunError(f"{source.name} cannot be put into {data_dir}: {error}") from error


def _verified(source: Source, data_dir: Path, how: How) -> Report:
    report = verify(source, data_dir, open_images=how.open_images)
    if report.problems and not how.accept:
        raise RunError(
            f"{source.place(data_dir)} is there, but not as it should be ({report.line()}); "
            "mend it, or move it away and run the same command again"
        )
    return report


def _install(source: Source, data_dir: Path, how: How) -> Report:
    fetched = [file for file in source.files if fetch(file, data_dir, how.patience)]
    staging = data_dir / f".{source.name}.unpacking"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    try:
        for file in source.files:
            try:
                unpack(data_dir / file.name, staging, source.limits)
            except DamagedArchive as error:
                _forget(file, data_dir / file.name, file in fetched, error)
                raise
        ready = source.arrange(staging, source.holds)
        report = verify(source, data_dir, ready, how.open_images)
        if report.problems and not how.accept:
            raise RunError(
                f"{source.name} is not what was declared ({report.line()}); its archives are kept, and "
                "--accept puts it into its place as it is"
            )
        keep_list(source, data_dir, ready)
        _put(source, ready, data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _forget(file: File, archive: Path, fetched: bool, error: DamagedArchive) -> None:
    """A damaged archive that was just fetched is removed, so that the next call fetches it anew."""
    if fetched:
        archive.unlink()
        error.add_note(
            "It is removed: run the same command to fetch it again; if it is no better then, "
            f"fetch {file.link()} by hand and put it at {archive}."
        )
    else:
        error.add_note("It was there before: delete it and run the same command to fetch it again.")


def _put(source: Source, ready: Path, data_dir: Path) -> None:
    place = source.place(data_dir)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.folder == ".":
        for name in source.holds:
            (ready / name).rename(place / name)
    else:
        ready.rename(place)
