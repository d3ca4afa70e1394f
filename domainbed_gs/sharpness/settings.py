"""Settings of the measurement of sharpness, and the columns of its tables."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed.errors import UsageError
from domainbed.training.settings import flag, flags_of
from domainbed_gs.studies.settings import MeasurementSettings
from domainbed_gs.trained_models.parts import KINDS
from domainbed_gs.trained_models.table import Layout


@dataclass(frozen=True)
class Sharpness(MeasurementSettings):
    """How sharpness is measured: flags of `domainbed_gs.scripts.sharpness` by the same names."""

    rho: float = flag(0.05, "radius of the ball in which the loss is raised", above=0)
    parts: list[str] = flag(["in"], "parts of the environments to measure on", choices=KINDS)
    samples: int = flag(100, "samples of each environment", at_least=1)
    ascent_steps: int = flag(10, "ascent steps, of which the worst counts", at_least=1)
    lanczos_steps: int = flag(30, "most Hessian-vector products for an eigenvalue", at_least=1)
    tolerance: float = flag(0.01, "error of an eigenvalue, as a share of it, at which it is enough", above=0)
    probes: int = flag(10, "random vectors for a trace", at_least=1)
    directions: int = flag(3, "random directions along which the loss is drawn; 0: none", at_least=0)
    points: int = flag(21, "points along each direction", at_least=3)
    span: float = flag(0.5, "largest distance along a direction, in lengths of the filters", above=0)
    sample_seed: int = flag(0, "seed of samples and random vectors", at_least=0)

    def check(self) -> None:
        """Check the values; raises UsageError."""
        super().check()
        if self.points % 2 == 0:
            raise UsageError(f"--points must be odd, so that distance 0 is one of them, not {self.points}")

    @property
    def distances(self) -> list[float]:
        """Distances along a direction, from -span to span."""
        half = self.points // 2
        return [self.span * step / half for step in range(-half, half + 1)]


SHARPNESS, CURVES = "sharpness.csv", "loss_curves.csv"
"""Files of the tables."""

_SETTINGS = tuple(flags_of(Sharpness))
_WHERE = ("part", "role", "environment")

POOLED, SOURCE, TARGET = "pooled", "source", "target"
"""Roles: the mean loss over the source environments, a source environment, a target environment."""

QUANTITIES = {
    "loss": "mean cross-entropy",
    "one_step_rise": "rise of the loss after one ascent step",
    "worst_rise": "worst rise of the loss in several ascent steps",
    "eigenvalue": "largest eigenvalue of the Hessian",
    "trace": "trace of the Hessian",
}
"""What methods are compared by, with its meaning."""

NUMBERS = (
    *("count", "loss", "gradient_norm", "one_step_rise", "worst_rise"),
    *("pooled_one_step_rise", "pooled_worst_rise"),
    *("eigenvalue", "eigenvalue_error", "eigenvalue_products", "trace", "trace_error"),
)

LAYOUTS = {
    CURVES: Layout(_SETTINGS, _WHERE, ("direction", "distance", "loss")),
    SHARPNESS: Layout(_SETTINGS, _WHERE, NUMBERS),
}
