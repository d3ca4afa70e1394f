"""What a page is about, for all its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from domainbed.model_selection import SelectionMethod
from domainbed.records.jsonl import Record
from domainbed.results.accuracies import Accuracies
from domainbed.results.report import ReportContext
from domainbed.results.settings import Candidate, candidates


@dataclass(frozen=True)
class Content:
    """A sweep and what was made of it.

    Attributes:
        context: records, directory, manifest and flags; its `format` is "html".
        methods: short name -> selection method, the first being the page's own where one is enough.
        accuracies: short name -> what the method makes of the records.
        notes: what is unfinished, missing or damaged.
    """

    context: ReportContext
    methods: Mapping[str, type[SelectionMethod]]
    accuracies: Mapping[str, Accuracies]
    notes: Sequence[str]

    @property
    def selection(self) -> str:
        """Short name of the page's own selection method."""
        return next(iter(self.methods))

    @cached_property
    def groups(self) -> list[list[Candidate]]:
        """The candidates of the page's own method; see `candidates`."""
        return candidates(self.context.records, self.methods[self.selection])

    @cached_property
    def runs(self) -> list[Record]:
        """The last record of each run."""
        return list(
            {str(it["args"].get("output_dir", it["args"])): it for it in self.context.records}.values()
        )
