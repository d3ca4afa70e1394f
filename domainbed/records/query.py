"""Q: a list with queries such as `group`, `select` and `filter_equals` (upstream's class)."""

from __future__ import annotations

import inspect
import json
import math
import types
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, SupportsIndex, TypeVar, overload

import numpy as np

T = TypeVar("T")
U = TypeVar("U")
Selector = str | Callable[[Any], Any]


def make_selector_fn(selector: Selector) -> Callable[[Any], Any]:
    """A function that selects a value from an item.

    Args:
        selector: "key"; "outer.inner" for nested dicts; "one, other" for a tuple of values; or a Python
            function, which is returned unchanged.

    Raises: TypeError for anything else, including other callables.
    """
    if isinstance(selector, types.FunctionType):
        return selector
    if not isinstance(selector, str):
        raise TypeError(f"a selector is a string or a function, not {type(selector).__name__}")
    if "," in selector:
        parts = [make_selector_fn(part) for part in selector.split(",")]
        return lambda item: tuple(part(item) for part in parts)
    keys = [key.strip() for key in selector.split(".")]

    def look_up(item: Any) -> Any:  # noqa: ANN401 - records hold any type
        for key in keys:
            item = item[key]
        return item

    return look_up


def hashable(obj: object) -> Hashable:
    """`obj` itself if it is hashable, else the JSON text of `{"_": obj}` with sorted keys."""
    try:
        hash(obj)
    except TypeError:
        return json.dumps({"_": obj}, sort_keys=True)
    return obj


def nan_lowest(value: Any) -> Any:  # noqa: ANN401 - a sort key of any type
    """`value` as a sort key, with NaN replaced by minus infinity."""
    return -math.inf if isinstance(value, float | np.floating) and math.isnan(value) else value


class Q(Generic[T]):
    """A list of items with queries. Each query returns a new `Q` or a plain value."""

    def __init__(self, list_: Iterable[T]) -> None:
        self._list: list[T] = list_ if isinstance(list_, list) else list(list_)

    def __len__(self) -> int:
        return len(self._list)

    @overload
    def __getitem__(self, key: SupportsIndex) -> T: ...

    @overload
    def __getitem__(self, key: slice) -> list[T]: ...

    def __getitem__(self, key: SupportsIndex | slice) -> T | list[T]:
        return self._list[key]

    def __iter__(self) -> Iterator[T]:
        return iter(self._list)

    def __eq__(self, other: object) -> bool:
        return self._list == (other._list if isinstance(other, Q) else other)

    __hash__ = None  # type: ignore[assignment] # as mutable as its list

    def __str__(self) -> str:
        return str(self._list)

    def __repr__(self) -> str:
        return repr(self._list)

    def group(self, selector: Selector) -> Q[tuple[Any, Q[T]]]:
        """(value, Q of the items with this value) for each selected value, sorted by value.

        Items keep their order. Values that are not hashable are compared and sorted by their JSON text.
        """
        select = make_selector_fn(selector)
        groups: dict[Any, tuple[Any, list[T]]] = {}
        for item in self._list:
            value = select(item)
            groups.setdefault(hashable(value), (value, []))[1].append(item)
        return Q([(groups[key][0], Q(groups[key][1])) for key in sorted(groups)])

    def group_map(self, selector: Selector, fn: Callable[..., U]) -> Q[U]:
        """`fn(value, items)` for each group."""
        return self.group(selector).map(fn)

    def map(self, fn: Callable[..., U]) -> Q[U]:
        """`fn(item)` for each item, or `fn(*item)` if `fn` takes more than one parameter."""
        if len(inspect.signature(fn).parameters) > 1:
            items: list[Any] = self._list
            return Q([fn(*item) for item in items])
        return Q([fn(item) for item in self._list])

    def select(self, selector: Selector) -> Q[Any]:
        """The selected value of each item."""
        return Q(list(map(make_selector_fn(selector), self._list)))

    def min(self) -> T:
        """Smallest item."""
        items: list[Any] = self._list
        smallest: T = min(items)
        return smallest

    def max(self) -> T:
        """Largest item."""
        items: list[Any] = self._list
        largest: T = max(items)
        return largest

    def sum(self) -> T:
        """Sum of the items; 0 if there are none."""
        items: list[Any] = self._list
        total: T = sum(items)
        return total

    def len(self) -> int:
        """Number of items."""
        return len(self._list)

    def mean(self) -> float:
        """Mean of the items; NaN if there are none."""
        return self._reduce(np.mean)

    def std(self) -> float:
        """Population standard deviation (ddof=0) of the items; NaN if there are none."""
        return self._reduce(np.std)

    def mean_std(self) -> tuple[float, float]:
        """`mean()` and `std()`."""
        return self.mean(), self.std()

    def _reduce(self, function: Callable[[Any], Any]) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(function(self._list))

    def argmax(self, selector: Selector) -> T:
        """First item with the largest selected value. NaN is smaller than every number."""
        select = make_selector_fn(selector)
        return max(self._list, key=lambda item: nan_lowest(select(item)))

    def filter(self, fn: Callable[[T], object]) -> Q[T]:
        """Items for which `fn` is true."""
        return Q([item for item in self._list if fn(item)])

    def filter_equals(self, selector: Selector, value: object) -> Q[T]:
        """Items whose selected value equals `value`."""
        select = make_selector_fn(selector)
        return self.filter(lambda item: select(item) == value)

    def filter_not_none(self) -> Q[T]:
        """Items that are not None."""
        return self.filter(lambda item: item is not None)

    def filter_not_nan(self) -> Q[T]:
        """Items that are not NaN."""
        items: Q[Any] = self
        return items.filter(lambda item: not np.isnan(item))

    def flatten(self) -> Q[Any]:
        """The items of all items, one level deep."""
        items: list[Any] = self._list
        return Q([inner for item in items for inner in item])

    def unique(self) -> Q[T]:
        """The first occurrence of each item, in order."""
        first: dict[Hashable, T] = {}
        for item in self._list:
            first.setdefault(hashable(item), item)
        return Q(list(first.values()))

    def sorted(self, key: Callable[[T], Any] | None = None) -> Q[T]:
        """Items in ascending order of `key`, by a stable sort. NaN is smaller than every number."""
        return Q(sorted(self._list, key=lambda item: nan_lowest(key(item) if key else item)))
