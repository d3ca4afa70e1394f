"""The kinds of settings and hyper-parameters in records."""

import pytest

from domainbed import algorithms, hparams_registry
from domainbed.hparams import Kind, resolve
from domainbed.training.run_settings import SEARCHED_BY_ALL, Kinds, Run, as_text, overrides_of

ARGS = {"dataset": "PACS", "algorithm": "ERM"}


def test_what_is_searched_for_every_algorithm_is_declared_so():
    declared = {
        (dataset, algorithm, name): resolve(declaration, dataset).kind
        for dataset in ("PACS", "RotatedMNIST", "DomainNet")
        for algorithm in algorithms.ALGORITHMS
        for name, declaration in hparams_registry.table(algorithm).items()
        if name in SEARCHED_BY_ALL
    }
    assert {name for _, _, name in declared} == SEARCHED_BY_ALL
    assert [key for key, kind in declared.items() if kind is not Kind.SEARCHED] == []


@pytest.mark.parametrize(
    ("algorithm", "name", "kind"),
    [
        ("ERM", "freeze_bn", Kind.DESIGN),
        ("ERM", "featurizer", Kind.DESIGN),
        ("ERM", "input_size", Kind.DESIGN),
        ("ERM", "layout", Kind.INCIDENTAL),
        ("ERM", "preset", Kind.INCIDENTAL),
        ("AgrSum/pooled", "passes", Kind.INCIDENTAL),
        ("IRM", "irm_lambda", Kind.SEARCHED),
        ("ERM", "irm_lambda", Kind.SEARCHED),  # a hyper-parameter that nothing declares
        ("ERM", "data.checksum", Kind.DESIGN),
        ("ERM", "data.skipped.hidden", Kind.INCIDENTAL),
        ("ERM", "weights.sha256", Kind.DESIGN),
        ("ERM", "replaced.algorithm", Kind.DESIGN),
    ],
)
def test_kinds(algorithm, name, kind):
    args = ARGS | {"algorithm": algorithm}
    if "." in name:
        runs = [Run(args, {}, [], {name: value}) for value in ("a", "b")]
    else:
        runs = [Run(args, {name: value}, []) for value in ("a", "b")]
    differing = Kinds().differing(runs)
    assert {each for each, names in differing.items() if names} == {kind}
    assert differing[kind] == {name: ["a", "b"]}


def test_values_of_records_that_are_older_than_a_setting():
    kinds, run = Kinds(), Run(ARGS, {}, [])
    before = {"evaluate": "all", "freeze_bn": True, "resnet50_augmix": False, "data.copies.split": "apart"}
    assert {name: kinds.value(name, run) for name in before} == before
    assert kinds.value("data.checksum", run) is None
    assert kinds.value("steps", run) == 5001


def test_texts():
    assert [as_text(value) for value in (300, 0.1, True, None, "70/10/20")] == [
        "300",
        "0.1",
        "true",
        "none",
        "70/10/20",
    ]
    assert overrides_of({"hparams": '{"lr": 1}'}) == {"lr": 1}
    assert overrides_of({"hparams": "{"}) == overrides_of({"hparams": "[1]"}) == overrides_of({}) == {}
