"""Selection methods: the hyper-parameters and the step at which a sweep's accuracy is reported.

A method is a class registered in `METHODS` under a short name. Plugins register their own there. The methods
of upstream are those of Gulrajani and Lopez-Paz 2021 (arXiv 2007.01434), section 3.
"""

from domainbed.model_selection.method import (
    RunAcc,
    SelectionMethod,
    get_test_records,
    merge_records,
    recursive_freeze,
    selected_step,
)
from domainbed.model_selection.rules import (
    METHODS,
    UPSTREAM,
    IIDAccuracySelectionMethod,
    IIDAutoLRAccuracySelectionMethod,
    IIDLossSelectionMethod,
    IIDWorstSourceSelectionMethod,
    LeaveOneOutSelectionMethod,
    OracleSelectionMethod,
)

__all__ = [
    "METHODS",
    "UPSTREAM",
    "IIDAccuracySelectionMethod",
    "IIDAutoLRAccuracySelectionMethod",
    "IIDLossSelectionMethod",
    "IIDWorstSourceSelectionMethod",
    "LeaveOneOutSelectionMethod",
    "OracleSelectionMethod",
    "RunAcc",
    "SelectionMethod",
    "get_test_records",
    "merge_records",
    "recursive_freeze",
    "selected_step",
]
