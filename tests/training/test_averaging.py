import io
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import domainbed
from domainbed.algorithms import ALGORITHMS, get_algorithm_class
from domainbed.algorithms.erm import ERM
from domainbed.algorithms.ermplusplus import ErmPlusPlusMovingAvg
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.scripts.list import options
from domainbed.training import loop
from domainbed.training.averaging import Averaging, SimpleAverage
from domainbed.training.config import TrainConfig
from domainbed.training.model_file import load_model
from domainbed.training.run import build, make_averaging
from domainbed.training.run_dir import RunDir
from domainbed.training.swad import SWAD, LossValley

SHAPE = (3, 16, 16)
CHANGING = ("step_time", "mem_gb", "args", "hparams")


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


# Real runs


def run(tmp_path, name="run", dataset="Debug28", steps=9, checkpoint_freq=2, algorithm="ERM", **hparams):
    """Train; the weights after each step, and the run."""
    config = TrainConfig(
        dataset=dataset,
        algorithm=algorithm,
        steps=steps,
        checkpoint_freq=checkpoint_freq,
        hparams=json.dumps({"batch_size": 8, "featurizer": "small_cnn"} | hparams),
        output_dir=str(tmp_path / name),
        save_model_every_checkpoint=True,
    )
    built = build(config)
    states, update = [], built.algorithm.update

    def recorded(*args):
        values = update(*args)
        states.append(weights_of(built.algorithm))
        return values

    built.algorithm.update = recorded
    with RunDir(tmp_path / name, {}, False) as directory:
        loop.train(built, directory)
    return states, built


def records(tmp_path, name="run"):
    lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in CHANGING} for line in lines]


def saved(tmp_path, file="model.pkl", name="run"):
    return weights_of(load_model(tmp_path / name / file))


def test_sma_hands_out_the_mean_of_the_weights_of_each_step(tmp_path):
    states, built = run(tmp_path, weight_averaging="sma", sma_start=4)
    # After updates 3, 4, ..., as ERM++ counts; step s is update s + 1.
    assert_close(saved(tmp_path), mean_of(states[2:]))
    assert_close(saved(tmp_path, "model_step4.pkl"), mean_of(states[2:5]))
    assert equal(saved(tmp_path, "model_step2.pkl"), states[2])
    assert equal(saved(tmp_path, "model_step0.pkl"), states[0])
    # The training itself goes on with the current weights.
    assert equal(weights_of(built.algorithm), states[-1])
    averaged = load_model(tmp_path / "run" / "model.pkl")
    part = built.splits[0]["in"]
    x, y = torch.stack([x for x, _ in part]), torch.stack([y for _, y in part])
    with torch.no_grad():
        share = (averaged.predict(x).argmax(1) == y).float().mean().item()
    assert records(tmp_path)[-1]["env0_in_acc"] == pytest.approx(share, abs=1e-6)


def test_a_short_run_averages_its_second_half(tmp_path):
    states, built = run(tmp_path, weight_averaging="sma")
    assert built.averaging.start == 4
    assert_close(saved(tmp_path), mean_of(states[2:]))
    assert make_averaging(make("ERM"), {"weight_averaging": "sma"}, 5001, True).start == 600
    assert make_averaging(make("ERM"), {"weight_averaging": "sma"}, 1, True).start == 1


def test_swad_in_a_valley_that_never_ends_averages_the_means_between_checkpoints(tmp_path):
    states, _ = run(tmp_path, steps=8, weight_averaging="swad", swad_n_s=1, swad_r=1e6)
    # Checkpoints at steps 0, 2, 4, 6 and 7.
    segments = [mean_of(states[a:b]) for a, b in ((0, 1), (1, 3), (3, 5), (5, 7), (7, 8))]
    assert_close(saved(tmp_path), mean_of(segments))
    assert_close(saved(tmp_path, "model_step4.pkl"), mean_of(segments[:3]))
    assert [(r["swad_start"], r["swad_end"]) for r in records(tmp_path)] == [(0, s) for s in (0, 2, 4, 6, 7)]


def test_swad_judges_by_the_current_models_loss_on_the_sources_validation_parts(tmp_path, monkeypatch):
    judged = []
    see = LossValley.add
    monkeypatch.setattr(
        LossValley, "add", lambda self, step, loss: judged.append((step, loss)) or see(self, step, loss)
    )
    states, built = run(tmp_path, weight_averaging="swad", swad_n_s=1, swad_r=1e6)
    assert [step for step, _ in judged] == [0, 2, 4, 6, 8]
    for step, loss in judged:
        built.algorithm.load_state_dict(states[step])
        means = []
        for index in built.sources:
            part = built.splits[index]["out"]
            x, y = torch.stack([x for x, _ in part]), torch.stack([y for _, y in part])
            with torch.no_grad():
                means.append(F.cross_entropy(built.algorithm.predict(x), y).item())
        assert loss == pytest.approx(sum(means) / 2, rel=1e-5)


def test_swad_hands_out_the_last_weights_as_long_as_there_is_no_valley(tmp_path):
    states, _ = run(tmp_path, weight_averaging="swad", swad_n_s=50)
    assert equal(saved(tmp_path), states[-1])
    assert all("swad_start" not in record for record in records(tmp_path))


