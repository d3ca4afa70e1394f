"""Sharpness of one trained model: of its pooled loss, and of each environment's loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from domainbed_gs.curvature.hutchinson import estimate, quadratic_forms
from domainbed_gs.curvature.lanczos import Eigenvalue, largest_eigenvalue
from domainbed_gs.curvature.losses import Loss, MeanLoss, SampleLoss
from domainbed_gs.curvature.network import Logits, ParameterVector, trained_names
from domainbed_gs.sharpness.ascent import Ascent, ascend
from domainbed_gs.sharpness.directions import filter_normalised, losses_along
from domainbed_gs.sharpness.settings import CURVES, LAYOUTS, POOLED, SHARPNESS, SOURCE, TARGET, Sharpness
from domainbed_gs.trained_models.loading import TrainedModel
from domainbed_gs.trained_models.samples import StudyPurpose, draw_samples
from domainbed_gs.trained_models.table import Layout, Row


@dataclass(frozen=True)
class Domain:
    """A loss whose sharpness is measured.

    Attributes:
        role: "pooled", "source" or "target".
        name: name of the environment; empty for the pooled loss.
        count: number of samples.
        loss: the loss.
    """

    role: str
    name: str
    count: int
    loss: Loss


@dataclass(frozen=True)
class SharpnessMeasurement:
    """Measures models with some settings; implements `trained_models.over_models.Measurement`.

    Attributes:
        how: the settings.
    """

    how: Sharpness = field(default_factory=Sharpness)

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """Columns of the two tables."""
        return LAYOUTS

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings as columns."""
        return self.how.columns()

    def units(self, model: TrainedModel) -> int:
        """Number of steps of the progress bar at most."""
        how, environments = self.how, len(model.splits)
        each = how.ascent_steps + how.lanczos_steps
        of_part = (environments + 1) * each + environments * how.probes + how.directions * how.points
        return of_part * len(how.parts)

    def measure(self, model: TrainedModel, advance: Callable[[], None]) -> dict[str, list[Row]]:
        """The rows of both tables.

        Raises: UsageError if a part is missing, or the model's predictions cannot be differentiated.
        """
        found: dict[str, list[Row]] = {name: [] for name in LAYOUTS}
        network, parameters = Logits(model.algorithm), None
        for part in self.how.parts:
            drawn = draw_samples(model, part, self.how.samples, self.how.sample_seed)
            parameters = parameters or ParameterVector(network, trained_names(network, drawn[0].x[:2]))
            environments = [
                Domain(
                    TARGET if each.is_target else SOURCE,
                    each.name,
                    len(each.y),
                    SampleLoss(network, parameters, each.x, each.y),
                )
                for each in drawn
            ]
            trial_seed = model.args["trial_seed"]
            found_here = measure_domains(environments, parameters, self.how, trial_seed, advance)
            for name, rows in found_here.items():
                found[name] += [{"part": part, **row} for row in rows]
        return found


def measure_domains(
    environments: Sequence[Domain],
    parameters: ParameterVector,
    how: Sharpness,
    trial_seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[Row]]:
    """Rows of both tables for the environments' losses, and before them for the pooled loss.

    The pooled loss is the mean of the source environments' losses, each with the same weight.

    Args:
        environments: at least one source.
        parameters: the network's parameters, which the losses are functions of.
        how: the settings.
        trial_seed: seed of the run's trial. Each trial has its own random vectors, so that their errors are
            independent, and all methods of a trial have the same ones.
        advance: called after each step.
    """
    at = parameters.values
    sources = [each for each in environments if each.role == SOURCE]
    pooled = Domain(
        POOLED, "", sum(each.count for each in sources), MeanLoss([each.loss for each in sources])
    )
    everyone = [pooled, *environments]
    losses = [each.loss for each in environments]
    of_pooled = ascend(pooled.loss, at, how.rho, how.ascent_steps, losses, advance)
    ascents = [of_pooled, *(ascend(loss, at, how.rho, how.ascent_steps, (), advance) for loss in losses)]
    start, probes = (
        (how.sample_seed, purpose, trial_seed) for purpose in (StudyPurpose.LANCZOS, StudyPurpose.PROBES)
    )
    eigenvalues = [
        largest_eigenvalue(each.loss, at, start, how.lanczos_steps, how.tolerance, advance)
        for each in everyone
    ]
    forms = quadratic_forms(losses, at, how.probes, probes, advance)
    is_source = [each.role == SOURCE for each in environments]
    # The pooled Hessian is the mean of the sources'.
    forms = np.column_stack([forms[:, is_source].mean(axis=1), forms])
    beside_pooled = [
        (of_pooled.one_step, of_pooled.worst),
        *zip(of_pooled.watched_one_step, of_pooled.watched_worst, strict=True),
    ]
    rows = [
        _row(domain, ascent, eigenvalue) | _of_pooled(pair) | _trace(forms[:, column])
        for column, (domain, ascent, eigenvalue, pair) in enumerate(
            zip(everyone, ascents, eigenvalues, beside_pooled, strict=True)
        )
    ]
    return {SHARPNESS: rows, CURVES: _curves(everyone, parameters, how, trial_seed, advance)}


def _where(domain: Domain) -> Row:
    return {"role": domain.role, "environment": domain.name}


def _row(domain: Domain, ascent: Ascent, eigenvalue: Eigenvalue) -> Row:
    return {
        **_where(domain),
        "count": domain.count,
        "loss": ascent.value,
        "gradient_norm": ascent.gradient_norm,
        "one_step_rise": ascent.one_step,
        "worst_rise": ascent.worst,
        "eigenvalue": eigenvalue.value,
        "eigenvalue_error": eigenvalue.error,
        "eigenvalue_products": eigenvalue.products,
    }


def _of_pooled(rises: tuple[float, float]) -> Row:
    return {"pooled_one_step_rise": rises[0], "pooled_worst_rise": rises[1]}


def _trace(forms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Row:
    found = estimate(forms)
    return {"trace": found.mean, "trace_error": found.error}


def _curves(
    everyone: Sequence[Domain],
    parameters: ParameterVector,
    how: Sharpness,
    trial_seed: int,
    advance: Callable[[], None],
) -> list[Row]:
    """Losses along random directions; that of the pooled loss is the mean of the sources'."""
    rows = []
    environments = everyone[1:]
    is_source = [each.role == SOURCE for each in environments]
    for number in range(how.directions):
        counters = (how.sample_seed, StudyPurpose.DIRECTIONS, trial_seed, number)
        direction = filter_normalised(parameters, counters)
        losses = [each.loss for each in environments]
        found = losses_along(losses, parameters.values, direction, how.distances, advance)
        del direction  # before the next one is drawn
        found = np.column_stack([found[:, is_source].mean(axis=1), found])
        rows += [
            {**_where(domain), "direction": number, "distance": distance, "loss": float(found[row, column])}
            for column, domain in enumerate(everyone)
            for row, distance in enumerate(how.distances)
        ]
    return rows
