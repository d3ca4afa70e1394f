"""The records of a run as events for TensorBoard (`tensorboard --logdir DIR`).

The event file is computed from results.jsonl alone. So a run that was resumed or started over shows every
step once. The times of events are seconds of training, not wall-clock times.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from domainbed.files import write_atomic
from domainbed.records.results_file import Record
from domainbed.training.trackers.registry import TRACKERS
from domainbed.training.trackers.tracker import Tracker, tagged_values

NAME = "events.out.tfevents.records"
"""Name of the event file. TensorBoard reads files with "tfevents" in their names."""


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """An event file in the run's directory."""

    PACKAGE = "tensorboard"
    EXTRA = "domainbed-gs[tensorboard]"

    def update(self, records: Sequence[Record]) -> None:
        """Update the event file.

        New records are appended, so that a running TensorBoard notices them. If the file does not start with
        the events of the earlier records, for instance after a crash, it is rewritten.
        """
        path = self.run.path / NAME
        events = encode(records)
        existing = path.read_bytes() if path.exists() else b""
        if existing and events.startswith(existing):
            with path.open("ab") as file:
                file.write(events[len(existing) :])
        else:
            write_atomic(path, events)


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
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in tagged_values(record).items()]
        event = Event(wall_time=seconds, step=record["step"], summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()