@pytest.mark.parametrize("algorithm", ["ERM", "AgrRand", "DGSAM", "GroupDRO"])
def test_averaging_changes_nothing_of_the_training(algorithm, tmp_path):
    plain, _ = run(tmp_path, "plain", algorithm=algorithm)
    for kind in ("none", "sma", "swad"):
        states, _ = run(tmp_path, kind, algorithm=algorithm, weight_averaging=kind, swad_n_s=2, swad_n_e=1)
        assert all(equal(a, b) for a, b in zip(plain, states, strict=True))
        for before, after in zip(records(tmp_path, "plain"), records(tmp_path, kind), strict=True):
            assert after.keys() - before.keys() <= ({"swad_start", "swad_end"} if kind == "swad" else set())
            assert after["loss"] == before["loss"]
    assert records(tmp_path, "plain") == records(tmp_path, "none")
    assert equal(saved(tmp_path, name="plain"), saved(tmp_path, name="none"))


def test_on_emoji_styles(tmp_path):
    settings = {"dataset": "EmojiStyles", "steps": 7, "checkpoint_freq": 2, "evaluate": "selection"}
    frame = domainbed.train(
        **settings, hparams={"batch_size": 16, "weight_averaging": "swad", "swad_n_s": 2, "swad_r": 1.0}
    )
    assert frame["swad_start"].notna().any()
    assert frame["env0_out_acc"].between(0, 1).all()


# Any algorithm


@pytest.mark.parametrize("name", ALGORITHMS)
def test_any_algorithm_can_be_averaged_and_is_left_as_it_was(name):
    algorithm, batches = make(name), minibatches()
    averages = [SimpleAverage(algorithm, 1), SWAD(algorithm, LossValley(1, 1, 1e6))]
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
            # Entries whose shape changes with the first update are not averaged over it.
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


def test_running_statistics_are_averaged_and_counts_copied():
    algorithm = batch_norm_erm()
    averaging, states = SimpleAverage(algorithm, 1), []
    for _ in range(4):
        algorithm.update(minibatches())
        averaging.update()
        states.append(weights_of(algorithm))
    with averaging.applied():
        assert_close(weights_of(algorithm), mean_of(states))
        assert algorithm.network[1].num_batches_tracked == 4


def test_sma_is_erm_plus_pluss():
    """To the bit, but for the count of minibatches, which is the averaged network's own there."""
    algorithm = batch_norm_erm()
    averaging, theirs = SimpleAverage(algorithm, 3), ErmPlusPlusMovingAvg(algorithm.network)
    theirs.sma_start_iter = 3
    for update in range(1, 7):
        algorithm.update(minibatches())
        averaging.update()
        theirs.update_sma()
        with averaging.applied():
            ours = {k: v for k, v in weights_of(algorithm.network).items() if "num_batches" not in k}
        expected = {k: v for k, v in weights_of(theirs.network_sma).items() if "num_batches" not in k}
        assert equal(ours, expected), update


def test_a_prediction_that_changes_buffers_leaves_no_trace_of_the_average():
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


def test_an_error_during_an_evaluation_leaves_the_current_weights():
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


# Interruption


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
        lambda algorithm: SWAD(algorithm, LossValley(2, 2, 0.3)),  # one above the tolerance is undecided
        lambda algorithm: SWAD(algorithm, LossValley(4, 2, 0.3)),  # the valley begins after the cut
    ],
)
@pytest.mark.parametrize("freq", [1, 2])
@pytest.mark.parametrize("cut", [2, 3, 4, 5])
def test_six_updates_equal_some_and_the_rest_in_a_new_object(averaging_of, freq, cut):
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
    assert identical(state["averaging"], copied["averaging"])  # what was loaded does not follow


def identical(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return a == b


# Options


def test_off_is_the_default_and_does_nothing():
    algorithm = make("ERM")
    averaging = make_averaging(algorithm, {}, 10, True)
    assert type(averaging) is Averaging
    before = weights_of(algorithm)
    averaging.update()
    assert averaging.at_checkpoint(0, lambda step: 1 / 0) == {}
    with averaging.applied():
        assert equal(weights_of(algorithm), before)
    assert averaging.state_dict() == {}


def test_the_options_are_listed_with_their_defaults():
    listed = options(None)
    defaults = {"weight_averaging": "none", "sma_start": 600, "swad_n_s": 3, "swad_n_e": 6, "swad_r": 0.3}
    assert {name: listed[name]["default"] for name in defaults} == defaults


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"weight_averaging": "swa"}, "weight_averaging must be one of none, sma, swad, not 'swa'"),
        ({"sma_start": 0}, "hyper-parameter sma_start must be at least 1, not 0"),
        ({"swad_n_s": 0}, "hyper-parameter swad_n_s must be at least 1, not 0"),
        ({"swad_n_e": 1.5}, "hyper-parameter swad_n_e takes a value of type int"),
        ({"swad_r": -0.1}, "hyper-parameter swad_r must be at least 0, not -0.1"),
    ],
)
def test_values_that_make_no_sense_are_refused_at_the_door(hparams, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(dataset="Debug28", hparams=json.dumps(hparams)).check()


def test_swad_needs_validation_parts():
    config = TrainConfig(dataset="Debug28", holdout_fraction=0.0, hparams='{"weight_averaging": "swad"}')
    with pytest.raises(UsageError, match="increase --holdout_fraction, or use"):
        build(config)
