"""Predictions that runs saved (`train --save_predictions`): the file, and what is computed from it later.

from domainbed.predictions import read_predictions
predictions = read_predictions("train_output")
predictions.frame()                             # one row for each sample
part = predictions.part("env0_in")              # of the last saved step
confusion_matrix(part)
"""

from domainbed.predictions.agreement import McNemar, mcnemar
from domainbed.predictions.content import PartPredictions, Predictions
from domainbed.predictions.file import NAME, read_predictions
from domainbed.predictions.measures import (
    Reliability,
    accuracy,
    confusion_matrix,
    metric_value,
    reliability,
    subset_accuracies,
)

__all__ = [
    "NAME",
    "McNemar",
    "PartPredictions",
    "Predictions",
    "Reliability",
    "accuracy",
    "confusion_matrix",
    "mcnemar",
    "metric_value",
    "read_predictions",
    "reliability",
    "subset_accuracies",
]
