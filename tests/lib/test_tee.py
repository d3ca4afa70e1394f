from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed.lib.tee import Tee

REPOSITORY = Path(__file__).parents[2]


def test_text_goes_to_both_sides_at_once(tmp_path):
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


def test_default_is_the_current_stdout(tmp_path, monkeypatch):
    replaced = io.StringIO()
    monkeypatch.setattr(sys, "stdout", replaced)
    copy = io.StringIO()
    with contextlib.redirect_stdout(Tee(copy)):
        print("shown")
    assert replaced.getvalue() == copy.getvalue() == "shown\n"


def test_it_answers_like_the_stream(tmp_path):
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


def test_stderr_stays_on_stderr(tmp_path):
    code = (
        "import sys, contextlib\n"
        "from domainbed.lib.tee import Tee\n"
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


def test_a_path_that_cannot_be_opened(tmp_path):
    with pytest.raises(OSError, match="missing"):
        Tee(tmp_path / "missing" / "out.txt")
