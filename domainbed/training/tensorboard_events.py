"""The records of a run as TensorBoard shows them; `results.jsonl` stays the truth.

    tensorboard --logdir DIR

The event file is a function of the records alone, so that a run that goes on, or begins anew, never shows a
step twice. Its times are seconds of training, not of the clock on the wall.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.files import write_atomic
from domainbed.records.results_file import RESULTS_FILE, Record, read_records

NAME = "events.out.tfevents.records"
"""TensorBoard reads files with "tfevents" in their names."""

_ACCURACY = re.compile(r"env\d+_\w+_acc")
_log = logging.getLogger(__name__)


def require_tensorboard() -> None:
    """Raise UsageError, which says what to install, where event files can't be written."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "--tensorboard needs a package that is not installed: pip install 'domainbed-gs[tensorboard]'"
        ) from None


def update(run_dir: Path) -> None:
    """Bring the event file of a run up to its records; where that fails, training goes on with a warning.

    New records are appended, for a TensorBoard that reads along. A file that says anything else than the
    records, as after a crash, is written anew.
    """
    path = run_dir / NAME
    try:
        now = encoded(read_records(run_dir / RESULTS_FILE).records)
        before = path.read_bytes() if path.exists() else b""
        if before and now.startswith(before):
            with path.open("ab") as file:
                file.write(now[len(before) :])
        else:
            write_atomic(path, now)
    except OSError as error:
        _log.warning("no events for TensorBoard in %s: %s", path, error.strerror)


def encoded(records: Iterable[Record]) -> bytes:
    """The content of an event file with all numbers of `records`."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    seconds, before = 0.0, -1
    for record in records:
        seconds += record.get("step_time", 0.0) * (record["step"] - before)
        before = record["step"]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _tagged(record)]
        event = Event(wall_time=seconds, step=before, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()


def _tagged(record: Record) -> Iterator[tuple[str, float]]:
    """Every number of a record, accuracies in a group of their own."""
    for name in sorted(record):
        value = record[name]
        if isinstance(value, int | float) and name != "step":
            yield f"{'accuracy' if _ACCURACY.fullmatch(name) else 'training'}/{name}", float(value)
