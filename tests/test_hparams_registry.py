import pytest

from domainbed import hparams_registry
from domainbed.algorithms import ALGORITHMS
from domainbed.datasets import DATASETS

IMPLEMENTED = list(ALGORITHMS)


@pytest.fixture(scope="module")
def reference(vectors):
    return vectors("hparams")


@pytest.mark.parametrize("algorithm", IMPLEMENTED)
def test_values_equal_upstreams(algorithm, reference):
    """Defaults in upstream's order, and the random values of two seeds, on five datasets."""
    if algorithm not in reference:
        # Ours: the entries that it shares with upstream's ERM have upstream's values.
        own = hparams_registry.random_hparams(algorithm, "PACS", 1)
        erm = hparams_registry.random_hparams("ERM", "PACS", 1)
        assert {name: own[name] for name in erm} == erm
        return
    for dataset, expected in reference[algorithm].items():
        default = hparams_registry.default_hparams(algorithm, dataset)
        assert default == expected["default"]
        for seed, changed in expected["random"].items():
            values = hparams_registry.random_hparams(algorithm, dataset, int(seed))
            assert values == expected["default"] | changed
            assert list(values) == list(default)


def test_order_of_entries():
    names = list(hparams_registry.default_hparams("IRM", "PACS"))
    assert names[:2] == ["data_augmentation", "resnet18"]
    assert names[13:] == ["irm_lambda", "irm_penalty_anneal_iters", "lr", "weight_decay", "batch_size"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_two_calls_agree(dataset):
    for algorithm in IMPLEMENTED:
        assert hparams_registry.random_hparams(algorithm, dataset, 0) == hparams_registry.random_hparams(
            algorithm, dataset, 0
        )


def test_unknown_names_have_the_common_entries_as_upstream():
    assert hparams_registry.default_hparams("NoSuch", "NoSuch") == hparams_registry.default_hparams(
        "ERM", "PACS"
    )


def test_small_images():
    assert hparams_registry.default_hparams("ERM", "EmojiStyles")["lr"] == 1e-3
    assert hparams_registry.default_hparams("ERM", "Debug28")["batch_size"] == 64
    assert hparams_registry.default_hparams("ERM", "Debug224")["batch_size"] == 32


def test_all_values_are_plain_python():
    for algorithm in IMPLEMENTED:
        for seed in range(3):
            for default, value in hparams_registry._hparams(algorithm, "PACS", seed).values():
                assert type(default) in (bool, int, float, str)
                assert type(value) in (bool, int, float, str)
