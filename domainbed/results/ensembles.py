"""Ensembles of trials (`--ensembles`): what the models of a method's trials can do together.

For each method and target: the average of the trials' predictions, and the average of their weights if they
began with the same ones. Each is a single number. There are no trials of it, so it is in no test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from domainbed.errors import DomainBedError, UsageError
from domainbed.model_selection import SelectionMethod
from domainbed.predictions import PartPredictions
from domainbed.predictions.agreement import join
from domainbed.predictions.ensemble import Ensemble, ensemble
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.hparam_search import Candidate, ranked_candidates
from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed.results.saved_predictions import (
    predictions_at_selected_step,
    reported_part,
    run_directory,
)
from domainbed.sweep.launch_folder import for_reading

MEMBERS, PREDICTIONS, WEIGHTS = "mean of its trials", "average of predictions", "average of weights"
"""Kinds of rows."""

_SAME_START = json.dumps({"initial_seed": 0})


@dataclass(frozen=True)
class EnsembleCell:
    """The trials of one method on one target, together.

    Attributes:
        accuracies: kind of row -> accuracy in [0, 1] on the shared images.
        reasons: kind of row -> why it has no number.
        members: number of trials.
        images: number of images of the target that all trials predicted.
        from_models: whether predictions of some trial are those of its saved model, at its last step.
    """

    accuracies: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    members: int = 0
    images: int = 0
    from_models: bool = False


@dataclass(frozen=True)
class EnsembleTable:
    """The ensembles on one dataset by one selection method.

    Attributes:
        dataset: the dataset.
        method: description of the selection method.
        algorithms: names of the methods, in the order of rows.
        targets: numbers of the targets, in the order of columns.
        cells: (method, target) -> its trials, together.
        selects_on_target: whether images of the target that took part in the selection are left out.
    """

    dataset: ShownDataset
    method: str
    algorithms: Sequence[str]
    targets: Sequence[int]
    cells: Mapping[tuple[str, int], EnsembleCell]
    selects_on_target: bool = False


class ModelPredictions:
    """Predictions of saved models, made once for all selection methods, which often select the same runs."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[Path, ...], int], list[PartPredictions]] = {}

    def of(self, runs: Sequence[Path], environment: int) -> list[PartPredictions]:
        """As `domainbed.training.averaged_models.predict_environment`."""
        key = tuple(runs), environment
        if key not in self._made:
            from domainbed.training.averaged_models import predict_environment

            paths = [run.absolute() for run in runs]
            with for_reading(paths[0].parent):
                self._made[key] = predict_environment(paths, environment)
        return self._made[key]


def ensemble_tables(
    sweep: Path,
    records: Q[Record],
    accuracies: Accuracies,
    method: type[SelectionMethod],
    models: ModelPredictions,
) -> list[EnsembleTable]:
    """The ensembles of the runs that `method` selects, a table for each dataset.

    Args:
        sweep: the sweep directory.
        records: records of its runs.
        accuracies: their accuracies by `method`.
        method: the selection method.
        models: predicts with saved models.
    """
    trials: dict[tuple[str, str, int], list[Candidate]] = {}
    for best, *_ in ranked_candidates(records, method):
        trials.setdefault((best.dataset, best.algorithm, best.target), []).append(best)
    bar = tqdm(trials.items(), desc="ensembles", unit="cell", leave=False, disable=None)
    cells = {key: _cell(sweep, candidates, method, models) for key, candidates in bar}
    tables = []
    for dataset in accuracies.datasets:
        own = {(algorithm, i): cell for (name, algorithm, i), cell in cells.items() if name == dataset.name}
        algorithms = [name for name in accuracies.algorithms if any(name == each for each, _ in own)]
        targets = sorted({target for _, target in own})
        if own:
            tables.append(
                EnsembleTable(dataset, method.name, algorithms, targets, own, method.selects_on_target)
            )
    return tables


def _cell(
    sweep: Path, candidates: Sequence[Candidate], method: type[SelectionMethod], models: ModelPredictions
) -> EnsembleCell:
    if len(candidates) < 2:
        return EnsembleCell(reasons={PREDICTIONS: "there is one trial"}, members=len(candidates))
    try:
        members = [_member(sweep, candidate, method, models) for candidate in candidates]
        together = ensemble([parts for parts, _ in members])
    except DomainBedError as error:
        return EnsembleCell(reasons={PREDICTIONS: str(error)}, members=len(candidates))
    accuracies = {MEMBERS: fmean(together.members), PREDICTIONS: together.accuracy}
    reasons = {}
    try:
        accuracies[WEIGHTS] = _accuracy_of_mean_weights(sweep, candidates, together, models)
    except DomainBedError as error:
        reasons[WEIGHTS] = str(error)
    return EnsembleCell(
        accuracies, reasons, len(candidates), len(together.labels), any(model for _, model in members)
    )


