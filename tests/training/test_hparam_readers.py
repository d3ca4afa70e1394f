"""Hyper-parameters that no part of a run reads are refused, and the error names who would read them."""

from __future__ import annotations

import json

import pytest

from domainbed.algorithms.base import Algorithm
from domainbed.datasets import get_dataset_class
from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, HparamValues, Reader
from domainbed.hparams_registry import default_hparams
from domainbed.networks import FEATURIZERS, FeaturizerModule, featurizer_class
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.hparam_readers import declared_reads
from domainbed.training.run_hparams import unread_hparams


def config(hparams, **settings):
    return TrainConfig(**{"dataset": "Debug28", "hparams": json.dumps(hparams), **settings})


@pytest.mark.parametrize(
    ("hparams", "settings", "reason", "readers"),
    [
        (
            {"weights_file": "mine.pth"},
            {},
            "featurizer mnist_cnn does not read it",
            ["featurizer resnet,", "featurizer resnet18,", "featurizer dinov2"],
        ),
        (
            {"mlp_width": 64},
            {"dataset": "EmojiStyles"},
            "featurizer small_cnn does not read it",
            ["featurizer mlp,", "algorithm DANN", "algorithm CDANN"],
        ),
        ({"layout": "plain", "featurizer": "wide_resnet"}, {}, "featurizer wide_resnet", ["resnet18"]),
        ({"preset": "published"}, {}, "featurizer mnist_cnn does not read it", ["featurizer resnet"]),
        ({"irm_lambda": 1.0}, {}, "neither ERM nor the dataset nor the featurizer", ["algorithm IRM"]),
        ({"input_size": 32}, {}, "dataset Debug28 does not read it", ["dataset PACS"]),
        ({"lars": True}, {"algorithm": "IRM"}, "only ERMPlusPlus has this", ["algorithm ERMPlusPlus"]),
        ({"grey": True}, {"dataset": "EmojiStyles"}, "dataset EmojiStyles", ["dataset ColoredDigits"]),
        ({"sma_start": 3}, {}, "'weight_averaging' is 'none'", ["runs with 'weight_averaging': 'sma'"]),
        ({"swad_r": 0.2, "weight_averaging": "sma"}, {}, "'weight_averaging' is 'sma'", ["'swad'"]),
        (
            {"weights_file": "mine.pth", "featurizer": "resnet18", "pretrained": False},
            {},
            "'pretrained' is false",
            ["runs with 'pretrained': true"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_hyper_parameter_without_effect_is_an_error_that_names_its_readers(
    hparams, settings, reason, readers
):
    with pytest.raises(UsageError) as error:
        check_config(config(hparams, **settings))
    text = str(error.value)
    assert f"has no effect in this run, because {reason}" in text
    assert all(reader in text.partition("It is read by ")[2] for reader in readers), text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("hparams", "settings"),
    [
        ({"mlp_width": 64}, {"algorithm": "DANN"}),
        ({"mlp_width": 64, "featurizer": "mlp"}, {}),
        ({"mlp_width": 64}, {"dataset": "ColoredDigits", "test_envs": [0]}),
        ({"copies": 2, "grey": True}, {"dataset": "ColoredDigits"}),
        ({"weight_averaging": "swad", "swad_n_s": 1}, {}),
        ({"weights_file": "mine.pth", "featurizer": "alexnet"}, {"dataset": "Debug224"}),
        ({"weights": "a1_in1k", "featurizer": "timm:resnet18"}, {"dataset": "Debug224"}),
        ({"preset": "published", "layout": "plain"}, {"dataset": "Debug224"}),
        ({"pretrained": False, "augment_evaluation": False}, {}),
    ],
    ids=lambda value: "-".join(value),
)
def test_hyper_parameters_that_some_part_reads_are_accepted(hparams, settings):
    check_config(config(hparams, **settings))


def test_upstreams_shared_names_are_never_an_error():
    """A method need not read resnet18, class_balanced or lars (false), which upstream has for all of them."""
    shared = {name: default_hparams("ERM", "Debug28")[name] for name in Algorithm.hparams_table()}
    assert {"data_augmentation", "resnet18", "class_balanced", "vit_dropout", "lars"} <= shared.keys()
    for algorithm in ("ERM", "DANN", "IRM"):
        assert unread_hparams(config(shared, algorithm=algorithm)) == {}


def test_a_featurizer_of_a_plugin_may_read_any_option():
    @FEATURIZERS.register("own_network")
    class Own(FeaturizerModule):
        pass

    @FEATURIZERS.register("own_resnet")
    class OwnResNet(featurizer_class("resnet")):
        pass

    try:
        for name in ("own_network", "own_resnet"):  # a plugin's class may read more than it inherits
            assert unread_hparams(config({"featurizer": name, "mlp_width": 3, "layout": "plain"})) == {}
        OwnResNet.READS = ("layout",)
        found = unread_hparams(config({"featurizer": "own_resnet", "mlp_width": 3, "layout": "plain"}))
        assert found == {"mlp_width": "featurizer own_resnet does not read it"}
    finally:
        for name in ("own_network", "own_resnet"):
            del FEATURIZERS[name]


class Recording(HparamValues):
    """Hyper-parameters that record which names are looked up."""

    def __init__(self, values):
        super().__init__(values)
        self.seen = set()

    def __contains__(self, name):
        self.seen.add(name)
        return super().__contains__(name)

    def __or__(self, other):
        return self


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp", (7,)), ("mnist_cnn", (2, 28, 28)), ("small_cnn", (3, 64, 64)), ("wide_resnet", (3, 32, 32))],
)
def test_featurizers_read_what_they_declare(name, shape):
    hparams = Recording(default_hparams("ERM", "Debug28"))
    FEATURIZERS[name](shape, hparams)
    assert {each for each in hparams.seen if each in OPTIONS} == set(declared_reads(FEATURIZERS[name]))


@pytest.mark.parametrize("name", ["Debug28", "EmojiStyles", "ColoredDigits", "RotatedDigits"])
def test_datasets_read_what_they_declare(name):
    dataset_class = get_dataset_class(name)
    hparams = Recording(default_hparams("ERM", name))
    dataset_class(None, [0], hparams)
    options = {each for each in hparams.seen if each in OPTIONS and OPTIONS[each].reader is Reader.DATASET}
    assert options == set(declared_reads(dataset_class))


def test_a_run_that_an_earlier_release_began_goes_on_with_a_warning(tmp_path, caplog):
    begun = config({"mlp_width": 64}, output_dir=str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    check_config(begun)
    assert "hyper-parameter 'mlp_width' has no effect in this run" in caplog.text
    with pytest.raises(UsageError, match="'mlp_width' has no effect"):
        check_config(config({"mlp_width": 64}, output_dir=str(tmp_path), restart=True))


@pytest.mark.parametrize("text", ['{"lr": 0.1, "lr": 0.2}', '{"ERM": {"lr": 0.1, "lr": 0.1}}'])
def test_the_same_json_key_twice_is_refused(text):
    with pytest.raises(UsageError, match='--hparams: the key "lr" occurs twice; leave one out'):
        check_config(TrainConfig(dataset="Debug28", hparams=text))
