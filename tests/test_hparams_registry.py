"""Values of hyper-parameters; `python tests/test_hparams_registry.py` adds new algorithms to the table.

The table of random values (tests/data/random_hparams.json) holds them for every release to come: rows are
added to it, and never changed.
"""

import json
from pathlib import Path

import pytest

from domainbed import hparams_registry
from domainbed.algorithms import ALGORITHMS, UPSTREAM
from domainbed.datasets import DATASETS
from domainbed.hparams import Kind, resolve

IMPLEMENTED = list(ALGORITHMS)
OURS = {"SANDMask": {"tau": 0.5}}  # upstream's 1.0 trains nothing
REMOVED = {"Aggregation": {"cagrad_c", "gradvac_beta"}}  # it no longer is CAGrad or GradVac by name
TABLE = Path(__file__).parent / "data" / "random_hparams.json"


@pytest.mark.parametrize("algorithm", UPSTREAM)
def test_values_equal_upstreams(algorithm, vectors):
    """Defaults in upstream's order, and the random values of two seeds, on five datasets."""
    for dataset, expected in vectors("hparams")[algorithm].items():
        default = hparams_registry.default_hparams(algorithm, dataset)
        assert default == expected["default"] | OURS.get(algorithm, {})
        assert list(default) == list(expected["default"])
        for seed, changed in expected["random"].items():
            values = hparams_registry.random_hparams(algorithm, dataset, int(seed))
            assert values == expected["default"] | changed
            assert list(values) == list(default)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in UPSTREAM])
def test_entries_shared_with_erm_have_the_same_values(algorithm):
    """Entries that the algorithm declares anew, such as another optimizer's learning rate, may differ."""
    own = hparams_registry.random_hparams(algorithm, "PACS", 1)
    erm = hparams_registry.random_hparams("ERM", "PACS", 1)
    declared, common = hparams_registry.table(algorithm), hparams_registry.table("ERM")
    shared = [name for name in erm if declared[name] is common[name]]
    assert len(shared) >= len(erm) - 3
    assert {name: own[name] for name in shared} == {name: erm[name] for name in shared}


def random_values(algorithm, dataset, seed):
    """The random values that differ from the default ones: a row of the table."""
    default = hparams_registry.default_hparams(algorithm, dataset)
    values = hparams_registry.random_hparams(algorithm, dataset, seed)
    return {name: value for name, value in values.items() if value != default[name]}


def test_random_values_equal_those_of_earlier_releases(vectors):
    table = vectors("random_hparams")
    assert set(UPSTREAM) <= table.keys()
    for algorithm, rows in table.items():
        for dataset, seeds in rows.items():
            for seed, values in seeds.items():
                kept = {name: values[name] for name in values if name not in REMOVED.get(algorithm, ())}
                assert random_values(algorithm, dataset, int(seed)) == kept, (algorithm, dataset, seed)


def test_order_of_entries():
    names = list(hparams_registry.default_hparams("IRM", "PACS"))
    assert names[:2] == ["data_augmentation", "resnet18"]
    assert names[13:] == ["irm_lambda", "irm_penalty_anneal_iters", "lr", "weight_decay", "batch_size"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_random_values_are_reproducible(dataset):
    for algorithm in IMPLEMENTED:
        assert hparams_registry.random_hparams(algorithm, dataset, 0) == hparams_registry.random_hparams(
            algorithm, dataset, 0
        )


def test_unknown_names_have_the_common_entries_as_upstream():
    assert hparams_registry.default_hparams("NoSuch", "NoSuch") == hparams_registry.default_hparams(
        "ERM", "PACS"
    )


def kinds(algorithm):
    table = {**hparams_registry.table(algorithm), **hparams_registry.switches(algorithm)}
    return {name: resolve(declaration, "PACS").kind for name, declaration in table.items()}


def test_kinds_of_an_algorithms_hyperparameters():
    sandmask, erm, ermplusplus = kinds("SANDMask"), kinds("ERM"), kinds("ERMPlusPlus")
    assert {sandmask[name] for name in ("lr", "weight_decay", "vit_dropout", "tau", "k")} == {Kind.SEARCHED}
    assert {sandmask[name] for name in ("resnet18", "class_balanced")} == {Kind.DESIGN}
    assert {sandmask[name] for name in ("passes", "rules")} == {Kind.INCIDENTAL}
    assert {erm[name] for name in ("lars", "linear_steps")} == {Kind.INCIDENTAL}
    assert {ermplusplus[name] for name in ("lars", "linear_steps")} == {Kind.DESIGN}


def test_defaults_for_small_images():
    assert hparams_registry.default_hparams("ERM", "EmojiStyles")["lr"] == 1e-3
    assert hparams_registry.default_hparams("ERM", "Debug28")["batch_size"] == 64
    assert hparams_registry.default_hparams("ERM", "Debug224")["batch_size"] == 32


def test_all_values_are_plain_python():
    for algorithm in IMPLEMENTED:
        for seed in range(3):
            for default, value in hparams_registry._hparams(algorithm, "PACS", seed).values():
                assert type(default) in (bool, int, float, str)
                assert type(value) in (bool, int, float, str)


if __name__ == "__main__":
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    for name in IMPLEMENTED:
        for dataset in ("RotatedMNIST", "PACS", "OfficeHome", "TerraIncognita", "DomainNet"):
            row = table.setdefault(name, {}).setdefault(dataset, {})
            for seed in (1, 2, 785910682):
                row.setdefault(str(seed), random_values(name, dataset, seed))
    lines = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in table.items()]
    TABLE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
