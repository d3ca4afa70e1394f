"""Groupings: the environments of an update, real or controls."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import domainbed
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.distributed_run import check_shareable
from domainbed.training.grouping import group_minibatches
from domainbed.training.minibatches import EnvironmentSampler, Minibatches

SIZES = (40, 24, 60)
HPARAMS = {"batch_size": 4, "featurizer": "small_cnn"}
QUICK = {
    "dataset": "Debug28",
    "steps": 2,
    "hparams": HPARAMS,
    "evaluate": "selection",
    "skip_model_save": True,
}


def minibatches(sampling="replacement", seed=0, n_steps=300, batch_size=8):
    """Minibatches whose inputs are (source, index of the sample)."""
    parts = []
    for source, size in enumerate(SIZES):
        x = torch.stack([torch.full((size,), float(source)), torch.arange(float(size))], dim=1)
        parts.append(SplitDataset(TensorDataset(x, torch.arange(size)), list(range(size))))
    samplers = [
        EnvironmentSampler(size, batch_size, (seed, source), sampling) for source, size in enumerate(SIZES)
    ]
    return Minibatches(parts, samplers, n_steps)


def ids(step):
    return [[tuple(sample) for sample in x.tolist()] for x, _ in step]


def test_domain_changes_nothing():
    ordinary = minibatches()
    assert group_minibatches("domain", ordinary, 0) is ordinary


@pytest.mark.parametrize("sampling", ["replacement", "epochs"])
@pytest.mark.parametrize("grouping", ["single_domain", "pooled"])
def test_a_step_is_a_function_of_seed_and_step(grouping, sampling):
    one, again, other = (group_minibatches(grouping, minibatches(sampling, seed), seed) for seed in (3, 3, 4))
    assert [len(y) for _, y in one[0]] == [8, 8, 8]
    assert all(ids(one[step]) == ids(again[step]) for step in (7, 0, 299, 7))
    assert any(ids(one[step]) != ids(other[step]) for step in (0, 1))
    x, y = one[5][1]
    assert torch.equal(x[:, 1].long(), y)  # inputs keep their labels


def test_single_domain_draws_one_source_per_step_uniformly():
    control = group_minibatches("single_domain", minibatches(n_steps=1500), 0)
    sources = [
        {source for minibatch in ids(control[step]) for source, _ in minibatch} for step in range(1500)
    ]
    assert all(len(each) == 1 for each in sources)
    counts = np.bincount([int(*each) for each in sources])
    assert abs(counts - 500).max() < 90


def test_single_domain_without_replacement_shows_every_sample_once_per_epoch():
    control = group_minibatches("single_domain", minibatches("epochs"), 0)
    seen = {source: [] for source in range(3)}
    for step in range(60):
        for minibatch in ids(control[step]):
            seen[int(minibatch[0][0])] += [number for _, number in minibatch]
    for source, size in enumerate(SIZES):
        epoch = size // 8 * 8
        numbers = seen[source]
        assert len(numbers) > 2 * epoch
        assert len(set(numbers[:epoch])) == len(set(numbers[epoch : 2 * epoch])) == epoch


def test_pooled_shuffles_the_samples_of_domain():
    ordinary, control = minibatches(), group_minibatches("pooled", minibatches(), 0)
    mixed = 0
    for step in range(50):
        expected = sorted(sample for minibatch in ids(ordinary[step]) for sample in minibatch)
        shuffled = ids(control[step])
        assert sorted(sample for minibatch in shuffled for sample in minibatch) == expected
        mixed += sum(len({source for source, _ in minibatch}) == 3 for minibatch in shuffled)
    assert mixed > 140  # of 150


def test_pooled_keeps_minibatch_sizes():
    control = group_minibatches("pooled", minibatches(batch_size=30), 0)
    assert [len(y) for _, y in control[0]] == [30, 24, 30]


@pytest.mark.parametrize("algorithm", ["AgrSum", "PCGrad"])
def test_a_run_records_its_grouping_and_depends_on_it(algorithm, tmp_path):
    losses = {}
    for grouping in ("domain", "single_domain", "pooled"):
        frame = domainbed.train(
            algorithm=algorithm, grouping=grouping, output_dir=tmp_path / grouping, **QUICK
        )
        assert frame["args.grouping"].unique().tolist() == [grouping]
        losses[grouping] = tuple(frame["loss"])
    assert len(set(losses.values())) == 3
    settings = json.loads((tmp_path / "pooled" / "run.json").read_text())["settings"]
    assert settings["grouping"] == "pooled"


def test_unknown_groupings_and_groupings_under_torchrun_are_refused():
    with pytest.raises(UsageError, match="--grouping must be one of domain, single_domain, pooled, not"):
        check_config(TrainConfig(dataset="Debug28", grouping="none"))
    with pytest.raises(UsageError, match="start it without torchrun"):
        check_shareable(TrainConfig(dataset="Debug28", algorithm="AgrSum", grouping="pooled"), None)
