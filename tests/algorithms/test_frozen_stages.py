"""Every registered algorithm with a featurizer whose first stages, or all of them, are frozen."""

import numpy as np
import pytest
import torch

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.datasets import get_dataset_class
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.networks.stages import frozen_names, shared_frozen_stages
from domainbed.test.helpers import make_minibatches
from domainbed.training.averaging import SimpleAverage, tensors_of


def make(name, freeze, **overrides):
    torch.manual_seed(0)
    dataset = get_dataset_class("Debug28")(None, [], {})
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn", "freeze": freeze}
    hparams |= {"linear_steps": 0} | overrides
    torch.manual_seed(0)
    algorithm = get_algorithm_class(name)(dataset.input_shape, dataset.num_classes, len(dataset), hparams)
    return algorithm, make_minibatches(dataset, 4)


def train(algorithm, minibatches):
    """What two updates log, and logits afterwards."""
    logged = []
    for step in range(2):
        torch.manual_seed(step)
        np.random.seed(step)
        values = algorithm.update([(x.clone(), y) for x, y in minibatches])
        logged.append({key: float(value) for key, value in values.items()})
    algorithm.eval()
    torch.manual_seed(9)
    with torch.no_grad():
        return logged, algorithm.predict(minibatches[0][0])


NEED_TRAINED_BLOCKS = {"MIRO": ["all"], "MixStyle": ["conv2", "all"]}
"""Method that looks at the outputs of trained blocks -> values of `freeze` that leave it none."""
CASES = [
    (name, freeze)
    for name in ALGORITHMS
    for freeze in ("conv2", "all")
    if freeze not in NEED_TRAINED_BLOCKS.get(name, ()) and get_algorithm_class(name).TRAINS
]


@pytest.mark.parametrize(("name", "freeze"), CASES)
def test_updates_leave_frozen_stages_alone_and_may_get_their_outputs(name, freeze):
    algorithm, minibatches = make(name, freeze)
    shared = None if algorithm.CHANGES_INPUTS else shared_frozen_stages(algorithm)
    before = {key: value.clone() for key, value in algorithm.state_dict().items()}
    outputs = shared and [(shared.frozen_outputs(x), y) for x, y in minibatches]
    logged, logits = train(algorithm, minibatches)
    frozen = frozen_names(algorithm)
    after = algorithm.state_dict()
    assert frozen
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    assert any(not torch.equal(after[key], before[key]) for key in after.keys() - frozen)
    in_optimizers = {
        id(parameter)
        for part in vars(algorithm).values()
        if isinstance(part, torch.optim.Optimizer)
        for group in part.param_groups
        for parameter in group["params"]
    }
    assert in_optimizers <= {id(parameter) for parameter in algorithm.parameters()}
    assert not frozen & {key for key, _ in algorithm.named_parameters()}
    if outputs is None:
        return
    again, _ = make(name, freeze)
    same_logged, same_logits = train(again, outputs)
    for values, same in zip(logged, same_logged, strict=True):
        assert values == pytest.approx(same, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(logits, same_logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "freeze"), [(name, freeze) for name, values in NEED_TRAINED_BLOCKS.items() for freeze in values]
)
def test_methods_that_look_at_trained_blocks_are_refused_without_any(name, freeze):
    with pytest.raises(UsageError, match=f'{name} .*choose .*"featurizer"'):
        make(name, freeze)


def test_featurizers_with_other_random_weights_share_no_outputs():
    names = sorted({name for name, _ in CASES} - NEED_TRAINED_BLOCKS.keys())
    alone = [name for name in names if shared_frozen_stages(make(name, "all")[0]) is None]
    assert alone == ["ADRMX", "LFME"]


def test_methods_that_change_their_inputs_say_so():
    assert [name for name in ALGORITHMS if get_algorithm_class(name).CHANGES_INPUTS] == ["Mixup", "ARM"]


@pytest.mark.parametrize("name", ["AgrSum", "PCGrad", "ANDMask", "Fishr", "IRM"])
def test_gradients_are_over_the_trained_parameters_only(name):
    algorithm, minibatches = make(name, "all")
    assert sum(parameter.numel() for parameter in algorithm.trained_parameters()) == 2 * 128 + 2
    for passes in ("joint", "separate") if hasattr(algorithm, "engine") else ():
        algorithm, _ = make(name, "all", passes=passes)
        algorithm.update(minibatches)
        assert len(algorithm.engine._out) == 2 * 128 + 2


def test_averages_of_weights_do_not_touch_frozen_ones():
    algorithm, minibatches = make("ERM", "conv2")
    assert not frozen_names(algorithm) & tensors_of(algorithm).keys()
    average = SimpleAverage(algorithm, start=1)
    for _ in range(3):
        algorithm.update(minibatches)
        average.update()
    before = {key: value.clone() for key, value in algorithm.state_dict().items()}
    with average.applied():
        after = algorithm.state_dict()
        assert all(torch.equal(after[key], before[key]) for key in frozen_names(algorithm))
        assert not torch.equal(after["classifier.weight"], before["classifier.weight"])
