"""Show what this machine has for runs and sweeps, and what it lacks.

domainbed doctor [--data_dir DATA] [--shared DIR] [--json]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from domainbed.command_line import CommandParser
from domainbed.errors import RunError, run_script


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.doctor",
        "Show what this machine has for runs and sweeps, and what it lacks.",
        examples={
            "--data_dir DATA": "also which datasets are in DATA",
            "--shared SWEEP_DIR": "also whether workers on several machines can share a folder",
            "--json > doctor.json": "for a bug report",
        },
    )
    parser.add_argument("--data_dir", type=str, help="folder of the datasets (default: none is looked into)")
    parser.add_argument(
        "--shared",
        type=Path,
        metavar="DIR",
        help="also try whether the file system of DIR can be shared by the workers of a sweep",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the facts; returns the exit status: 1 if the shared folder lacks something."""
    args = build_parser().parse_args(argv)
    from domainbed.doctor import describe, examine
    from domainbed.shared_folder import check_shared_folder

    facts = examine(args.data_dir)
    lines = describe(facts)
    if args.shared is not None:
        try:
            facts["shared"] = check_shared_folder(args.shared)
        except OSError as error:
            raise RunError(f"cannot write to {args.shared}: {error.strerror}") from None
        lines += [f"{args.shared}:", *(f"  {about}: {found}" for about, found in facts["shared"].items())]
    print(json.dumps(facts, indent=1) if args.json else "\n".join(lines))
    return int(any(found != "ok" for found in facts.get("shared", {}).values()))


if __name__ == "__main__":
    run_script(main)
