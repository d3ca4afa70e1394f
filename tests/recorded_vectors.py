"""Which golden vectors no test reads: a plugin of pytest (`-p recorded_vectors`, this folder in PYTHONPATH).

A vector is a JSON object that holds numbers itself. It counts as read if one of its entries is. The file that
the variable UNREAD_VECTORS names gets, for each file of vectors that a test opens, their number and the paths
of those that no test reads.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

READ = defaultdict(set)
OPENED = {}


def objects(value, path=()):
    """Path of each JSON object in `value` that holds numbers itself."""
    if isinstance(value, dict):
        if any(is_leaf(each) and not isinstance(each, str) for each in value.values()):
            yield path
        for key, each in value.items():
            yield from objects(each, (*path, key))
    elif not is_leaf(value):
        for index, each in enumerate(value):
            yield from objects(each, (*path, index))


def is_leaf(value):
    """Whether `value` is neither an object nor a list of objects."""
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(each, dict) for each in items)


class Recorded:
    """An object or a list of objects that notes the objects of which a leaf is read."""

    def __init__(self, value, file, path=()):
        self._value, self._file, self._path = value, file, path

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self[index] for index in range(len(self))[key]]
        return self._noted(key, self._value[key])

    def _noted(self, key, value):
        if is_leaf(value):
            READ[self._file].add(self._path)
            return value
        return Recorded(value, self._file, (*self._path, key))

    def __iter__(self):
        return iter(self._value) if isinstance(self._value, dict) else (self[i] for i in range(len(self)))

    def __len__(self):
        return len(self._value)

    def __contains__(self, key):
        return key in self._value

    def get(self, key, default=None):
        return self[key] if key in self._value else default


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    found = yield
    if fixturedef.argname == "vectors":
        load = found

        def found(name):
            OPENED[name] = load(name)
            return Recorded(OPENED[name], name)

        fixturedef.cached_result = (found, *fixturedef.cached_result[1:])
    return found


def pytest_sessionfinish():
    result = {}
    for name, content in OPENED.items():
        paths = list(objects(content))
        unread = [" ".join(map(str, path)) for path in paths if path not in READ[name]]
        result[name] = {"number": len(paths), "unread": unread}
    Path(os.environ["UNREAD_VECTORS"]).write_text(json.dumps(result), encoding="utf-8")
