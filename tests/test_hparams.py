import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from domainbed import hparams
from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, Hparam, Kind, const, option
from domainbed.hparams_registry import options

TABLE = {
    "lr": Hparam(0.1, const(0.1)),
    "depth": Hparam(3, const(3)),
    "balanced": Hparam(False, const(False)),
    "name": lambda dataset: Hparam("x", const("x")),
}


def apply(overrides):
    values = {}
    hparams.override(values, overrides, {**options(), **TABLE}, "PACS")
    return values


@pytest.mark.parametrize(
    "overrides",
    [{"lr": 0.5}, {"lr": 1}, {"depth": 4}, {"balanced": True}, {"name": "y"}, {"featurizer": "mlp"}],
)
def test_values_of_the_right_type_are_accepted(overrides):
    assert apply(overrides) == overrides


@pytest.mark.parametrize(
    "overrides",
    [{"lr": "fast"}, {"lr": True}, {"depth": 4.5}, {"balanced": 1}, {"name": 3}, {"lr": None}, {"lr": [1]}],
)
def test_values_of_a_wrong_type_are_refused_by_name(overrides):
    name = next(iter(overrides))
    with pytest.raises(UsageError, match=f"hyper-parameter {name} takes a value of type"):
        apply(overrides)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UsageError, match="unknown hyper-parameter 'dpeth'") as info:
        apply({"dpeth": 1})
    assert info.value.__notes__ == ["Did you mean depth or mlp_depth?"]


@pytest.mark.parametrize(
    ("name", "meant"), [("learning_rate", "lr"), ("Learning-Rate", "lr"), ("backbone", "featurizer")]
)
def test_what_others_call_a_hyper_parameter_suggests_ours(name, meant):
    with pytest.raises(UsageError, match=f"unknown hyper-parameter '{name}'") as info:
        apply({name: 1})
    assert info.value.__notes__ == [f"Did you mean {meant}?"]


@pytest.mark.parametrize("text", ["{lr: 1}", "[1]", "3", ""])
def test_hparams_must_be_a_json_object(text):
    with pytest.raises(UsageError, match="--hparams"):
        hparams.parse_overrides(text)


def test_draws_are_plain_python_values_for_json():
    draws = [
        hparams.uniform(0, 1),
        hparams.uniform_int(0, 9),
        hparams.log10_uniform(-2, 2),
        hparams.log10_int(0, 4),
        hparams.log2_int(3, 9),
        hparams.choice(0.0, 0.5),
        hparams.choice(1, 2),
    ]
    kinds = [float, int, float, int, int, float, int]
    for draw, kind in zip(draws, kinds, strict=True):
        value = Hparam(0, draw).draw(np.random.RandomState(0))
        assert type(value) is kind
        json.dumps(value)


@pytest.mark.parametrize(
    ("declaration", "kind"),
    [
        (Hparam(0.1, hparams.uniform(0, 1)), Kind.SEARCHED),
        (Hparam(0.1, const(0.1)), Kind.DESIGN),
        (Hparam(False, const(True)), Kind.SEARCHED),  # the default of seed 0 and another one for the rest
        (Hparam(0.1, lambda random_state: 0.1), Kind.SEARCHED),
        (Hparam("auto", const("auto"), kind=Kind.INCIDENTAL), Kind.INCIDENTAL),
    ],
)
def test_kind_follows_from_the_random_draw_unless_it_is_declared(declaration, kind):
    assert declaration.kind is kind
    assert dataclasses.replace(declaration, help="x").kind is kind


def test_an_option_is_checked_where_it_is_read():
    OPTIONS["an_option"] = Hparam(1, const(1), at_least=1)
    try:
        assert option({}, "an_option") == 1
        assert option({"an_option": 2}, "an_option") == 2
        with pytest.raises(UsageError, match="hyper-parameter an_option must be at least 1, not 0"):
            option({"an_option": 0}, "an_option")
    finally:
        del OPTIONS["an_option"]


def test_options_of_all_packages_are_found_after_one_import():
    """Each room declares its own: a process that imports the registry alone must see those of every room."""
    code = "from domainbed import hparams_registry; print(*hparams_registry.options())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"input_size", "copies", "featurizer", "preset"} <= set(shown.stdout.split())


def test_a_number_of_updates_is_scaled_with_the_length_of_the_run_and_other_values_are_not():
    count = Hparam(500, const(500), at_least=1, counts_updates=True)
    assert (count.scaled(500, 0.12), count.scaled(3001, 0.12), count.scaled(3, 0.12)) == (60, 360, 1)
    real = Hparam(2500, const(316.2), type=float, at_least=0, counts_updates=True)
    assert real.scaled(316.2, 0.5) == 158.1
    assert Hparam(64, const(64)).scaled(64, 0.12) == 64


def test_every_warm_up_of_an_algorithm_counts_updates():
    from domainbed.algorithms import REGISTRY
    from domainbed.hparams_registry import table

    found = set()
    for algorithm in REGISTRY:
        for name, declaration in table(algorithm).items():
            if re.search(r"iters$|warmup|linear_steps", name):
                found.add(name)
                assert hparams.resolve(declaration, "PACS").counts_updates, (algorithm, name)
    assert {"irm_penalty_anneal_iters", "penalty_anneal_iters", "iters", "stch_warmup"} <= found
