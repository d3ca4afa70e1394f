"""List the hyper-parameters of an algorithm on one target environment, best first.

    python -m domainbed.scripts.list_top_hparams --input_dir SWEEP --dataset VLCS --algorithm ERM --test_env 0

Commands to rerun the best of each trial follow the list.
"""

from __future__ import annotations

from collections.abc import Sequence

from domainbed.command_line import CommandParser
from domainbed.datasets.environment_names import index_or_name
from domainbed.errors import run_script
from domainbed.results.loading import SELECTION_HELP, add_loading_flags
from domainbed.results.top_hparams import list_top_hparams


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, by default `sys.argv[1:]`, and print the list; return the exit status."""
    args = build_parser().parse_args(argv)
    list_top_hparams(
        args.input_dir,
        dataset=args.dataset,
        algorithm=args.algorithm,
        test_env=args.test_env,
        selection=args.selection,
        finished_only=args.finished_only,
        mix_data=args.mix_data,
        where=args.where,
        target_sets=args.target_sets,
    )
    return 0


def build_parser() -> CommandParser:
    """The parser of all flags."""
    parser = CommandParser(
        "domainbed.scripts.list_top_hparams",
        "List hyper-parameters by their validation accuracy, best first.",
        "--input_dir DIR --dataset NAME --algorithm NAME --test_envs ENV",
        {"--input_dir SWEEP --dataset VLCS --algorithm ERM --test_envs 0": "the best settings of ERM"},
    )
    add_loading_flags(parser.add_argument_group("runs"))
    add = parser.add_argument_group("what is listed").add_argument
    add("--dataset", required=True, metavar="NAME", help="name of the dataset, as in the records")
    add("--algorithm", required=True, metavar="NAME", help="name of the algorithm")
    # argparse accepts upstream's --test_env, and --test, as abbreviations.
    add(
        "--test_envs",
        type=index_or_name,
        required=True,
        dest="test_env",
        metavar="ENV",
        help="index or name of the target environment; --test_env is the same",
    )
    add("--selection", nargs="+", metavar="NAME", help=SELECTION_HELP)
    return parser


if __name__ == "__main__":
    run_script(main)
