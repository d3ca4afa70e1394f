import os

import pytest

from domainbed.errors import RunError, UnknownName, UsageError, describe, hint, run_script


def test_unknown_name_is_a_key_error_and_a_not_implemented_error():
    error = UnknownName("Algorithm", "ERN", ["ERM", "IRM"])
    assert isinstance(error, NotImplementedError)
    assert isinstance(error, KeyError)
    assert str(error) == "Algorithm not found: ERN"
    assert describe(error) == "error: Algorithm not found: ERN. Did you mean ERM?"


def test_hint_ignores_case_and_lists_all_names_when_none_is_near():
    assert hint("agrsum", ["AgrSum", "ERM"]) == "Did you mean AgrSum?"
    assert hint("xyz", ["AgrSum", "ERM"]) == "Known: AgrSum, ERM."


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("no such thing"), 2, "error: no such thing.\n"),
        (RunError("it broke"), 1, "error: it broke.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (KeyboardInterrupt("Interrupted. Go on so."), 130, "Interrupted. Go on so.\n"),
    ],
)
def test_a_script_ends_with_one_line_and_a_status(error, status, line, capsys):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == status
    assert capsys.readouterr().err == line


def test_an_unexpected_exception_keeps_its_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main)


def test_a_script_whose_reader_has_closed_the_pipe_ends_in_silence(forked):
    def script():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        run_script(lambda _: print("a line"))

    done = forked(script)
    assert (done.returncode, done.stderr) == (141, "")
