"""Records as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from domainbed.records.jsonl import Record

if TYPE_CHECKING:
    import pandas as pd


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record, one column a key; entries of `args`, `hparams` and `sizes` as `args.*` and so on.

    A key that a record lacks is NaN there.
    """
    import pandas as pd

    return pd.DataFrame([_flat(record) for record in records])


def _flat(record: Record) -> Record:
    row: Record = {}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            row[key] = value
    return row
