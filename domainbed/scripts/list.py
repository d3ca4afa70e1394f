"""List what is available by name.

python -m domainbed.scripts.list                        what there is, on one screen
python -m domainbed.scripts.list algorithms             a table of all
python -m domainbed.scripts.list algorithms 'Agr*'      of some
python -m domainbed.scripts.list algorithms AgrSum      one in full
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from domainbed.command_line import CommandParser
from domainbed.errors import UnknownName, run_script
from domainbed.listing.kinds import GLOB, KINDS, SCRIPT, chosen
from domainbed.listing.text import in_full, overview, table


def requests(words: Sequence[str]) -> dict[str, list[str]]:
    """Kind -> patterns, of the arguments "KIND [PATTERN ...] [KIND ...]".

    Raises: UnknownName if the first word is no kind.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        if word in KINDS:
            found.setdefault(word, [])
        elif found:
            list(found.values())[-1].append(word)
        else:
            raise UnknownName("Kind", word, KINDS)
    return found


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        SCRIPT,
        "List algorithms, datasets, featurizers and other things that are available by name.",
        "[KIND [NAME ...]]",
        {
            "": "how many there are of each kind",
            "algorithms": "a table of all algorithms",
            "algorithms 'Agr*'": "of some",
            "algorithms AgrSum": "one in full, with its hyper-parameters",
            "datasets --data_dir DATA": "which datasets are in DATA",
        },
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KIND [NAME]",
        help=f"a kind ({', '.join(KINDS)}), then names or globs such as 'Agr*'",
    )
    parser.add_argument("--data_dir", type=str, help="data directory, to see which datasets are installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object: kind -> name -> facts")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = build_parser().parse_args(argv)
    wanted = requests(args.words)
    everything = {kind: KINDS[kind](args.data_dir) for kind in wanted or KINDS}
    shown = {kind: chosen(entries, kind, wanted.get(kind, [])) for kind, entries in everything.items()}
    if args.json:
        print(json.dumps(shown, indent=1))
    elif not wanted:
        print("\n".join(overview(shown)))
    else:
        of_erm = everything.get("algorithms", {}).get("ERM", {}).get("hparams", {})
        blocks = []
        for kind, patterns in wanted.items():
            if not patterns or any(letter in pattern for pattern in patterns for letter in GLOB):
                blocks.append(table(kind, shown[kind]))
            else:
                blocks += [in_full(name, entry, of_erm) for name, entry in shown[kind].items()]
        print("\n\n".join("\n".join(block) for block in blocks))
    return 0


if __name__ == "__main__":
    run_script(main)
