"""What the tests of the scripts share."""

import pytest


@pytest.fixture
def one_line_error():
    """`one_line_error(process, status)`: the single line that a script said on stderr as it gave up."""

    def line(process, status):
        assert process.returncode == status, process.stderr
        assert process.stderr.startswith("error: "), process.stderr
        assert process.stderr.count("\n") == 1, process.stderr
        return process.stderr.rstrip()

    return line
