"""What the catalogue says of a method. A class declares it as `FACTS`, below its docstring.

What the class itself knows (`MIN_DOMAINS`, `DISTRIBUTED`, its hyper-parameters) is not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of one method, which its subclasses do not inherit.

    Costs are those of the default hyper-parameters after all warm-ups, as formulas of K, the number of source
    environments, such as "1 + 1/K".

    Attributes:
        year: of the paper's first publication.
        paper: authors, title, and arXiv id or venue.
        idea: what the method does, in a line of 100 characters at most.
        time: arithmetic of an update, in ERM steps over the same samples, mean over the updates of a run of
            `REFERENCE_STEPS`; "1" is ERM's.
        memory: tensors of the size of all parameters that are in memory at once, beyond ERM's four (weights,
            gradient, and Adam's two moments), where each environment has a pass of its own.
        cost: what else there is to know of time and memory.
        one_environment: what the method is with K = 1, such as "ERM"; empty if it is itself.
        pretrained: whether it needs pretrained weights.
        departures: where ours departs from the authors' code. Of upstream's methods that is upstream's code.
    """

    year: int
    paper: str
    idea: str
    time: str = "1"
    memory: str = "0"
    cost: str = ""
    one_environment: str = ""
    pretrained: bool = False
    departures: str = ""

    def __post_init__(self) -> None:
        self.time_for(3), self.memory_for(3)  # raises an error for a malformed formula

    def time_for(self, k: int) -> float:
        """ERM steps that an update with `k` source environments costs."""
        return _value(self.time, k)

    def memory_for(self, k: int) -> float:
        """Tensors of the size of all parameters, beyond ERM's, with `k` source environments."""
        return _value(self.memory, k)


def _value(formula: str, k: int) -> float:
    return float(eval(formula, {"__builtins__": {}, "K": k}))
