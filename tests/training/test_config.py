import pytest

from domainbed.errors import UnknownName
from domainbed.training.config import TrainConfig


def test_records_have_upstreams_sixteen_arguments_and_no_settings_of_execution():
    recorded = TrainConfig().recorded()
    assert {
        *(
            "algorithm",
            "checkpoint_freq",
            "data_dir",
            "dataset",
            "holdout_fraction",
            "hparams",
            "hparams_seed",
        ),
        *(
            "output_dir",
            "save_model_every_checkpoint",
            "seed",
            "skip_model_save",
            "steps",
            "task",
            "test_envs",
        ),
        *("trial_seed", "uda_holdout_fraction"),
    } <= recorded.keys()
    assert not {"device", "num_workers", "restart"} & recorded.keys()
    with pytest.raises(UnknownName):
        TrainConfig(algorithm="x").algorithm_class()
