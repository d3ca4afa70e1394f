"""What a launch does otherwise than earlier launches into the same sweep directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from domainbed.console import shortened_list
from domainbed.hparams import Kind
from domainbed.sweep.defaults import kept_defaults
from domainbed.sweep.manifest import Manifest
from domainbed.training.run_settings import Kinds, Run, as_text, overrides_of

Method = tuple[str, str, str]
"""(dataset, algorithm, condition)"""


def different_designs(manifest: Manifest | None, jobs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines on design settings in which new runs of a method differ from earlier ones.

    Reports never pool such runs (`domainbed.results.experiments`).

    Args:
        manifest: the earlier launches, if any.
        jobs: arguments of `train` of the new launch, by the name of the run's directory.
    """
    if manifest is None:
        return []
    kept = kept_defaults(manifest)
    earlier = _by_method({**kept, **args} for name, args in manifest.jobs.items() if name not in jobs)
    now = _by_method(jobs.values())
    kinds = Kinds()
    found: dict[str, list[str]] = defaultdict(list)
    for method in earlier.keys() & now.keys():
        for text in _differences(earlier[method], now[method], kinds):
            found[text].append(f"{method[1]} on {method[0]}")
    return [f"{text}: {shortened_list(sorted(methods))}" for text, methods in sorted(found.items())]


def _by_method(all_args: Iterable[Mapping[str, Any]]) -> dict[Method, list[Mapping[str, Any]]]:
    found: dict[Method, list[Mapping[str, Any]]] = defaultdict(list)
    for args in all_args:
        found[args["dataset"], args["algorithm"], args.get("grouping", "domain")].append(args)
    return found


def _differences(
    earlier: list[Mapping[str, Any]], now: list[Mapping[str, Any]], kinds: Kinds
) -> Iterator[str]:
    """Texts such as "steps is 300 in earlier launches and 500 in this one"."""
    all_args = [*earlier, *now]
    runs = [Run(*each, []) for each in zip(all_args, _hparams(all_args), strict=True)]
    for name, values in kinds.differing(runs)[Kind.DESIGN].items():
        before, new = (_listed(values[: len(earlier)]), _listed(values[len(earlier) :]))
        if before != new:
            yield f"{name} is {before} in earlier launches and {new} in this one"


def _listed(values: Iterable[Hashable]) -> str:
    return shortened_list(list(dict.fromkeys(map(as_text, values))))


def _hparams(all_args: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hyper-parameters of jobs of one method: today's defaults, then those that are given.

    If all are given the same ones, there is nothing to compare, and defaults are left out.
    """
    from domainbed.hparams_registry import default_hparams

    given = [overrides_of(args) for args in all_args]
    if all(each == given[0] for each in given):
        return given
    defaults = default_hparams(all_args[0]["algorithm"], all_args[0]["dataset"])
    return [{**defaults, **each} for each in given]
