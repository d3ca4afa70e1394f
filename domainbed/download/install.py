"""Install a dataset: download, unpack, arrange, verify, move into place, and then remove the archives."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from domainbed.download.fetch import RetryPolicy, fetch
from domainbed.download.manifest import write_manifest
from domainbed.download.source import File, Source
from domainbed.download.unpack import DamagedArchive, unpack
from domainbed.download.verify import Report, verify
from domainbed.errors import RunError
from domainbed.files import file_lock


@dataclass(frozen=True)
class InstallOptions:
    """Options of an installation.

    Attributes:
        retries: when to retry a download.
        open_images: whether to decode every image in the verification.
        keep_archives: whether to keep the archives.
        accept: whether to install a dataset that differs from its declaration. Its archives are kept.
    """

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    open_images: bool = True
    keep_archives: bool = False
    accept: bool = False


def install(source: Source, data_dir: Path, options: InstallOptions) -> Report:
    """Install a dataset unless it is installed, and return the report of its verification.

    A dataset is moved into place after it was verified completely, so a call that was killed can be repeated.
    Downloaded files are kept, and a partial one is resumed. Concurrent calls wait for each other.

    Raises: RunError if a file cannot be downloaded, an archive is damaged, or the data differs from its
        declaration.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with file_lock(data_dir / f".{source.name}.lock"):
            if source.exists(data_dir):
                report = _verify_existing(source, data_dir, options)
            else:
                report = _install_new(source, data_dir, options)
            if not options.keep_archives and not report.problems:
                for file in source.files:
                    (data_dir / file.name).unlink(missing_ok=True)
            return report
    except OSError as error:
        raise RunError(f"{source.name} cannot be installed in {data_dir}: {error}") from error


def _verify_existing(source: Source, data_dir: Path, options: InstallOptions) -> Report:
    report = verify(source, data_dir, open_images=options.open_images)
    if report.problems and not options.accept:
        raise RunError(
            f"{source.place(data_dir)} exists, but it differs from what was declared ({report.line()}); "
            "repair it, or move it away and run the same command again"
        )
    return report


def _install_new(source: Source, data_dir: Path, options: InstallOptions) -> Report:
    downloaded = [file for file in source.files if fetch(file, data_dir, options.retries)]
    staging = data_dir / f".{source.name}.unpacking"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    try:
        for file in source.files:
            try:
                unpack(data_dir / file.name, staging, source.limits)
            except DamagedArchive as error:
                _handle_damage(file, data_dir / file.name, file in downloaded, error)
                raise
        ready = source.arrange(staging, source.holds)
        report = verify(source, data_dir, ready, options.open_images)
        if report.problems and not options.accept:
            raise RunError(
                f"{source.name} differs from what was declared ({report.line()}); its archives are kept. "
                "Use --accept to install it as it is"
            )
        write_manifest(source, data_dir, ready)
        _move_into_place(source, ready, data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _handle_damage(file: File, archive: Path, downloaded: bool, error: DamagedArchive) -> None:
    """Delete a damaged archive that was just downloaded, and add to `error` what to do next."""
    if downloaded:
        archive.unlink()
        error.add_note(
            "The archive was deleted. Run the same command to download it again; if it is damaged again, "
            f"fetch {file.link()} by hand and put it at {archive}."
        )
    else:
        error.add_note("It existed before: delete it and run the same command to download it again.")


def _move_into_place(source: Source, ready: Path, data_dir: Path) -> None:
    place = source.place(data_dir)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.folder == ".":
        for name in source.holds:
            (ready / name).rename(place / name)
    else:
        ready.rename(place)
