"""The table of similarities in the directory of a run."""

from __future__ import annotations

from domainbed_gs.similarity.measure import COLUMNS
from domainbed_gs.studies.step_table import StepTable

NAME = "similarity.csv"

TABLE = StepTable(("class",), COLUMNS, "similarities")
