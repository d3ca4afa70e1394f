"""Fetch datasets and prove that they are whole: `python -m domainbed.scripts.download --data_dir DATA`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.datasets import REGISTRY
from domainbed.download import SOURCES, source_of
from domainbed.download.export import EXPORTED, FORMATS, export
from domainbed.download.fetch import Patience
from domainbed.download.install import How, install
from domainbed.download.source import Source
from domainbed.download.verify import Report, verify
from domainbed.errors import DomainBedError, UsageError, describe, run_script

_UNKNOWN = "not known"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and do it; returns the exit status: 1 if a dataset could not be had, or is not as it should."""
    args = _parser().parse_args(argv)
    if args.timeout <= 0 or args.retries < 1:
        raise UsageError("--timeout must be above 0, and --retries 1 or more")
    data_dir = None if args.data_dir is None else Path(args.data_dir)
    if args.list:
        for source in _sources(args.datasets, args.data_dir):
            _print_declared(source, data_dir)
        print("Declared by upstream, packages and the literature; docs/datasets.md says what is unverified.")
        return 0
    if data_dir is None:
        raise UsageError("--data_dir is missing: the folder below which the datasets are put")
    if args.export:
        data_dir.mkdir(parents=True, exist_ok=True)
        print(f"{args.export} is in {export(args.export, data_dir, args.format)}; NOTICE has its authors")
        return 0
    if args.verify:
        return _verify_all(
            _sources(args.datasets, args.data_dir), data_dir, bool(args.datasets), not args.quick
        )
    how = How(Patience(args.timeout, args.retries), not args.quick, args.keep_archives, args.accept)
    return _install_all(_sources(args.datasets, args.data_dir), data_dir, how)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m domainbed.scripts.download",
        description="Fetch datasets, verify them, and put them where the other scripts look for them.",
    )
    add = parser.add_argument
    add("--data_dir", type=str, help="folder below which the datasets are put")
    add("--datasets", nargs="+", metavar="NAME", help="which; default: all that can be had")
    add("--list", action="store_true", help="say where each comes from, its licence, size and numbers")
    add("--verify", action="store_true", help="fetch nothing; say what is missing, surplus or unreadable")
    add(
        "--export",
        metavar="NAME",
        help=f"write images of the package as a folder tree: {', '.join(EXPORTED)}",
    )
    add("--format", default="png", help=f"of exported images: {' or '.join(FORMATS)} (default: png)")
    add("--quick", action="store_true", help="compare names, numbers and sizes; open no image")
    add("--keep_archives", action="store_true", help="do not remove archives once all is verified")
    add("--accept", action="store_true", help="put it into its place although it is not what was declared")
    add("--timeout", type=float, default=30.0, help="seconds of silence before a server is given up (30)")
    add("--retries", type=int, default=5, help="attempts in a row that bring nothing new (5)")
    return parser


def _sources(names: Sequence[str] | None, data_dir: str | None) -> list[Source]:
    """The sources of the datasets called `names`, by default all of them."""
    if not names:
        return list(SOURCES.values())
    sources = []
    for name in names:
        source = source_of(name)
        if source is None:
            missing = REGISTRY[name].missing(data_dir)
            if missing:
                raise UsageError(f"{name} has no download: {missing}")
            print(f"{name} needs no download")
        elif source not in sources:
            sources.append(source)
    return sources


def _install_all(sources: Sequence[Source], data_dir: Path, how: How) -> int:
    """Install one after the other; one that fails does not stop the others."""
    failed = 0
    for source in sources:
        try:
            report = install(source, data_dir, how)
        except DomainBedError as error:
            print(describe(error), file=sys.stderr)
            failed += 1
        else:
            _print_report(source, data_dir, report)
    return int(failed > 0)


def _verify_all(sources: Sequence[Source], data_dir: Path, named: bool, open_images: bool) -> int:
    """Verify what is there; that a dataset is not there is an error if it was `named`."""
    wrong = False
    for source in sources:
        if not source.is_there(data_dir):
            print(f"{source.name}: not there; --datasets {source.name} without --verify fetches it")
            wrong |= named
            continue
        report = verify(source, data_dir, open_images=open_images)
        _print_report(source, data_dir, report)
        wrong |= bool(report.problems)
    return int(wrong)


def _print_declared(source: Source, data_dir: Path | None) -> None:
    print(f"{source.name}: for {', '.join(source.datasets)}")
    sizes = [file.size for file in source.files]
    known = [size for size in sizes if size is not None]
    print(f"  licence: {source.licence or _UNKNOWN}")
    print(f"  described at: {source.homepage or _UNKNOWN}")
    print(f"  to fetch: {f'{sum(known):,} bytes' if len(known) == len(sizes) else _UNKNOWN}")
    for file in source.files:
        print(f"    {file.link()} as {file.name}; checksum: {file.checksum or _UNKNOWN}")
    print(f"  becomes: {source.folder}/ with {', '.join(source.holds)}")
    counts = ", ".join(f"{name} {count:,}" for name, count in source.counts.items())
    print(f"  numbers: {counts or _UNKNOWN}")
    print(f"  checksum of the file list: {source.checksum or _UNKNOWN}")
    if source.note:
        print(f"  note: {source.note}")
    if data_dir is not None:
        print(f"  in {data_dir}: {'there' if source.is_there(data_dir) else 'not there'}")


def _print_report(source: Source, data_dir: Path, report: Report) -> None:
    verdict = "not as it should be" if report.problems else "verified"
    print(f"{source.name}: {verdict}, in {source.place(data_dir)}")
    counts = ", ".join(f"{name} {count:,}" for name, count in report.counts.items() if "/" not in name)
    print(f"  found: {counts or 'nothing'} (expected: {'declared' if source.counts else _UNKNOWN})")
    compared = "the files that arrived" if report.as_arrived else source.checksum or _UNKNOWN
    print(f"  checksum of the file list: {report.checksum} (expected: {compared})")
    for kind, instances in report.problems.items():
        for instance in instances:
            print(f"  {kind}: {instance}")
    for path in report.cut_short:
        print(f"  ends too early, read all the same: {path}")


if __name__ == "__main__":
    run_script(main)
