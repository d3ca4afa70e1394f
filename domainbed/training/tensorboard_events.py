"""The records of a run as events for TensorBoard (`tensorboard --logdir DIR`).

The event file is computed from results.jsonl alone. So a run that was resumed or started over shows every
step once. The times of events are seconds of training, not wall-clock times.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.files import write_atomic
from domainbed.metrics import is_metric_key
from domainbed.records.results_file import RESULTS_FILE, Record, read_records

NAME = "events.out.tfevents.records"
"""Name of the event file. TensorBoard reads files with "tfevents" in their names."""

_ACCURACY = re.compile(r"env\d+_\w+_acc")
_log = logging.getLogger(__name__)


def require_tensorboard() -> None:
    """Raise UsageError if TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UsageError(
            "--tensorboard needs a package that is not installed: pip install 'domainbed-gs[tensorboard]'"
        ) from None


def update(run_dir: Path) -> None:
    """Update the event file in `run_dir` from its results.jsonl. If that fails, only a warning is logged.

    New records are appended, so that a running TensorBoard notices them. If the file does not start with the
    events of the earlier records, for instance after a crash, it is rewritten.
    """
    path = run_dir / NAME
    try:
        events = encode(read_records(run_dir / RESULTS_FILE).records)
        existing = path.read_bytes() if path.exists() else b""
        if existing and events.startswith(existing):
            with path.open("ab") as file:
                file.write(events[len(existing) :])
        else:
            write_atomic(path, events)
    except OSError as error:
        _log.warning("cannot write events for TensorBoard to %s: %s", path, error.strerror)


def encode(records: Iterable[Record]) -> bytes:
    """Content of an event file with all numbers in `records`."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    seconds, previous_step = 0.0, -1
    for record in records:
        seconds += record.get("step_time", 0.0) * (record["step"] - previous_step)
        previous_step = record["step"]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _tagged_values(record)]
        event = Event(wall_time=seconds, step=record["step"], summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()


def _tagged_values(record: Record) -> Iterator[tuple[str, float]]:
    """Tag and value of every number in a record. Accuracies and metrics have groups of their own."""
    for name in sorted(record):
        value = record[name]
        if isinstance(value, int | float) and name != "step":
            yield f"{_group(name)}/{visible(name)}", float(value)


def _group(name: str) -> str:
    if _ACCURACY.fullmatch(name):
        return "accuracy"
    return "metrics" if is_metric_key(name) else "training"
