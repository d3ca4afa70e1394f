"""Averages of the weights of any algorithm."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.ermplusplus import ErmPlusPlusMovingAvg
from domainbed.hparams_registry import default_hparams
from domainbed.listing.kinds import options
from domainbed.training.averaging import Averaging, SimpleAverage
from domainbed.training.loss_valley import LossValley, PublicLossValley
from domainbed.training.run import make_averaging
from domainbed.training.swad import SWAD

SHAPE = (3, 16, 16)


def minibatches(k=3):
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(6, *SHAPE, generator=generator), torch.randint(2, (6,), generator=generator))
        for _ in range(k)
    ]


def make(cls):
    torch.manual_seed(0)
    name = cls if isinstance(cls, str) else "ERM"
    hparams = default_hparams(name, "Debug28") | {"featurizer": "small_cnn", "lr": 1e-2}
    return (get_algorithm_class(cls) if cls is name else cls)(SHAPE, 2, 3, hparams)


def weights_of(algorithm):
    return {name: value.detach().clone() for name, value in algorithm.state_dict().items()}


def mean_of(states):
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }


def assert_close(got, expected):
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def batch_norm_erm():
    class WithBatchNorm(ERM):
        def __init__(self, *args):
            super().__init__(*args)
            self.network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(768), nn.Linear(768, 2))
            self.optimizer = self.new_optimizer()

    return make(WithBatchNorm)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_can_be_averaged_and_is_restored(name):
    algorithm, batches = make(name), minibatches()
    averages = [SimpleAverage(algorithm, 2), SWAD(algorithm, LossValley(1, 1, 1e6))]
    states = []
    for step in range(3):
        torch.manual_seed(step)
        algorithm.update(batches)
        states.append(weights_of(algorithm))
        for averaging in averages:
            averaging.update()
            averaging.at_checkpoint(step, lambda step: 1.0)
    before = weights_of(algorithm)
    algorithm.eval()
    for averaging in averages:
        with averaging.applied():
            # An entry whose shape changes with the first update is averaged from there on.
            got = weights_of(algorithm)
            same = [key for key in got if all(key in s and s[key].shape == got[key].shape for s in states)]
            assert_close(
                {key: got[key] for key in same},
                mean_of([{key: state[key] for key in same} for state in states]),
            )
            torch.manual_seed(9)
            with torch.no_grad():
                assert algorithm.predict(batches[0][0]).isfinite().all()
        assert equal(weights_of(algorithm), before)
    algorithm.train()
    algorithm.update(batches)


def test_a_parameter_with_two_names_is_averaged_once():
    algorithm = make("ERM")
    averaging = SimpleAverage(algorithm, 1)
    averaging.update()
    assert (
        len(averaging.averaged_weights()) == len(list(algorithm.parameters())) < len(algorithm.state_dict())
    )
    before = next(algorithm.classifier.parameters()).detach().clone()
    algorithm.update(minibatches())
    averaging.update()
    with averaging.applied():
        state = algorithm.state_dict()
        assert torch.equal(state["classifier.weight"], state["network.1.weight"])
        assert not torch.equal(state["classifier.weight"], before)


def test_running_statistics_are_averaged_and_counters_copied():
    algorithm = batch_norm_erm()
    averaging, states = SimpleAverage(algorithm, 1), [weights_of(algorithm)]
    for _ in range(4):
        algorithm.update(minibatches())
        averaging.update()
        states.append(weights_of(algorithm))
    with averaging.applied():
        assert_close(weights_of(algorithm), mean_of(states))
        assert algorithm.network[1].num_batches_tracked == 4


@pytest.mark.parametrize("start", [1, 2, 3])
def test_sma_equals_the_average_of_erm_plus_plus(start):
    """Exactly, except for the number of minibatches of batch norms, which ERM++ counts separately."""
    algorithm = batch_norm_erm()
    averaging, theirs = SimpleAverage(algorithm, start), ErmPlusPlusMovingAvg(algorithm.network)
    theirs.sma_start_iter = start
    for update in range(1, 7):
        algorithm.update(minibatches())
        averaging.update()
        theirs.update_sma()
        with averaging.applied():
            ours = {k: v for k, v in weights_of(algorithm.network).items() if "num_batches" not in k}
        expected = {k: v for k, v in weights_of(theirs.network_sma).items() if "num_batches" not in k}
        assert equal(ours, expected), update


@pytest.mark.parametrize("start", [1, 2, 4])
def test_sma_is_the_moving_average_of_eoa(start):
    """Arpit et al. (2022), section 3.1: t updates after t0 the average moves by 1 / (t + 1) to the weights.

    t0 is the update before the first averaged one, so that a start of 1 averages from the initial weights on.
    """
    algorithm = make("ERM")
    averaging = SimpleAverage(algorithm, start)
    expected = weights_of(algorithm)
    for update in range(1, 7):
        algorithm.update(minibatches())
        averaging.update()
        t, current = update - (start - 1), weights_of(algorithm)
        if t <= 0:
            expected = current
        else:
            expected = {name: (t * old + current[name]) / (t + 1) for name, old in expected.items()}
        with averaging.applied():
            assert_close(weights_of(algorithm), expected)


def test_buffers_changed_by_predict_are_restored():
    class Counting(ERM):
        def __init__(self, *args):
            super().__init__(*args)
            self.register_buffer("predictions", torch.zeros(1))

        def predict(self, x):
            self.predictions += 1
            return super().predict(x)

    algorithm = make(Counting)
    averaging = SWAD(algorithm, LossValley(1, 1, 1.0))
    algorithm.update(minibatches())
    averaging.update()

    def validation_loss(step):
        return F.cross_entropy(algorithm.predict(minibatches()[0][0]), minibatches()[0][1]).item()

    averaging.at_checkpoint(0, validation_loss)
    with averaging.applied():
        algorithm.predict(minibatches()[0][0])
    assert algorithm.predictions.item() == 1
    with averaging.applied():
        assert algorithm.predictions.item() == 1


def test_weights_are_restored_after_an_error():
    algorithm = make("ERM")
    averaging = SimpleAverage(algorithm, 1)
    for _ in range(2):
        algorithm.update(minibatches())
        averaging.update()
    before = weights_of(algorithm)

    def fail():
        with averaging.applied():
            assert not equal(weights_of(algorithm), before)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert equal(weights_of(algorithm), before)


def through_a_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


LOSSES = [1.0, 0.7, 0.8, 2.0, 0.9, 2.0]


@pytest.mark.parametrize(
    "averaging_of",
    [
        lambda algorithm: SimpleAverage(algorithm, 3),
        lambda algorithm: SWAD(algorithm, LossValley(2, 1, 0.3)),  # the valley ends
        lambda algorithm: SWAD(algorithm, LossValley(2, 2, 0.3)),  # a loss above the tolerance is undecided
        lambda algorithm: SWAD(algorithm, LossValley(4, 2, 0.3)),  # the valley starts after the cut
        lambda algorithm: SWAD(algorithm, PublicLossValley(2, 3, 0.3)),  # checkpoints count provisionally
        lambda algorithm: SWAD(algorithm, PublicLossValley(2, 2, 0.3)),  # only the start counts for a while
    ],
)
@pytest.mark.parametrize("freq", [1, 2])
@pytest.mark.parametrize("cut", [2, 3, 4, 5])
def test_averaging_resumes_in_a_new_object(identical, averaging_of, freq, cut):
    def updates(algorithm, averaging, steps):
        for step in steps:
            algorithm.update([(x + step, y) for x, y in minibatches()])
            averaging.update()
            if step % freq == 0:
                averaging.at_checkpoint(step, lambda step: LOSSES[step // freq])

    straight = make("GroupDRO")
    averaging = averaging_of(straight)
    updates(straight, averaging, range(6))

    first = make("GroupDRO")
    before = averaging_of(first)
    updates(first, before, range(cut))
    state = through_a_file({"algorithm": first.training_state(), "averaging": before.state_dict()})
    second = make("GroupDRO")
    second.load_training_state(state["algorithm"])
    after = averaging_of(second)
    after.load_state_dict(state["averaging"])
    copied = through_a_file(state)
    updates(second, after, range(cut, 6))

    with averaging.applied(), after.applied():
        assert equal(weights_of(straight), weights_of(second))
    assert identical(averaging.state_dict(), after.state_dict())
    assert identical(state["averaging"], copied["averaging"])  # loaded tensors are copies


def test_averaging_is_off_by_default():
    algorithm = make("ERM")
    averaging = make_averaging(algorithm, {}, 10, True)
    assert type(averaging) is Averaging
    before = weights_of(algorithm)
    averaging.update()
    assert averaging.at_checkpoint(0, lambda step: 1 / 0) == {}
    with averaging.applied():
        assert equal(weights_of(algorithm), before)
    assert averaging.state_dict() == {}


def test_options_are_listed_with_their_defaults():
    listed = options(None)
    defaults = {"weight_averaging": "none", "sma_start": 600, "swad_n_s": 3, "swad_n_e": 6, "swad_r": 0.3}
    defaults |= {"swad_counting": "public"}
    assert {name: listed[name]["default"] for name in defaults} == defaults


def test_sma_starts_at_600_or_in_the_middle_of_a_short_run():
    for n_steps, start in ((5001, 600), (9, 4), (1, 1)):
        averaging = make_averaging(make("ERM"), {"weight_averaging": "sma"}, n_steps, has_validation=True)
        assert averaging.start == start
