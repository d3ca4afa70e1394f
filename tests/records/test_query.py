from __future__ import annotations

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.records.query import Q, hashable, make_selector_fn

ITEMS = Q([{"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 3}, {"a": {"b": 0}, "c": 4}])
numbers = st.lists(st.integers(-5, 5))


def test_selectors():
    item = {"a": {"b": 1}, "c": 2}
    assert make_selector_fn("c")(item) == 2
    assert make_selector_fn(" a . b ")(item) == 1
    assert make_selector_fn("a.b, c")(item) == (1, 2)
    assert make_selector_fn(lambda each: each["c"] + 1)(item) == 3
    for bad in (1, None, operator.itemgetter("c"), dict):
        with pytest.raises(TypeError):
            make_selector_fn(bad)


def test_hashable():
    assert hashable((1, "a")) == (1, "a")
    assert hashable({"b": [1], "a": 2}) == hashable({"a": 2, "b": [1]}) == '{"_": {"a": 2, "b": [1]}}'


def test_it_is_a_list():
    q = Q([1, 2, 3])
    assert (len(q), q.len(), q[0], q[-1], list(q)) == (3, 3, 1, 3, [1, 2, 3])
    assert q[:2] == [1, 2]
    assert isinstance(q[1:], list)
    assert str(q) == repr(q) == "[1, 2, 3]"
    assert q == [1, 2, 3]
    assert q == Q([1, 2, 3]) == Q(q)
    assert q != [1, 2]
    assert Q([Q([1]), Q([2])]) == [[1], [2]]
    assert not Q([])


def test_group():
    assert ITEMS.group("a.b") == [(0, [ITEMS[2]]), (1, ITEMS[:2])]
    assert ITEMS.group("a") == [({"b": 0}, [ITEMS[2]]), ({"b": 1}, ITEMS[:2])]
    assert ITEMS.group("a.b, c").select(lambda pair: pair[0]) == [(0, 4), (1, 2), (1, 3)]
    assert ITEMS.group_map("a.b", lambda value, group: (value, group.select("c").sum())) == [(0, 4), (1, 5)]


@given(items=numbers)
def test_groups_are_a_sorted_partition_in_order(items):
    groups = Q(items).group(lambda item: item % 3)
    assert groups.map(lambda value, group: value) == sorted({item % 3 for item in items})
    assert groups.map(lambda value, group: list(group)) == [
        [item for item in items if item % 3 == value] for value in sorted({item % 3 for item in items})
    ]


def test_map_unpacks_for_several_parameters():
    assert Q([(1, 2), (3, 4)]).map(lambda a, b: a + b) == [3, 7]
    assert Q([(1, 2), (3, 4)]).map(lambda pair: pair[0]) == [1, 3]


def test_reductions():
    q = Q([1, 2, 6])
    assert (q.min(), q.max(), q.sum()) == (1, 6, 9)
    assert q.mean_std() == (q.mean(), q.std()) == (3.0, np.std([1, 2, 6]))
    assert type(q.mean()) is float
    assert math.isnan(Q([]).mean())
    assert math.isnan(Q([]).std())


def test_argmax_takes_the_first_and_never_nan():
    q = Q([{"v": math.nan, "i": 0}, {"v": 1, "i": 1}, {"v": 2, "i": 2}, {"v": 2.0, "i": 3}])
    assert q.argmax("v")["i"] == 2
    assert q.argmax(lambda item: -item["i"])["i"] == 0
    assert Q([math.nan, np.float64("nan")]).argmax(lambda item: item) is not None


def test_filters():
    assert ITEMS.filter(lambda item: item["c"] > 2) == ITEMS[1:]
    assert ITEMS.filter_equals("a.b, c", (1, 3)) == [ITEMS[1]]
    assert Q([0, None, ""]).filter_not_none() == [0, ""]
    assert Q([0.0, math.nan, np.float32("nan"), 1]).filter_not_nan() == [0.0, 1]


@given(lists=st.lists(numbers))
def test_flatten_and_unique(lists):
    flat = Q(lists).flatten()
    assert flat == [item for items in lists for item in items]
    assert flat.unique() == list(dict.fromkeys(flat))
    assert Q(lists).unique() == [items for i, items in enumerate(lists) if items not in lists[:i]]


def test_unique_of_dicts():
    assert ITEMS.select("a").unique() == [{"b": 1}, {"b": 0}]


@given(items=st.lists(st.floats(allow_infinity=False)))
def test_sorted_is_stable_with_nan_first(items):
    found = Q(list(enumerate(items))).sorted(key=lambda pair: pair[1])
    nans = [i for i, item in enumerate(items) if math.isnan(item)]
    rest = sorted((i for i in range(len(items)) if i not in nans), key=lambda i: items[i])
    assert [i for i, _ in found] == nans + rest
    assert len(Q(items).sorted()) == len(items)
