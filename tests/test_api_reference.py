"""docs/api_reference.py: the pages that it builds, and the faults that it finds."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "api_reference.py"

SOURCES = {
    "__init__": '''
"""A package, see `NAME.good.Good.start`."""
__all__ = ["Good"]
def __getattr__(name):
    if name != "Good":
        raise AttributeError(name)
    from NAME.good import Good
    return Good
''',
    "good": '''
"""Good ones, unlike `NAME.bad.Fields`."""
from dataclasses import dataclass, field
@dataclass
class Good:
    """Something.

    Attributes:
        start, stop: both ends.
    """
    start: int
    stop: int
    _own: int = 0
    flag: int = field(default=0, metadata={"help": "what the flag means"})
    def length(self):
        """How long it is."""
    def _hidden(self): ...
class Better(Good):
    """More of it."""
    def length(self): ...
''',
    "bad": '''
"""A module that names `NAME.nothing` and `NAME.good.Good.end`, but `NAME.good.Good.start` as well."""
from typing import NamedTuple
import torch
def bare(): ...
class Fields(NamedTuple):
    """A tuple with `described`."""
    described: int
    forgotten: int
class Network(torch.nn.Module):
    """A network."""
    def update(self, parameters):
        """Train these `parameters`."""
class Undocumented:
    def method(self): ...
''',
}

PROBLEMS = [
    "NAME.bad.bare has no docstring",
    "NAME.bad.Fields.forgotten is not described",
    "NAME.bad.Undocumented has no docstring",
    "NAME.bad.Undocumented.method has no docstring",
    "NAME.bad names NAME.nothing, which does not exist",
    "NAME.bad names NAME.good.Good.end, which does not exist",
    "NAME/bad.html has a link to #Network.parameters, which does not exist",
]


@pytest.fixture(scope="module")
def api_reference():
    spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(name, *modules)`: a package of some of `SOURCES` that can be imported."""

    def write(name, *modules):
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        for module in ("__init__", *modules):
            (folder / f"{module}.py").write_text(SOURCES[module].replace("NAME", name))
        monkeypatch.syspath_prepend(folder.parent)
        importlib.invalidate_caches()
        return name

    return write


def test_every_fault_is_listed_and_nothing_else(api_reference, package, tmp_path, capsys):
    name = package("faulty", "good", "bad")
    assert api_reference.main([str(tmp_path / "pages"), name]) == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert problems == [problem.replace("NAME", name) for problem in PROBLEMS]
    assert last == f"3 modules, 7 problems: {tmp_path}/pages/index.html"


def test_pages_of_documented_code_link_to_each_other(api_reference, package, tmp_path):
    name = package("faultless", "good")
    page = tmp_path / "pages" / name / "good.html"
    (tmp_path / "packages" / name / "good.py").write_text(
        SOURCES["good"].replace("NAME.bad.Fields", f"{name}.good.Better")
    )
    assert api_reference.main([str(tmp_path / "pages"), name]) == 0
    top = (tmp_path / "pages" / f"{name}.html").read_text()
    assert f'href="{name}/good.html#Good.start"' in top
    assert 'id="Good"' in top, "what is imported on first use is described"
    assert f'href="{name}/good.html"' in top, "the module is in the list of submodules"
    assert "what the flag means" in page.read_text(), "the help of a flag is its description"
    assert 'href="#Better"' in page.read_text()


@pytest.mark.slow
def test_the_reference_of_our_packages_has_no_fault(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    page = (tmp_path / "domainbed.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in ("collect", "launch_sweep", "load", "report", "train"))
    assert 'href="domainbed_gs.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
