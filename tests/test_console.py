from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed.console import Tee, fitted, format_row, print_row, print_separator, shortened_list, text_table

REPOSITORY = Path(__file__).parents[2]


def test_tee_writes_to_stream_and_copy(tmp_path):
    stream, path = io.StringIO(), tmp_path / "out.txt"
    path.write_text("before\n")
    tee = Tee(path, stream=stream)
    assert tee.write("größer\n") == 7
    assert stream.getvalue() == "größer\n"
    assert path.read_text(encoding="utf-8") == "before\ngrößer\n"
    tee.close()
    assert tee.closed
    tee.write("late\n")
    tee.flush()
    assert stream.getvalue() == "größer\nlate\n"
    assert "late" not in path.read_text(encoding="utf-8")
    with Tee(path, "w", stream):
        pass
    assert path.read_text() == ""


def test_tee_copies_the_current_stdout_by_default(tmp_path, monkeypatch):
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stdout", replaced)
    copy = io.StringIO()
    with contextlib.redirect_stdout(Tee(copy)):
        print("shown")
    assert replaced.getvalue() == copy.getvalue() == "shown\n"


def test_tee_has_the_attributes_of_its_stream(tmp_path):
    with (tmp_path / "real").open("w", encoding="latin-1", errors="replace") as real:
        tee = Tee(tmp_path / "copy", stream=real)
        assert (tee.fileno(), tee.encoding, tee.errors) == (real.fileno(), "latin-1", "replace")
        assert not tee.isatty()
        assert tee.writable()
        tee.close()
        assert not real.closed
    with Tee(tmp_path / "copy", stream=io.StringIO()) as tee:
        assert tee.encoding == "utf-8"
        with pytest.raises(OSError, match="fileno"):
            tee.fileno()


def test_tee_keeps_stderr_and_stdout_apart(tmp_path):
    code = (
        "import sys, contextlib\n"
        "from domainbed.console import Tee\n"
        "with Tee(sys.argv[1]) as out, contextlib.redirect_stdout(out), "
        "Tee(sys.argv[2], stream=sys.stderr) as err, contextlib.redirect_stderr(err):\n"
        "    print('to out')\n"
        "    print('to err', file=sys.stderr)\n"
    )
    files = [tmp_path / "out.txt", tmp_path / "err.txt"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("to out\n", "to err\n")
    assert [file.read_text() for file in files] == ["to out\n", "to err\n"]


def test_tee_raises_for_an_unwritable_path(tmp_path):
    with pytest.raises(OSError, match="missing"):
        Tee(tmp_path / "missing" / "out.txt")


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


def test_column_widths(capsys):
    print_row([1 / 3, "x"], colwidth=14)
    assert capsys.readouterr().out == "0.3333333333    x              \n"
    assert format_row(["ab", "cd"], [1, 3]) == "a  cd  "


def test_shortened_list():
    assert shortened_list(["a", "b"]) == "a, b"
    assert shortened_list(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert shortened_list([]) == ""


def test_print_separator(capsys):
    print_separator()
    assert capsys.readouterr().out == "=" * 80 + "\n"


DEBUGGED = """
import io, sys
from domainbed.console import pdb

def caller():
    inside = 41 + 1
    sys.stdout = io.StringIO()
    pdb()
    return inside

caller()
"""


def test_pdb_stops_in_its_caller_with_stdout_restored():
    result = subprocess.run(
        [sys.executable, "-c", DEBUGGED], input="p inside\nc\n", capture_output=True, text=True, check=False
    )
    assert "42" in result.stdout, result.stderr


def test_long_names_are_shortened_in_the_middle_so_that_two_do_not_look_alike():
    first, second = "/data/collections/photos_2024/animals", "/data/collections/photos_2025/animals"
    assert fitted(["PACS", first, second], 25) == [
        "PACS",
        "/data/c...os_2024/animals",
        "/data/c...os_2025/animals",
    ]
    early, late = "a-" + "x" * 40, "b-" + "x" * 40
    assert fitted([early, late], 25)[0] != fitted([early, late], 25)[1]
    assert fitted(["only the end differs" * 3 + "1", "only the end differs" * 3 + "2"], 25)[0].endswith("s1")


@pytest.mark.parametrize("width", [10, 20, 25])
def test_fitted_names_are_as_wide_as_their_column_at_most(width):
    names = ["x" * length for length in range(40)]
    assert [len(cut) for cut in fitted(names, width)] == [min(len(name), width) for name in names]


def test_the_last_column_of_a_table_is_wrapped_below_itself():
    rows = [["name", "about"], ["A", "one two three four five six seven eight nine ten"]]
    assert text_table(rows, width=40) == [
        "name  about",
        "A     one two three four five six seven",
        "      eight nine ten",
    ]
    assert text_table([["A", ""]]) == ["A"]
