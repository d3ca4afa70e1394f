"""Settings of the study of gradient variances and curvature, and the columns of its tables."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed.errors import UsageError
from domainbed.training.settings import flag, flags_of
from domainbed_gs.studies.settings import MeasurementSettings
from domainbed_gs.trained_models.parts import KINDS
from domainbed_gs.trained_models.table import Layout

QUANTITIES = {
    "mean": "mean gradients",
    "variance": "variances of the samples' gradients",
    "fisher": "diagonals of the Fisher information",
    "hessian": "diagonals of the Hessian",
}
"""What environments are compared by: name -> meaning. Each is a vector of a number for each parameter."""

CLASSIFIER, ALL = "classifier", "all"
"""Parameters that a vector covers: those of the classifier, or all trained ones."""

PAIRS = {
    "source-source": "two source environments",
    "source-target": "a source and a target environment",
    "target-target": "two target environments",
    "within-source": "two groups of samples of one source environment",
    "within-target": "two groups of samples of one target environment",
}
"""Kinds of pairs, with their meaning."""


@dataclass(frozen=True)
class Alignment(MeasurementSettings):
    """How environments are compared: flags of `domainbed_gs.scripts.alignment` by the same names."""

    quantities: list[str] = flag(list(QUANTITIES), "what to compare", choices=tuple(QUANTITIES))
    parts: list[str] = flag(["in"], "parts of the environments to measure on", choices=KINDS)
    samples: int = flag(
        64, "samples of each environment, an even number; each of two groups has half of them", at_least=4
    )
    probes: int = flag(4, "random vectors for a Hessian's diagonal", at_least=2)
    sample_seed: int = flag(0, "seed of samples and random vectors", at_least=0)

    def check(self) -> None:
        """Check the values; raises UsageError."""
        super().check()
        if self.samples % 2:
            raise UsageError(
                f"--samples must be even, because the samples of an environment make two groups, not "
                f"{self.samples}"
            )


ALIGNMENT, TRAINING = "alignment.csv", "alignment_training.csv"
"""Files of the tables of trained models, and of a run during training."""

TEXTS = ("part", "parameters", "pair", "first", "second")
NUMBERS = (
    *("count", "components"),
    *(f"{name}_{number}" for name in QUANTITIES for number in ("distance", "norms")),
    "hessian_error",
)
LAYOUTS = {ALIGNMENT: Layout(tuple(flags_of(Alignment)), TEXTS, NUMBERS)}
