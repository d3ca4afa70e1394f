"""Download and verify datasets: `python -m domainbed.scripts.download --data_dir DATA`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.command_line import CommandParser
from domainbed.datasets import REGISTRY
from domainbed.datasets.reading_rules import count_by_reason, text_of_counts
from domainbed.download import SOURCES, source_of
from domainbed.download.export import EXPORTED, FORMATS, export
from domainbed.download.fetch import RetryPolicy
from domainbed.download.install import InstallOptions, install
from domainbed.download.source import Source
from domainbed.download.verify import Report, verify
from domainbed.errors import DomainBedError, UsageError, describe, run_script
from domainbed.escaping import visible

_UNKNOWN = "not known"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a dataset is unavailable or fails verification."""
    args = build_parser().parse_args(argv)
    if args.timeout <= 0 or args.retries < 1:
        raise UsageError("--timeout must be above 0, and --retries 1 or more")
    data_dir = None if args.data_dir is None else Path(args.data_dir)
    if args.list:
        for source in _sources(args.datasets, args.data_dir) if args.datasets else SOURCES.values():
            _print_declaration(source, data_dir)
        print("Declared by upstream, packages and the literature; docs/datasets.md says what is unverified.")
        return 0
    if data_dir is None:
        raise UsageError("--data_dir is missing; pass the folder in which to put the datasets")
    if args.export:
        data_dir.mkdir(parents=True, exist_ok=True)
        folder = export(args.export, data_dir, args.format)
        print(f"Exported {args.export} to {folder}; NOTICE names its authors")
        return 0
    sources = _sources(args.datasets, args.data_dir)
    if args.verify:
        return _verify_all(sources, data_dir, named=bool(args.datasets), open_images=not args.quick)
    options = InstallOptions(
        retries=RetryPolicy(timeout=args.timeout, tries=args.retries),
        open_images=not args.quick,
        keep_archives=args.keep_archives,
        accept=args.accept,
    )
    return _install_all(sources, data_dir, options)


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.download",
        "Download datasets, verify them, and put them where the other commands look for them.",
        "--data_dir DIR",
        {
            "--list": "sources, licences and sizes",
            "--data_dir DATA --datasets PACS VLCS": "two datasets (extra download)",
            "--data_dir DATA --verify": "what is missing or damaged in DATA",
            "--data_dir emoji --export EmojiStyles": "images that come with the package, as files",
        },
    )
    add = parser.add_argument_group("what to do").add_argument
    add("--data_dir", type=str, metavar="DIR", help="folder in which to put the datasets")
    add(
        "--datasets", nargs="+", metavar="NAME", help="datasets to download (default: all that have a source)"
    )
    add("--list", action="store_true", help="show the source, licence, size and numbers of each dataset")
    add("--verify", action="store_true", help="download nothing; list missing, surplus and unreadable files")
    add(
        "--export",
        metavar="NAME",
        help=f"write images of the package as a folder tree: {', '.join(EXPORTED)}",
    )
    add = parser.add_argument_group("how").add_argument
    add("--format", default="png", help=f"format of exported images: {' or '.join(FORMATS)} (default: png)")
    add("--quick", action="store_true", help="compare names, numbers and sizes, and open no image")
    add("--keep_archives", action="store_true", help="keep the archives after a successful verification")
    add("--accept", action="store_true", help="install a dataset even if it differs from its declaration")
    add(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="seconds without data before an attempt fails (default: 30)",
    )
    add(
        "--retries",
        type=int,
        default=5,
        metavar="N",
        help="consecutive attempts without progress before giving up (default: 5)",
    )
    return parser


def _sources(names: Sequence[str] | None, data_dir: str | None) -> list[Source]:
    """The sources of the datasets called `names`; by default, all sources that are no part of another."""
    if not names:
        return [source for source in SOURCES.values() if not source.part_of]
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


def _install_all(sources: Sequence[Source], data_dir: Path, options: InstallOptions) -> int:
    """Install each source, also after another one has failed, and return the exit status."""
    failed = False
    for source in sources:
        try:
            report = install(source, data_dir, options)
        except DomainBedError as error:
            print(describe(error), file=sys.stderr)
            failed = True
        else:
            _print_report(source, data_dir, report)
    return int(failed)


def _verify_all(sources: Sequence[Source], data_dir: Path, named: bool, open_images: bool) -> int:
    """Verify each source and return the exit status. If `named`, sources must be installed."""
    failed = False
    for source in sources:
        if not source.exists(data_dir):
            print(f"{source.name}: not installed; run with --datasets {source.name}, without --verify")
            failed |= named
            continue
        report = verify(source, data_dir, open_images=open_images)
        _print_report(source, data_dir, report)
        failed |= bool(report.problems)
    return int(failed)


def _print_declaration(source: Source, data_dir: Path | None) -> None:
    print(f"{source.name}: for {', '.join(source.datasets)}")
    sizes = [file.size for file in source.files]
    known = [size for size in sizes if size is not None]
    print(f"  licence: {source.licence or _UNKNOWN}")
    print(f"  described at: {source.homepage or _UNKNOWN}")
    print(f"  download size: {f'{sum(known):,} bytes' if len(known) == len(sizes) else _UNKNOWN}")
    for file in source.files:
        print(f"    {file.link()} as {file.name}; checksum: {file.checksum or _UNKNOWN}")
    print(f"  becomes: {source.folder}/ with {', '.join(source.holds)}")
    counts = ", ".join(f"{name} {count:,}" for name, count in source.counts.items())
    print(f"  numbers: {counts or _UNKNOWN}")
    print(f"  checksum of the file list: {source.checksum or _UNKNOWN}")
    if source.note:
        print(f"  note: {source.note}")
    if data_dir is not None:
        print(f"  in {data_dir}: {'installed' if source.exists(data_dir) else 'not installed'}")


def _print_report(source: Source, data_dir: Path, report: Report) -> None:
    result = "differs from what was declared" if report.problems else "verified"
    print(f"{source.name}: {result}, in {source.place(data_dir)}")
    counts = ", ".join(f"{name} {count:,}" for name, count in report.counts.items() if "/" not in name)
    print(f"  found: {counts or 'nothing'} (expected: {'as declared' if source.counts else _UNKNOWN})")
    expected = "the downloaded files" if report.compared_with_manifest else source.checksum or _UNKNOWN
    print(f"  checksum of the file list: {report.checksum} (expected: {expected})")
    for kind, instances in report.problems.items():
        for instance in instances:
            print(f"  {kind}: {visible(instance)}")
    for path in report.truncated:
        print(f"  truncated, but readable: {visible(path)}")
    if report.skipped is not None:
        print(f"  files that are not read: {text_of_counts(count_by_reason(report.skipped)) or 'none'}")
        for skipped in report.skipped:
            print(f"    {skipped.line()}")


if __name__ == "__main__":
    run_script(main)
