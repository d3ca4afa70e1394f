import numpy as np
import pytest

from domainbed.errors import UnknownName, UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config, from_settings

GOOD = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0]}


def test_valid_settings_pass():
    check_config(TrainConfig(**GOOD))
    check_config(TrainConfig(dataset="EmojiStyles", algorithm="PCGrad", splits="70/10/20", test_envs=[1, 3]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"algorithm": "AgrSun"}, "Algorithm not found: AgrSun"),
        ({"algorithm": "Tensor"}, "Algorithm not found: Tensor"),
        ({"dataset": "Debug82"}, "Dataset not found: Debug82"),
        ({"dataset": "PACS"}, "PACS needs --data_dir"),
        ({"test_envs": [3]}, "--test_envs 3 is out of range: Debug28 has environments 0 .0., 1 .1., 2 .2."),
        ({"test_envs": [-1]}, "out of range"),
        ({"test_envs": [1, 1]}, "names an environment twice"),
        ({"test_envs": [0, 1, 2]}, "holds out all environments"),
        ({"task": "generalization"}, "--task must be one of domain_generalization, domain_adaptation, not"),
        ({"task": "domain_adaptation"}, "give --uda_holdout_fraction"),
        ({"evaluate": "some"}, "--evaluate must be one of selection, reported, all, not"),
        ({"sampling": "none"}, "--sampling must be one of replacement, epochs, not"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"checkpoint_freq": -1}, "--checkpoint_freq must be at least 0, not -1"),
        ({"num_workers": -1}, "--num_workers must be at least 0, not -1"),
        ({"holdout_fraction": 1.0}, r"--holdout_fraction must be less than 1, not 1\.0"),
        ({"holdout_fraction": -0.1}, r"--holdout_fraction must be at least 0, not -0\.1"),
        ({"uda_holdout_fraction": 2}, "--uda_holdout_fraction must be less than 1, not 2"),
        ({"splits": "nosuch"}, "Split scheme not found: nosuch"),
        ({"splits": "70/10/20", "uda_holdout_fraction": 0.5}, "needs --splits holdout"),
        ({"hparams": '{"lr": "fast"}'}, "hyper-parameter lr takes a value of type float"),
        ({"hparams": '{"lrr": 1}'}, "unknown hyper-parameter 'lrr'"),
        ({"hparams": "{lr: 1}"}, "--hparams is not valid JSON"),
        ({"hparams": '{"featurizer": "alexnt"}'}, "Featurizer not found: alexnt"),
        ({"hparams": '{"batch_size": 0}'}, "batch_size must be at least 1, not 0"),
        ({"hparams": '{"lr": 0}'}, "lr must be more than 0, not 0"),
        ({"hparams": '{"lr": NaN}'}, "lr is a finite number"),
        ({"hparams": '{"weight_decay": -1}'}, "weight_decay must be at least 0, not -1"),
        (
            {"hparams": '{"class_balanced": true}', "sampling": "epochs"},
            "class_balanced draws with replacement",
        ),
        ({"seed": 2**63}, "--seed must be at most 9223372036854775807, not 9223372036854775808"),
        ({"trial_seed": -1}, "--trial_seed must be at least 0, not -1"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(bad, message):
    with pytest.raises(UsageError, match=message) as info:
        check_config(TrainConfig(**(GOOD | bad)))
    assert "\n" not in str(info.value)


def test_zero_checkpoint_freq_is_valid_as_in_upstream():
    check_config(TrainConfig(**GOOD, checkpoint_freq=0))


def test_settings_as_keyword_arguments():
    config = from_settings(GOOD | {"hparams": {"lr": 0.5}, "steps": 3})
    assert config.hparams == '{"lr": 0.5}'
    with pytest.raises(UsageError, match="unknown setting 'algoritm'") as info:
        from_settings({"algoritm": "ERM"})
    assert info.value.__notes__ == ["Did you mean algorithm?"]
    for name in ("lr", "learning_rate"):
        with pytest.raises(UsageError, match=f"unknown setting '{name}'") as info:
            from_settings({name: 0.1})
        assert info.value.__notes__ == ["Did you mean hparams={'lr': ...}?"]


def test_settings_may_be_numpy_scalars_or_paths(tmp_path):
    values = {
        "seed": np.int64(3),
        "test_envs": np.array([1, 2]),
        "output_dir": tmp_path,
        "hparams": {"lr": np.float32(0.5)},
    }
    config = from_settings(values | {"holdout_fraction": np.float64(0.25), "uda_holdout_fraction": 0})
    assert config == TrainConfig(
        seed=3, test_envs=[1, 2], output_dir=str(tmp_path), hparams='{"lr": 0.5}', holdout_fraction=0.25
    )
    assert type(config.seed) is int
    assert type(config.uda_holdout_fraction) is int


def test_target_environments_may_have_names_which_become_indices():
    named = from_settings({"dataset": "EmojiStyles", "test_envs": ["rendered", 0, "2"]})
    assert named == from_settings({"dataset": "EmojiStyles", "test_envs": [3, 0, 2]})
    assert named.recorded()["test_envs"] == [3, 0, 2]
    with pytest.raises(UsageError, match="--test_envs Lin: EmojiStyles has no such environment") as info:
        from_settings({"dataset": "EmojiStyles", "test_envs": ["Lin"]})
    assert info.value.__notes__ == ["Did you mean Line?"]
    with pytest.raises(UnknownName, match="Dataset not found: EmojiStyle"):
        from_settings({"dataset": "EmojiStyle", "test_envs": ["Line"]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": "2"},
        {"steps": 2.5},
        {"steps": True},
        {"test_envs": 1},
        {"test_envs": "Line"},
        {"test_envs": [0.5]},
        {"skip_model_save": "no"},
        {"algorithm": TrainConfig},
        {"hparams": {"lr": {1, 2}}},
        {"holdout_fraction": "a"},
    ],
)
def test_settings_of_a_wrong_type_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=f"setting {next(iter(wrong))} takes a value of type"):
        from_settings(wrong)
