"""On Windows, one line names WSL."""

import subprocess
import sys
from pathlib import Path

import pytest

from domainbed import platforms

ROOT = Path(__file__).parents[1]
WINDOWS = "import sys; sys.platform = 'win32'; sys.path.insert(0, {root!r})\n"


@pytest.mark.parametrize("script", ["domainbed.scripts.train", "domainbed_gs.scripts.plan"])
def test_a_script_on_windows_ends_with_one_line_that_names_wsl(script):
    # As in `python -m`, whose first argument is "-m" while the module is looked for.
    code = WINDOWS + "import runpy; sys.argv = ['-m']; runpy.run_module({script!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code.format(root=str(ROOT), script=script)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: domainbed does not run on Windows, which lacks fork and POSIX file")
    assert "use WSL (https://" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_import_on_windows_is_an_import_error():
    code = WINDOWS + "try:\n    import domainbed\nexcept ImportError as error:\n    print(error)"
    command = [sys.executable, "-c", code.format(root=str(ROOT))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "use WSL" in done.stdout


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_linux_and_macos_are_accepted(platform):
    platforms.check(platform)
