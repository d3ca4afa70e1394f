"""Measurements of trained models as a data frame, for programs and notebooks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_gs.trained_models.loading import model_file
from domainbed_gs.trained_models.over_models import Measured

if TYPE_CHECKING:
    import pandas as pd


def measured_frame(
    measure: Callable[[Sequence[Path], Path], Measured],
    table: str,
    runs: str | Path | Iterable[str | Path],
    output_dir: str | Path | None,
) -> pd.DataFrame:
    """Measure models, and return the rows of their table.

    A model that cannot be measured is named in a warning, if there are others.

    Args:
        measure: measures model files into the tables of a folder.
        table: name of the file of the table.
        runs: directories of runs, or model files.
        output_dir: folder of the tables, from which the measurement resumes; None to keep nothing.

    Raises: UsageError if a model does not exist; RunError if no model can be measured; else as `measure`.
    """
    import pandas as pd

    files = [model_file(Path(path)) for path in ([runs] if isinstance(runs, str | Path) else runs)]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(files, Path(output_dir or folder))
        if not found.runs:
            found.check()
        return pd.DataFrame(found.rows(table))
