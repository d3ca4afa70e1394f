"""Hashes of plugins' code."""

import importlib
import sys

import pytest
from torch import nn

from domainbed.algorithms.erm import ERM
from domainbed.training.plugin_code import code_hash, differences, hashes

CODE = '''
"""A module."""
from domainbed.algorithms.erm import ERM

SIZE: int = 3
UNUSED = 1


def outer(x):
    return inner(x)


def inner(x):
    """Add."""
    return x + SIZE


class Base(ERM):
    """A base."""

    FIELD = 1


class Method(Base):
    """A method."""

    def update(self, minibatches, unlabeled=None):
        """Update."""
        return outer(f"{minibatches!r:>3}")
'''


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """`imported(code)`: a new module with this code."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(code):
        made.append(f"code_of_a_plugin_{len(made)}")
        (tmp_path / f"{made[-1]}.py").write_text(code)
        importlib.invalidate_caches()
        return importlib.import_module(made[-1])

    yield make
    for name in made:
        del sys.modules[name]


SAME = {
    "a docstring": ("A method.", "The method."),
    "a docstring of a function": ("Add.", "Sum."),
    "a comment": ("FIELD = 1", "FIELD = 1  # one"),
    "layout": ("return x + SIZE", "return (x\n            + SIZE)"),
    "what it does not use": ("UNUSED = 1", "UNUSED = 2"),
}
CHANGED = {
    "a method": ("outer(f", "inner(f"),
    "a function of a function": ("x + SIZE", "x - SIZE"),
    "a constant": ("SIZE: int = 3", "SIZE: int = 3.0"),
    "a format": (">3", ">4"),
    "a base": ("FIELD = 1", "FIELD = 2"),
}


def test_only_what_has_a_meaning_changes_the_hash(imported):
    before = code_hash(imported(CODE).Method)
    for name, (old, new) in (SAME | CHANGED).items():
        assert old in CODE, name
        after = code_hash(imported(CODE.replace(old, new)).Method)
        assert (after == before) == (name in SAME), name


def test_the_hash_is_the_same_on_all_versions_of_python(imported):
    assert code_hash(imported(CODE).Method) == "17a89f06de7ff889"


def test_bases_of_plugins_and_modules_of_the_network_count_and_ours_do_not(imported):
    plugin = imported(CODE)
    network = nn.Sequential(nn.Linear(1, 1))
    network.featurizer = type("Featurizer", (nn.Module,), {"__module__": __name__})()
    method = plugin.Method.__new__(plugin.Method)
    nn.Module.__init__(method)
    method.network = network
    found = hashes(method, object())
    assert found.keys() == {f"{plugin.__name__}.Method", f"{plugin.__name__}.Base", f"{__name__}.Featurizer"}
    assert found[f"{__name__}.Featurizer"] == ""  # it has no code
    other = ERM.__new__(ERM)
    nn.Module.__init__(other)
    assert hashes(other, object()) == {}


def test_differences_are_named():
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": ""}) == ["a", "b", "c"]
    assert differences({"a": ""}, {"a": ""}) == []
