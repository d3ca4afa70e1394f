"""Notes on what the numbers of a report are made of: repetitions, copies of runs, methods that differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from domainbed.console import shortened_list
from domainbed.hparams import Kind
from domainbed.records.results_file import Record
from domainbed.results.experiments import MethodRuns, pool
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import Kinds, as_text, recorded_names


def notes_on_pooling(records: Iterable[Record]) -> list[str]:
    """Notes of one line each."""
    methods = pool(records)
    return [*_notes_on_runs(methods), *_notes_on_methods([each for each in methods if each.conflict is None])]


def _notes_on_runs(methods: Sequence[MethodRuns]) -> Iterator[str]:
    repeated = [f"{_name(each)}, trial seed {_joined(each.repeated)}" for each in methods if each.repeated]
    copies = [f"{_name(each)} ({each.copies})" for each in methods if each.copies]
    undeclared = [f"{_name(each)}: {_joined(each.undeclared)}" for each in methods if each.undeclared]
    kinds = (
        (repeated, "runs that differ in --seed only count as trials of their own, which share a split"),
        (
            copies,
            "runs that equal another one, seeds included, are left out (the one with the last step counts)",
        ),
        (
            undeclared,
            "hyper-parameters that no installed class declares, among whose values selection chooses",
        ),
    )
    yield from (f"{what}: {shortened_list(items)}" for items, what in kinds if items)


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _notes_on_methods(methods: Sequence[MethodRuns]) -> Iterator[str]:
    """A note for each dataset whose methods differ in design settings."""
    kinds = Kinds()
    for dataset in dict.fromkeys(each.dataset for each in methods):
        own = [each for each in methods if each.dataset == dataset]
        differing = [
            f"{name} is " + ", ".join(f"{as_text(value)} ({', '.join(of)})" for value, of in values.items())
            for name, values in _differing(own, kinds).items()
        ]
        if differing:
            yield f"methods on {dataset} differ in more than the method: {shortened_list(differing)}"


def _differing(methods: Sequence[MethodRuns], kinds: Kinds) -> dict[str, dict[Hashable, list[str]]]:
    """Design setting -> value -> the methods with this value, for settings in which methods differ."""
    firsts = [each.runs[0] for each in methods]
    # A hyper-parameter that other methods do not have is part of the method.
    shared = [
        name
        for name in recorded_names(firsts)
        if name in SETTINGS or sum(name in run.recorded for run in firsts) > 1
    ]
    found: dict[str, dict[Hashable, list[str]]] = {}
    for name, values in kinds.differing(firsts, names=shared)[Kind.DESIGN].items():
        by_value: dict[Hashable, list[str]] = defaultdict(list)
        for each, value in zip(methods, values, strict=True):
            if name != "grouping" and (value is not None or name in SETTINGS):
                by_value[value].append(each.method)
        if len(by_value) > 1:
            found[name] = dict(by_value)
    return found


def _name(method: MethodRuns) -> str:
    return f"{method.method} on {method.dataset}"
