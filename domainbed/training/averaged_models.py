"""The average of several trained models' weights, and its predictions for an environment.

DiWA (Ramé et al. 2022, arXiv 2205.09739) averages the weights of runs that began with the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domainbed.algorithms.base import Algorithm
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.predictions import PartPredictions
from domainbed.predictions.file import part_of_arrays
from domainbed.training.config import SETTINGS
from domainbed.training.config_checks import from_settings
from domainbed.training.devices import choose_device
from domainbed.training.evaluation import (
    EVALUATION,
    Evaluator,
    PartBatches,
    parts_to_evaluate,
    without_augmentation,
)
from domainbed.training.kept_predictions import Predicted, environment_of, part_samples
from domainbed.training.model_file import load_model, read_model
from domainbed.training.prefetcher import Prefetcher
from domainbed.training.run_data import build_data, choose_num_workers
from domainbed.training.run_state import read_json

MODEL = "model.pkl"


def predict_environment(runs: Sequence[Path], environment: int) -> list[PartPredictions]:
    """Predictions of the average of some runs' final weights for all parts of one of their targets.

    The data and splits are those of the first run. Seeds the global generators of random numbers.

    Args:
        runs: directories of the runs: one for the predictions of its own model.
        environment: index of the target environment.

    Raises:
        UsageError: a model is missing or damaged, models differ in their layers, or data cannot be read or
            are not those of the runs.
        RunError: images cannot be read.
    """
    first = read_model(runs[0] / MODEL)
    algorithm, args = first.algorithm, first.args
    weights = [algorithm.state_dict(), *(load_model(run / MODEL).state_dict() for run in runs[1:])]
    algorithm.load_state_dict(mean_weights(weights))
    known = {name: args.get(name, setting.value_before) for name, setting in SETTINGS.items()}
    config = from_settings(known | {"output_dir": str(runs[0])})
    missing = config.dataset_class().missing(config.data_dir)
    if missing:
        raise UsageError(missing)
    device = choose_device(config.device)
    dataset, splits, _ = build_data(config, dict(algorithm.hparams), device)
    for run in runs:
        _check_data(run, dataset)
    parts = {
        name: part if option(algorithm.hparams, "augment_evaluation") else without_augmentation(part)
        for name, part in parts_to_evaluate(splits, config.test_envs, "selection").items()
        if not name.endswith("_uda") and environment_of(name, splits) == environment
    }
    prefetcher = Prefetcher(
        {EVALUATION: PartBatches(parts)}, choose_num_workers(config.num_workers, dataset, splits)
    )
    try:
        predicted = _predict(algorithm.to(device), parts, device, prefetcher, config.seed)
    finally:
        prefetcher.close()
    samples, arrays = part_samples(dataset, splits, parts), predicted.arrays(0, dataset.num_classes)
    return [
        part_of_arrays(
            name,
            environment,
            0,
            dataset.num_classes,
            samples[name],
            {key.rpartition("/")[2]: array for key, array in arrays.items() if key.startswith(f"0/{name}/")},
        )
        for name in parts
    ]


def mean_weights(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of some models' weights, computed in float64. Integers, such as counters, are the first's.

    Raises: UsageError if the models have different layers.
    """
    first = states[0]
    for other in states[1:]:
        names = [name for name in {**first, **other} if _shape(first, name) != _shape(other, name)]
        if names:
            raise UsageError(f"models of different layers cannot be averaged: they differ in {names[0]}")
    return {
        name: _mean([state[name] for state in states])
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in first.items()
    }


def _mean(values: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(values[0], dtype=torch.float64)
    for value in values:
        total += value
    return (total / len(values)).to(values[0].dtype)


def _shape(state: Mapping[str, Any], name: str) -> object:
    value = state.get(name)
    return tuple(value.shape) if isinstance(value, Tensor) else value is None


def _predict(
    algorithm: Algorithm, parts: Mapping[str, Any], device: torch.device, prefetcher: Prefetcher, seed: int
) -> Predicted:
    predicted = Predicted()
    Evaluator(algorithm, parts, device, prefetcher, seed).evaluate([predicted], 0)
    return predicted


def _check_data(run: Path, dataset: MultipleDomainDataset) -> None:
    """Raise UsageError if the data are not those of the run, as far as its run.json tells."""
    before = (read_json(run / "run.json") or {}).get("data")
    for name in ("checksum", "version", "contents"):
        known = before.get(name) if isinstance(before, dict) else None
        now = dataset.summary.get(name)
        if known is not None and now is not None and known != now:
            raise UsageError(f"{run} holds a run on other data ({name} was {known}, now {now})")
