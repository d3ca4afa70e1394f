"""Trackers: where the records of a run go beside results.jsonl. A plugin registers its own:

@TRACKERS.register("csv")
class Csv(Tracker):
    def update(self, records):
        ...
"""

from domainbed.training.trackers.registry import TRACKERS
from domainbed.training.trackers.stepwise import StepwiseTracker
from domainbed.training.trackers.tracker import Ending, TrackedRun, Tracker, tagged_values

__all__ = ["TRACKERS", "Ending", "StepwiseTracker", "TrackedRun", "Tracker", "tagged_values"]
