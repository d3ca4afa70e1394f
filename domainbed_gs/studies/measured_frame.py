"""Measurements of trained models as a data frame, for programs and notebooks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_gs.trained_models.loading import model_file
from domainbed_gs.trained_models.table import Row

if TYPE_CHECKING:
    import pandas as pd


def measured_frame(
    measure: Callable[[Sequence[Path], Path], Sequence[Row]],
    runs: str | Path | Iterable[str | Path],
    output_dir: str | Path | None,
) -> pd.DataFrame:
    """Measure models, and return their rows.

    Args:
        measure: measures model files into the table of a folder, and returns their rows.
        runs: directories of runs, or model files.
        output_dir: folder of the table, from which the measurement resumes; None to keep nothing.

    Raises: UsageError if a model does not exist; else as `measure`.
    """
    import pandas as pd

    files = [model_file(Path(path)) for path in ([runs] if isinstance(runs, str | Path) else runs)]
    if output_dir is not None:
        return pd.DataFrame(measure(files, Path(output_dir)))
    with tempfile.TemporaryDirectory() as folder:
        return pd.DataFrame(measure(files, Path(folder)))
