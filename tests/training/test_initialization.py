import json

import pytest
import torch
from torch import nn

import domainbed
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.initialization import initial_seed, weights_checksum
from domainbed.training.run import build

HPARAMS = {"batch_size": 4, "featurizer": "small_cnn"}


def built(seed, **hparams):
    return build(TrainConfig(dataset="Debug28", seed=seed, hparams=json.dumps(HPARAMS | hparams)))


def test_the_initial_seed_is_the_runs_own_by_default():
    assert initial_seed({}, 7) == 7
    assert initial_seed({"initial_seed": -1}, 7) == 7
    assert initial_seed({"initial_seed": 0}, 7) == 0


def test_trials_share_their_initial_weights_if_a_hyper_parameter_fixes_them():
    own = [built(seed).initial_weights for seed in (1, 2)]
    shared = [built(seed, initial_seed=1).initial_weights for seed in (1, 2)]
    assert own[0] != own[1]
    assert shared == [own[0], own[0]]


def test_minibatches_do_not_depend_on_the_initial_seed():
    first, other = built(3), built(3, initial_seed=5)
    for (x, _), (other_x, _) in zip(first.minibatches[0], other.minibatches[0], strict=True):
        assert torch.equal(x, other_x)


def test_every_record_has_the_checksum_of_the_initial_weights(tmp_path):
    domainbed.train(dataset="Debug28", steps=2, checkpoint_freq=1, hparams=HPARAMS, output_dir=tmp_path)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert {json.loads(line)["initial_weights"] for line in lines} == {built(0).initial_weights}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_checksum_covers_every_bit_name_and_shape(dtype):
    def module(values, name="a"):
        made = nn.Module()
        made.register_buffer(name, torch.tensor(values).to(dtype))
        return made

    checksum = weights_checksum(module([1, 2]))
    assert checksum == weights_checksum(module([1, 2]))
    others = [module([1, 3]), module([1, 2], "b"), module([[1, 2]]), module(1)]
    assert len({checksum, *map(weights_checksum, others)}) == 5


def test_a_seed_below_minus_one_is_refused():
    with pytest.raises(UsageError, match="hyper-parameter initial_seed must be at least -1, not -2"):
        check_config(TrainConfig(dataset="Debug28", hparams='{"initial_seed": -2}'))
