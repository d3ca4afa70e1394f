"""Upstream's import paths re-export the objects from the modules that define them."""

import importlib

import pytest

HOMES = {
    "misc": {
        "algorithms.densities": [
            "EPS",
            "Distribution1D",
            "GaussianKernel",
            "Kernel",
            "KernelDensityEstimator",
            "Nonparametric",
            "Normal",
            "continuous_bisect_fun_left",
            "estimate_bandwidth",
        ],
        "algorithms.ermplusplus": ["LARS", "ErmPlusPlusMovingAvg"],
        "algorithms.fishr": ["MovingAverage", "l2_between_dicts"],
        "algorithms.gradient_matching": ["ParamDict"],
        "algorithms.minibatch_pairs": ["random_pairs_of_minibatches", "split_meta_train_test"],
        "algorithms.supervised_contrastive": ["SupConLossLambda"],
        "algorithms.transfer": ["distance", "proj"],
        "console": ["Tee", "pdb", "print_row", "print_separator"],
        "datasets.splitting": ["_SplitDataset", "make_weights_for_balanced_classes", "split_dataset"],
        "seeds": ["seed_hash"],
        "training.evaluation": ["accuracy"],
    },
    "query": {"records.query": ["Q", "hashable", "make_selector_fn"]},
    "reporting": {"records.sweep_records": ["get_grouped_records", "load_records"]},
    "fast_data_loader": {
        "training.upstream_loaders": [
            "FastDataLoader",
            "InfiniteDataLoader",
            "InfiniteDataLoaderWithoutReplacement",
        ]
    },
    "wide_resnet": {"networks.wide_resnet": ["Wide_ResNet", "conv3x3", "conv_init", "wide_basic"]},
}

OUR_NAMES = {"_SplitDataset": "SplitDataset"}
"""Upstream's names that differ from ours."""


@pytest.mark.parametrize("face", HOMES)
def test_names_are_the_objects_of_their_modules(face):
    module = importlib.import_module(f"domainbed.lib.{face}")
    for home, names in HOMES[face].items():
        for name in names:
            thing = getattr(importlib.import_module(f"domainbed.{home}"), OUR_NAMES.get(name, name))
            assert getattr(module, name) is thing
    assert set(module.__all__) == {name for names in HOMES[face].values() for name in names}
