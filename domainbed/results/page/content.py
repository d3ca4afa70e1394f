"""The content of a page, which every part of it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from domainbed.datasets import in_order
from domainbed.model_selection import SelectionMethod
from domainbed.records.results_file import Record
from domainbed.results.accuracies import Accuracies
from domainbed.results.ensembles import EnsembleTable
from domainbed.results.hparam_search import Candidate, ranked_candidates
from domainbed.results.report import ReportContext


@dataclass(frozen=True)
class PageContent:
    """A sweep and its results.

    Attributes:
        context: the sweep, and the options of sections; its `format` is "html".
        methods: selection methods by short name. Parts that need only one use the first. They report
            accuracies, whatever the metric of `context`.
        accuracies: results by the short name of their selection method, in the metric of `context`.
        notes: one line for each kind of unfinished, missing or damaged run.
        command: the command line that made the page; empty if a Python program did.
        ensembles: ensembles of trials by the short name of their selection method; empty if not asked for.
    """

    context: ReportContext
    methods: Mapping[str, type[SelectionMethod]]
    accuracies: Mapping[str, Accuracies]
    notes: Sequence[str]
    command: str = ""
    ensembles: Mapping[str, Sequence[EnsembleTable]] = field(default_factory=dict)

    @property
    def selection(self) -> str:
        """Short name of the first selection method."""
        return next(iter(self.methods))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in the order of tables."""
        return in_order(run["args"]["dataset"] for run in self.runs)

    @cached_property
    def candidates(self) -> list[list[Candidate]]:
        """Candidates of the first selection method (see `ranked_candidates`)."""
        return ranked_candidates(self.context.records, self.methods[self.selection])

    @cached_property
    def runs(self) -> list[Record]:
        """The last record of each run."""
        last = {
            str(record["args"].get("output_dir", record["args"])): record for record in self.context.records
        }
        return list(last.values())