def _member(
    sweep: Path, candidate: Candidate, method: type[SelectionMethod], models: ModelPredictions
) -> tuple[list[PartPredictions], bool]:
    """Predictions of a trial for its target, and whether they are those of its model at the last step."""
    from_model = False
    try:
        predictions, step = predictions_at_selected_step(sweep, candidate, method)
        parts = predictions.environment(candidate.environment, step)
        for part in parts:
            part.require_all_classes("the average of predictions")
    except UsageError as unsaved:
        from_model = True
        try:
            parts = models.of([run_directory(sweep, candidate.run[0])], candidate.environment)
        except DomainBedError as error:
            raise UsageError(f"{unsaved}; nor can its model predict them: {error}") from None
    parts = [part for part in parts if not part.name.endswith("_uda")]
    if method.selects_on_target:
        # The other images of the target took part in the selection.
        parts = [part for part in parts if part.name == reported_part(method, candidate.environment)]
    return parts, from_model


def _accuracy_of_mean_weights(
    sweep: Path, candidates: Sequence[Candidate], together: Ensemble, models: ModelPredictions
) -> float:
    """Accuracy of the mean of the trials' final weights on the images of their ensemble.

    Raises: DomainBedError if the trials began with different weights, or a model is missing.
    """
    starts = {candidate.run[0].get("initial_weights") for candidate in candidates}
    if None in starts:
        raise UsageError("records of its runs do not tell their initial weights; an older version wrote them")
    if len(starts) > 1:
        raise UsageError(
            "its trials began with different weights; launch them with "
            f"--hparams '{_SAME_START}', which gives all trials the same ones"
        )
    runs = [run_directory(sweep, candidate.run[0]) for candidate in candidates]
    averaged = join(models.of(runs, candidates[0].environment))
    row_of = {sample: row for row, sample in enumerate(averaged.identities.tolist())}
    rows = [row_of[sample] for sample in together.identities.tolist()]
    return float((averaged.predicted[rows] == together.labels).mean())


def print_ensembles(table: EnsembleTable, format: str) -> None:
    """Print a table, and what its numbers are, to the current `sys.stdout`."""
    names = [table.dataset.targets[target] for target in table.targets]
    title = f"Dataset: {table.dataset.name}, ensembles of trials, model selection method: {table.method}"
    print_section_table(title, ["Algorithm", *names, "Avg"], list(_rows(table)), format)
    print_paragraphs(list(_explanation(table)), format)


def _rows(table: EnsembleTable) -> Iterator[list[str]]:
    for algorithm in table.algorithms:
        cells = [table.cells.get((algorithm, target), EnsembleCell()) for target in table.targets]
        for kind in (MEMBERS, PREDICTIONS, WEIGHTS):
            values = [cell.accuracies.get(kind) for cell in cells]
            known = [value for value in values if value is not None]
            if known or kind == PREDICTIONS:
                mean = fmean(known) if len(known) == len(values) else None
                yield [f"{algorithm}, {kind}", *map(_percent, [*values, mean])]


def _percent(share: float | None) -> str:
    return "X" if share is None else f"{100 * share:.1f}"


def _explanation(table: EnsembleTable) -> Iterator[str]:
    cells = list(table.cells.values())
    numbers = sorted({cell.members for cell in cells})
    yield (
        "Accuracy in %, on the images of the target that all trials of the method have predicted. "
        f"Trials: {' or '.join(map(str, numbers))}. An average of predictions or of weights is one number: "
        "there are no trials of it, so it has no standard error and is in no test."
    )
    yield (
        f"{PREDICTIONS.capitalize()}: the trials' probabilities for each image are averaged (the idea of "
        "EoA, Arpit et al. 2022). Each trial predicts with the hyper-parameters and at the step that was "
        "selected"
        + (", or with its saved model at its last step." if any(cell.from_models for cell in cells) else ".")
    )
    if any(WEIGHTS in cell.accuracies for cell in cells):
        yield (
            f"{WEIGHTS.capitalize()} (DiWA, Ramé et al. 2022): of the models that the runs saved at their "
            "last step; they began with the same weights."
        )
    sizes = ", ".join(_sizes(table))
    if sizes:
        left_out = ", without those that took part in the selection" if table.selects_on_target else ""
        yield f"Images{left_out}: {sizes}."
    reasons: dict[tuple[str, str], list[str]] = {}
    for (algorithm, target), cell in table.cells.items():
        for kind, reason in cell.reasons.items():
            place = f"{algorithm} on {table.dataset.targets[target]}"
            reasons.setdefault((kind, reason), []).append(place)
    for (kind, reason), places in reasons.items():
        yield f"No {kind} of {', '.join(places)}: {reason}."


def _sizes(table: EnsembleTable) -> Iterator[str]:
    for target in table.targets:
        own = sorted({cell.images for (_, i), cell in table.cells.items() if i == target and cell.images})
        if own:
            yield f"{table.dataset.targets[target]} {' or '.join(map(str, own))}"
