"""Which split schemes split differently in each trial."""

from __future__ import annotations

import pytest

from domainbed.datasets import get_dataset_class
from domainbed.datasets.contract import build
from domainbed.training.config import TrainConfig
from domainbed.training.derived import split_request
from domainbed.training.split_file import positions, write
from domainbed.training.splits import SCHEMES, by_trial, make_splits, varies_by_trial


@pytest.fixture(scope="module")
def emoji():
    return build(get_dataset_class("EmojiStyles"), None, [0], {})


@pytest.mark.parametrize(
    ("splits", "varies"),
    [
        ("holdout", True),
        ("whole", False),
        ("list", False),
        ("70/10/20", False),
        ("70/10/20:unstratified:one_stream", False),
        ("70/10/20:per_trial", True),
        ("stratified:60/20/20:unstratified:per_trial", True),
        ("splits.json", False),
        ("file:splits-{dataset}-{test_envs}.json", False),
        ("splits-{trial_seed}.json", True),
        ("file:C:/splits/{trial_seed}.json", True),
        ("no_such_scheme", None),
    ],
)
def test_which_schemes_split_differently_in_each_trial(splits, varies):
    assert varies_by_trial(splits) is varies


@pytest.mark.parametrize(
    "splits", ["holdout", "whole", "70/10/20", "70/10/20:per_trial", "{trial_seed}.json", "0.json"]
)
def test_the_declaration_is_true(splits, emoji, tmp_path):
    for seed in (0, 1):
        request = split_request(TrainConfig(dataset="EmojiStyles", trial_seed=seed))
        write(tmp_path / f"{seed}.json", emoji, make_splits(emoji, request))
    path = f"{tmp_path}/{splits}" if splits.endswith(".json") else splits
    configs = [TrainConfig(dataset="EmojiStyles", splits=path, trial_seed=seed) for seed in (0, 1)]
    first, second = (
        [positions(parts["in"]) for parts in make_splits(emoji, split_request(config))] for config in configs
    )
    assert varies_by_trial(path) == (first != second)


def test_a_scheme_of_a_plugin_declares_it_or_not(monkeypatch):
    def alternate(dataset, request):
        """Every other sample is for validation."""

    monkeypatch.setitem(SCHEMES, "undeclared", alternate)
    assert varies_by_trial("undeclared") is None
    monkeypatch.setitem(SCHEMES, "declared", by_trial(False)(lambda dataset, request: []))
    assert varies_by_trial("declared") is False
    monkeypatch.setitem(
        SCHEMES, "odd", by_trial(lambda options: "odd" in options)(lambda dataset, request: [])
    )
    assert varies_by_trial("odd:odd") is True
    assert varies_by_trial("odd") is False
