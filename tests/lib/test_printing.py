from __future__ import annotations

import numpy as np
import pytest

from domainbed.lib.printing import format_row, print_row, print_separator


@pytest.mark.parametrize(
    ("row", "latex", "line"),
    [
        (["C1", "C2"], False, "C1          C2         \n"),
        (["C1", "C2"], True, "C1         & C2         \\\\\n"),
        ([0.5, np.float32(0.25), 3], False, "0.50000000  0.25000000  3          \n"),
        ([True, None, "longer than ten"], False, "True        None        longer tha \n"),
    ],
)
def test_print_row(capsys, row, latex, line):
    print_row(row, latex=latex)
    assert capsys.readouterr().out == line


def test_colwidth(capsys):
    print_row([1 / 3, "x"], colwidth=14)
    assert capsys.readouterr().out == "0.3333333333    x              \n"
    assert format_row(["ab", "cd"], [1, 3]) == "a  cd  "


def test_print_separator(capsys):
    print_separator()
    assert capsys.readouterr().out == "=" * 80 + "\n"
