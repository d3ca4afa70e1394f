"""Runs that choose an optimizer and a schedule: what they record, resume, and refuse."""

import itertools
import json

import pytest
import torch

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.model_file import load_model
from domainbed.training.run import build
from domainbed.training.run_hparams import resolved_hparams

SMALL = {"featurizer": "mlp", "mlp_width": 4, "batch_size": 4}
CHOICE = {
    "optimizer": "SGD",
    "momentum": 0.5,
    "optimizer_options": "nesterov=True",
    "schedule": "cosine",
    "warmup_steps": 2,
    "lr": 0.01,
}


def config(hparams, algorithm="ERM", **settings):
    return TrainConfig(
        dataset="Debug28", algorithm=algorithm, hparams=json.dumps(SMALL | hparams), **{"steps": 7} | settings
    )


def train(path, **settings):
    fixed = {"dataset": "Debug28", "steps": 7, "checkpoint_freq": 2, "hparams": SMALL | CHOICE}
    return domainbed.train(**fixed | settings, output_dir=path, checkpoint_every=0)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("algorithm", ["ERM", "AgrSum", "DANN"])
def test_an_interrupted_run_with_a_schedule_ends_with_the_same_numbers(tmp_path, monkeypatch, algorithm):
    train(tmp_path / "straight", algorithm=algorithm)
    update, count = REGISTRY[algorithm].update, []

    def stopping(self, *args):
        count.append(None)
        if len(count) == 5:
            raise Stopped
        return update(self, *args)

    monkeypatch.setattr(REGISTRY[algorithm], "update", stopping)
    with pytest.raises(Stopped):
        train(tmp_path / "run", algorithm=algorithm)
    train(tmp_path / "run", algorithm=algorithm)
    assert len(count) == 5 + 3  # resumed after four updates
    straight, resumed = (load_model(tmp_path / name / "model.pkl") for name in ("straight", "run"))
    assert all(map(torch.equal, straight.state_dict().values(), resumed.state_dict().values()))


def test_records_have_the_choice_and_rates_follow_the_schedule(tmp_path, monkeypatch):
    update, rates = ERM.update, []

    def recording(self, *args):
        rates.append(self.optimizer.param_groups[0]["lr"])
        return update(self, *args)

    monkeypatch.setattr(ERM, "update", recording)
    train(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert all(CHOICE.items() <= record["hparams"].items() for record in records)
    assert rates[:3] == [0.005, 0.01, 0.01]
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[2:]))


def test_without_a_choice_no_record_mentions_optimizers(tmp_path):
    train(tmp_path / "run", hparams=SMALL)
    record = json.loads((tmp_path / "run" / "results.jsonl").read_text().splitlines()[0])
    assert not CHOICE.keys() - {"lr"} & record["hparams"].keys()


@pytest.mark.parametrize(
    ("algorithm", "hparams", "message"),
    [
        ("GENIE", {"optimizer": "SGD"}, "because GENIE is an optimizer itself; leave it out"),
        ("GENIE", {"optimizer_options": "eps=1e-3"}, "because GENIE is an optimizer itself"),
        ("ERM", {"momentum": 0.5}, "because 'optimizer' is 'Adam'"),
        ("ERMPlusPlus", {"optimizer": "AdamW", "lars": True}, "because 'lars' is true"),
        ("DANN", {"optimizer": "SGD", "beta1": 0.5}, "because 'optimizer' is 'SGD'"),
        ("CDANN", {"optimizer_options": "betas=(0.0, 0.9)", "beta1": 0.5}, "'optimizer_options' sets betas"),
        ("AgrSum", {"optimizer": "AdamW", "wd": "coupled"}, "'AdamW', whose weight decay is decoupled"),
        ("AgrSum", {"optimizer": "SGD", "wd": "decoupled"}, "wd decoupled makes AdamW of Adam"),
        ("ERM", {"optimizer": "sgd"}, "optimizer must be one of Adam, AdamW, SGD"),
        ("ERM", {"optimizer_options": "nesterov=True"}, "optimizer Adam has no option 'nesterov'"),
        ("ERM", {"schedule": "step"}, "schedule must be one of none, cosine"),
        ("ERM", {"warmup_steps": 7}, "warmup_steps must be less than the run's 7 updates, not 7"),
    ],
)
def test_a_choice_without_effect_or_meaning_is_an_error_before_anything_is_built(algorithm, hparams, message):
    with pytest.raises(UsageError) as error:
        check_config(config(hparams, algorithm))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("algorithm", "hparams"),
    [
        ("GENIE", {"lr": 0.1, "schedule": "cosine"}),
        ("ERMPlusPlus", {"lars": True, "schedule": "cosine"}),
        ("DANN", {"optimizer": "AdamW", "beta1": 0.5}),
        ("AgrSum", {"optimizer": "SGD", "wd": "masked"}),
        ("Transfer", {"optimizer": "SGD", "gda": True}),
    ],
)
def test_choices_with_an_effect_are_accepted(algorithm, hparams):
    check_config(config(hparams, algorithm))
    build(config(hparams, algorithm))


def test_a_plugins_method_that_ignores_the_choice_is_an_error():
    @REGISTRY.register("own_optimizer")
    class Own(ERM):
        def new_optimizer(self, lr=None):
            return torch.optim.Adam(self.network.parameters(), lr=0.1)

    try:
        build(config({"optimizer": "Adam", "schedule": "cosine"}, "own_optimizer"))
        for hparams in ({"optimizer": "AdamW"}, {"optimizer_options": "amsgrad=True"}):
            with pytest.raises(UsageError, match="because Own builds its optimizers itself; leave"):
                build(config(hparams, "own_optimizer"))
    finally:
        del REGISTRY["own_optimizer"]


def test_a_sweep_of_methods_with_and_without_a_choice_leaves_it_out_where_it_has_no_effect():
    typed = {"optimizer": "SGD", "momentum": 0.5, "lr": 0.1}
    for algorithm, kept in (("ERM", True), ("GENIE", False)):
        found = resolved_hparams(config(typed, algorithm, shared_hparams=True))
        assert ("optimizer" in found, "momentum" in found, found["lr"]) == (kept, kept, 0.1)
