"""Runs with averaged weights: what they evaluate, record and save."""

import json

import pytest
import torch
import torch.nn.functional as F

import domainbed
from domainbed.errors import UsageError
from domainbed.hparams import Kind
from domainbed.training import loop
from domainbed.training.api import train
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.loss_valley import PublicLossValley
from domainbed.training.model_file import load_model
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.run_settings import Kinds, Run

CHANGING = ("step_time", "mem_gb", "args", "hparams")


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


def run(tmp_path, name="run", dataset="Debug28", steps=9, checkpoint_freq=2, algorithm="ERM", **hparams):
    """Train; returns the weights after each update, and the run."""
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


def test_sma_saves_and_evaluates_the_mean_of_the_weights(tmp_path):
    states, built = run(tmp_path, weight_averaging="sma", sma_start=4)
    # Averaged are the weights after updates 3, 4, ..., as in ERM++. Step s is update s + 1.
    assert_close(saved(tmp_path), mean_of(states[2:]))
    assert_close(saved(tmp_path, "model_step4.pkl"), mean_of(states[2:5]))
    assert equal(saved(tmp_path, "model_step2.pkl"), states[2])
    assert equal(saved(tmp_path, "model_step0.pkl"), states[0])
    # Training continues with the current weights.
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


def test_swad_in_an_endless_valley_averages_the_means_between_checkpoints(tmp_path):
    endless = {"weight_averaging": "swad", "swad_n_s": 1, "swad_r": 1e6}
    states, _ = run(tmp_path, steps=8, swad_counting="equal", **endless)
    # Checkpoints at steps 0, 2, 4, 6 and 7.
    segments = [mean_of(states[a:b]) for a, b in ((0, 1), (1, 3), (3, 5), (5, 7), (7, 8))]
    assert_close(saved(tmp_path), mean_of(segments))
    assert_close(saved(tmp_path, "model_step4.pkl"), mean_of(segments[:3]))
    assert [(r["swad_start"], r["swad_end"]) for r in records(tmp_path)] == [(0, s) for s in (0, 2, 4, 6, 7)]
    # The public code counts the first checkpoint again at each of the next n_e - n_s.
    again, _ = run(tmp_path, "public", steps=8, swad_n_e=3, **endless)
    assert all(equal(a, b) for a, b in zip(states, again, strict=True))
    assert_close(saved(tmp_path, name="public"), mean_of([segments[0], *segments]))
    assert_close(saved(tmp_path, "model_step2.pkl", "public"), mean_of([segments[0], segments[1]]))


def test_the_counting_of_swad_is_always_recorded(tmp_path):
    for given, recorded in (({}, "public"), ({"swad_counting": "equal"}, "equal")):
        config = TrainConfig(
            dataset="Debug28",
            steps=1,
            hparams=json.dumps({"featurizer": "mlp", "weight_averaging": "swad"} | given),
            output_dir=str(tmp_path / recorded),
            skip_model_save=True,
            device="cpu",
        )
        train(config)
        (line,) = (tmp_path / recorded / "results.jsonl").read_text().splitlines()
        assert json.loads(line)["hparams"]["swad_counting"] == recorded
    config = TrainConfig(dataset="Debug28", hparams='{"weight_averaging": "sma"}')
    assert "swad_counting" not in resolved_hparams(config)


def test_a_record_without_the_counting_has_equal_weights():
    def swad(**hparams):
        args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "trial_seed": 0}
        return Run(args, {"weight_averaging": "swad", **hparams}, [])

    runs = [swad(), swad(swad_counting="equal"), swad(swad_counting="public")]
    assert Kinds().differing(runs)[Kind.DESIGN] == {"swad_counting": ["equal", "equal", "public"]}


def test_swad_uses_the_loss_of_the_current_weights_on_the_sources_validation_parts(tmp_path, monkeypatch):
    judged = []
    see = PublicLossValley.add
    monkeypatch.setattr(
        PublicLossValley, "add", lambda self, step, loss: judged.append((step, loss)) or see(self, step, loss)
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


def test_swad_saves_the_last_weights_before_a_valley_is_found(tmp_path):
    states, _ = run(tmp_path, weight_averaging="swad", swad_n_s=50)
    assert equal(saved(tmp_path), states[-1])
    assert all("swad_start" not in record for record in records(tmp_path))


@pytest.mark.parametrize("algorithm", ["ERM", "AgrRand", "DGSAM", "GroupDRO"])
def test_averaging_does_not_affect_training(algorithm, tmp_path):
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


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"weight_averaging": "swa"}, "weight_averaging must be one of none, sma, swad, not 'swa'"),
        ({"weight_averaging": "sma", "sma_start": 0}, "hyper-parameter sma_start must be at least 1, not 0"),
        ({"weight_averaging": "swad", "swad_n_s": 0}, "hyper-parameter swad_n_s must be at least 1, not 0"),
        ({"weight_averaging": "swad", "swad_n_e": 1.5}, "hyper-parameter swad_n_e takes a value of type int"),
        ({"weight_averaging": "swad", "swad_r": -0.1}, "hyper-parameter swad_r must be at least 0, not -0.1"),
    ],
)
def test_invalid_options_are_refused(hparams, message):
    with pytest.raises(UsageError, match=message):
        check_config(TrainConfig(dataset="Debug28", hparams=json.dumps(hparams)))


def test_swad_needs_validation_images():
    config = TrainConfig(dataset="Debug28", holdout_fraction=0.0, hparams='{"weight_averaging": "swad"}')
    with pytest.raises(UsageError, match="increase --holdout_fraction, or use"):
        build(config)
