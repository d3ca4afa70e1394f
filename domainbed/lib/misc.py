"""Upstream's import path of its helper functions and classes."""

from domainbed.algorithms.densities import (
    EPS,
    Distribution1D,
    GaussianKernel,
    Kernel,
    KernelDensityEstimator,
    Nonparametric,
    Normal,
    continuous_bisect_fun_left,
    estimate_bandwidth,
)
from domainbed.algorithms.ermplusplus import LARS, ErmPlusPlusMovingAvg
from domainbed.algorithms.fishr import MovingAverage, l2_between_dicts
from domainbed.algorithms.gradient_matching import ParamDict
from domainbed.algorithms.minibatch_pairs import random_pairs_of_minibatches, split_meta_train_test
from domainbed.algorithms.supervised_contrastive import SupConLossLambda
from domainbed.algorithms.transfer import distance, proj
from domainbed.console import Tee, pdb, print_row, print_separator
from domainbed.datasets.splitting import SplitDataset as _SplitDataset
from domainbed.datasets.splitting import make_weights_for_balanced_classes, split_dataset
from domainbed.seeds import seed_hash
from domainbed.training.evaluation import accuracy

__all__ = [
    "EPS",
    "LARS",
    "Distribution1D",
    "ErmPlusPlusMovingAvg",
    "GaussianKernel",
    "Kernel",
    "KernelDensityEstimator",
    "MovingAverage",
    "Nonparametric",
    "Normal",
    "ParamDict",
    "SupConLossLambda",
    "Tee",
    "_SplitDataset",
    "accuracy",
    "continuous_bisect_fun_left",
    "distance",
    "estimate_bandwidth",
    "l2_between_dicts",
    "make_weights_for_balanced_classes",
    "pdb",
    "print_row",
    "print_separator",
    "proj",
    "random_pairs_of_minibatches",
    "seed_hash",
    "split_dataset",
    "split_meta_train_test",
]
