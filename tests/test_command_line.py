"""Parsers of command lines: short usage, examples, and errors of one line with the flag that was meant."""

import argparse

import pytest

from domainbed.command_line import CommandParser


@pytest.fixture
def parser():
    made = CommandParser(
        "my.module",
        "Do something " * 10,
        "--input_dir DIR",
        {"--input_dir sweep": "the usual", "--input_dir 50%": "text with a per cent sign"},
        meant={"lr": "--hparams"}.get,
    )
    made.add_argument("--input_dir", required=True, help="where from (default: none)")
    made.add_argument("--names", nargs="+", help="names")
    made.add_argument("--hidden", help=argparse.SUPPRESS)
    return made


def test_the_help_is_a_short_usage_the_flags_and_examples(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parser.format_help()
    assert text.startswith("usage: python -m my.module --input_dir DIR [options]\n\nDo something")
    assert "\n  --names NAMES ..." in text
    assert text.endswith(
        "examples:\n  the usual:\n    python -m my.module --input_dir sweep\n"
        "  text with a per cent sign:\n    python -m my.module --input_dir 50%\n"
    )
    assert "hidden" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--nams", "x"], "unrecognized arguments: --nams x. Did you mean --names?"),
        (["--lr=0.1"], "unrecognized arguments: --lr=0.1. Did you mean --hparams?"),
        (
            ["x", "--hidde_", "2"],
            "unrecognized arguments: x --hidde_ 2. python -m my.module --help shows what",
        ),
        (["more"], "unrecognized arguments: more. python -m my.module --help shows what it takes."),
    ],
)
def test_an_error_is_one_line_with_what_to_do(parser, argv, error, capsys):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--input_dir", "sweep", *argv])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(f"error: {error}")
