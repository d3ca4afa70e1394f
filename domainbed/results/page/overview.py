"""The part of a page on what was run, and with what data."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from domainbed.records.jsonl import Record
from domainbed.records.runs import listing
from domainbed.results.accuracies import Columns, shown_datasets
from domainbed.results.page.content import Content
from domainbed.results.writing import print_lines, print_paragraphs, print_table

_EACH_ITS_OWN = ("algorithm", "dataset", "hparams_seed", "output_dir", "seed", "test_envs", "trial_seed")
MOST = 4
"""Values that are listed; of more, the range is."""


def write(content: Content) -> None:
    """Print what was run: the sweep in short, settings, hyper-parameters, and a table of data a dataset."""
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in _facts(content)
    )
    print_lines(f"<dl>{facts}</dl>")
    settings, hparams = _settings(content.runs), _hparams(content.runs)
    print_lines("<details><summary>Settings and hyper-parameters of the runs</summary>")
    print_table("Settings", ["Flag of train", "Value"], settings, "html")
    if hparams:
        print_table("Hyper-parameters", ["Name", "Value", "Algorithms"], hparams, "html")
    print_lines("</details>")
    for columns in shown_datasets(content.context.records):
        _write_data(columns, [it for it in content.runs if it["args"]["dataset"] == columns.name])


def _facts(content: Content) -> Iterator[tuple[str, str]]:
    args = [run["args"] for run in content.runs]
    trials = sorted({each["trial_seed"] for each in args})
    seeds = {each["hparams_seed"] for each in args}
    asked = content.context.manifest
    yield "Sweep", str(content.context.input_dir)
    yield "Runs", f"{len(args)} with records" + (f", {len(asked.jobs)} asked for" if asked else "")
    yield "Datasets", ", ".join(dict.fromkeys(each["dataset"] for each in args))
    yield "Algorithms", ", ".join(next(iter(content.accuracies.values())).algorithms)
    yield "Trials", f"{len(trials)} (trial seeds {_spans(trials)})"
    yield "Settings in each trial", f"{len(seeds)} (seeds of hyper-parameters)"
    yield "Updates in a run", values_in_short({run["step"] + 1 for run in content.runs})
    for name, method in content.methods.items():
        yield f"Selection {name}", f"{method.about()}."


def _spans(numbers: list[int]) -> str:
    """Sorted whole numbers in short: "0 to 4, 7"."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    pairs = zip(starts, ends, strict=True)
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in pairs)


def _settings(runs: Iterable[Record]) -> list[list[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, value in run["args"].items():
            if name not in _EACH_ITS_OWN:
                found[name].add(value if isinstance(value, str) else json.dumps(value))
    return [[name, ", ".join(sorted(found[name]))] for name in sorted(found)]


def _hparams(runs: Iterable[Record]) -> list[list[str]]:
    """A row for each hyper-parameter; several where algorithms have other values."""
    found: dict[str, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for name, value in run.get("hparams", {}).items():
            found[name][run["args"]["algorithm"]].add(value)
    algorithms = {run["args"]["algorithm"] for run in runs}
    rows = []
    for name in sorted(found):
        by_values: dict[str, list[str]] = defaultdict(list)
        for algorithm, values in found[name].items():
            by_values[values_in_short(values)].append(algorithm)
        rows += [
            [name, text, "all" if {*own} == algorithms else ", ".join(sorted(own))]
            for text, own in by_values.items()
        ]
    return rows


def values_in_short(values: Iterable[object]) -> str:
    """A few values as a list; many numbers as their range."""
    distinct = sorted(set(values), key=lambda value: (str(type(value)), value))
    numbers = [it for it in distinct if isinstance(it, int | float) and not isinstance(it, bool)]
    if len(distinct) > MOST and len(numbers) == len(distinct):
        return f"{min(numbers):.4g} to {max(numbers):.4g} ({len(numbers)} values)"
    return listing([str(value) for value in distinct])


def _write_data(columns: Columns, runs: list[Record]) -> None:
    """Samples of each part of each environment, and what identifies data and weights."""
    sizes: Mapping[str, int] = next((run["sizes"] for run in runs if run.get("sizes")), {})
    kinds = list(dict.fromkeys(key.partition("_")[2] for key in sizes))
    targets = {target for run in runs for target in run["args"]["test_envs"]}
    rows = [
        [
            *(str(index), name, "yes" if index in targets else "no"),
            *(str(sizes.get(f"env{index}_{kind}", "-")) for kind in kinds),
        ]
        for index, name in enumerate(columns.environments)
    ]
    header = ["Number", "Environment", "Held out", *(f"Samples, {kind}" for kind in kinds)]
    print_table(f"Data: {columns.name}", header, rows, "html")
    print_paragraphs(
        [
            "Samples: of the first run. Environments that are held out are so one after the other.",
            f"Data: {_identities(runs, 'data')}.",
            f"Weights that training began with: {_identities(runs, 'weights')}.",
        ],
        "html",
    )


def _identities(runs: Iterable[Record], key: str) -> str:
    """What the runs say of their data or weights, in words."""
    said = {json.dumps(run[key], sort_keys=True): run[key] for run in runs if run.get(key)}
    words = [
        ", ".join(f"{name} {value}" for name, value in each.items() if value != "") for each in said.values()
    ]
    return "; ".join(words).replace("name none", "random") or "the records do not say"
