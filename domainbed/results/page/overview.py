"""The part of a page on what was run, and on which data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from domainbed.console import shortened_list
from domainbed.escaping import html_escape
from domainbed.records.results_file import Record
from domainbed.results.accuracies import ShownDataset, shown_datasets
from domainbed.results.machines import describe_machines
from domainbed.results.page.content import PageContent
from domainbed.results.plots import HOW_TO_GET, have_matplotlib
from domainbed.results.printing import print_lines, print_paragraphs, print_section_table
from domainbed.results.target_sets import set_names

_DIFFER_BY_DESIGN = (
    "algorithm",
    "dataset",
    "hparams_seed",
    "output_dir",
    "seed",
    "test_envs",
    "trial_seed",
)
"""Settings that differ between the runs of a sweep, and are not shown among the settings."""

MOST_VALUES = 4
"""Number of values that are listed one by one. More numbers than that are shown as their range."""


def write(content: PageContent) -> None:
    """Print the facts of the sweep, its settings and hyper-parameters, and the data of each dataset."""
    facts = "".join(
        f"<dt>{html_escape(name)}</dt><dd>{html_escape(value)}</dd>" for name, value in _facts(content)
    )
    print_lines(f"<dl>{facts}</dl>")
    if not have_matplotlib():
        print_paragraphs([f"This page has no figures: {HOW_TO_GET}."], "html")
    settings, hparams = _settings(content.runs), _hparams(content.runs)
    print_lines("<details><summary>Settings and hyper-parameters of the runs</summary>")
    print_section_table("Settings", ["Flag of train", "Value"], settings, "html")
    if hparams:
        print_section_table("Hyper-parameters", ["Name", "Value", "Algorithms"], hparams, "html")
    print_lines("</details>")
    for dataset in shown_datasets(content.context.records):
        _print_data(dataset, [run for run in content.runs if run["args"]["dataset"] == dataset.name])


def _facts(content: PageContent) -> Iterator[tuple[str, str]]:
    args = [run["args"] for run in content.runs]
    trials = sorted({each["trial_seed"] for each in args})
    hparams_seeds = {each["hparams_seed"] for each in args}
    manifest = content.context.manifest
    yield "Sweep", str(content.context.input_dir)
    yield "Runs", f"{len(args)} with records" + (f", {len(manifest.jobs)} launched" if manifest else "")
    yield "Datasets", ", ".join(content.datasets)
    yield "Algorithms", ", ".join(next(iter(content.accuracies.values())).algorithms)
    yield "Trials", f"{len(trials)} (trial seeds {_intervals(trials)})"
    yield "Hyper-parameter settings per trial", str(len(hparams_seeds))
    yield "Updates per run", short_values({run["step"] + 1 for run in content.runs})
    machines = describe_machines(sorted(content.context.input_dir.iterdir()))
    yield "Computed on", "; ".join(machines) or "not recorded"
    for name, accuracies in content.accuracies.items():
        yield f"Selection {name}", f"{accuracies.about}."


def _intervals(numbers: list[int]) -> str:
    """Sorted integers as intervals: "0 to 4, 7"."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    pairs = zip(starts, ends, strict=True)
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in pairs)


def _settings(runs: Iterable[Record]) -> list[list[str]]:
    values: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, value in run["args"].items():
            if name not in _DIFFER_BY_DESIGN:
                values[name].add(value if isinstance(value, str) else json.dumps(value))
    return [[name, ", ".join(sorted(values[name]))] for name in sorted(values)]


def _hparams(runs: Iterable[Record]) -> list[list[str]]:
    """A row for each hyper-parameter, or several rows if its values differ between algorithms."""
    found: dict[str, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for name, value in run.get("hparams", {}).items():
            found[name][run["args"]["algorithm"]].add(value)
    all_algorithms = {run["args"]["algorithm"] for run in runs}
    rows = []
    for name in sorted(found):
        by_values: dict[str, list[str]] = defaultdict(list)
        for algorithm, values in found[name].items():
            by_values[short_values(values)].append(algorithm)
        rows += [
            [name, text, "all" if {*algorithms} == all_algorithms else ", ".join(sorted(algorithms))]
            for text, algorithms in by_values.items()
        ]
    return rows


def short_values(values: Iterable[object]) -> str:
    """Distinct values as a list, or as a range if they are more than `MOST_VALUES` numbers."""
    distinct = sorted(set(values), key=lambda value: (str(type(value)), value))
    numbers = [value for value in distinct if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(distinct) > MOST_VALUES and len(numbers) == len(distinct):
        return f"{min(numbers):.4g} to {max(numbers):.4g} ({len(numbers)} values)"
    return shortened_list([str(value) for value in distinct])


def _print_data(dataset: ShownDataset, runs: list[Record]) -> None:
    """Print the samples in each split of each environment, and what identifies the data and the weights."""
    sizes: Mapping[str, int] = next((run["sizes"] for run in runs if run.get("sizes")), {})
    splits = list(dict.fromkeys(key.partition("_")[2] for key in sizes))
    targets = {target for run in runs for target in run["args"]["test_envs"]}
    rows = [
        [
            str(index),
            name,
            "yes" if index in targets else "no",
            *(str(sizes.get(f"env{index}_{split}", "-")) for split in splits),
        ]
        for index, name in enumerate(dataset.environments)
    ]
    header = ["Number", "Environment", "Held out", *(f"Samples, {split}" for split in splits)]
    print_section_table(f"Data: {dataset.name}", header, rows, "html")
    print_paragraphs(
        [
            f"Sample counts are those of the first run. {_held_out(dataset)}",
            f"Data: {_identities(runs, 'data')}.",
            f"Initial weights: {_identities(runs, 'weights')}.",
        ],
        "html",
    )


def _held_out(dataset: ShownDataset) -> str:
    if not dataset.target_sets:
        return "Each environment is held out in turn."
    listed = "; ".join(set_names(dataset.target_sets, dataset.environments))
    return f"Several environments are held out at once: {listed}."


def _identities(runs: Iterable[Record], key: str) -> str:
    """The different `data` or `weights` entries of the runs, in words."""
    entries = {json.dumps(run[key], sort_keys=True): run[key] for run in runs if run.get(key)}
    texts = [
        ", ".join(f"{name} {value}" for name, value in entry.items() if value != "")
        for entry in entries.values()
    ]
    return "; ".join(texts).replace("name none", "random") or "not recorded"
