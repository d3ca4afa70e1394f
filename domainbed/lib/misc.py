"""Upstream's helpers under upstream's names; each has its home elsewhere."""

from domainbed.lib.accuracy import accuracy
from domainbed.lib.debugger import pdb
from domainbed.lib.densities import (
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
from domainbed.lib.lars import LARS
from domainbed.lib.moving_average import MovingAverage
from domainbed.lib.pairing import random_pairs_of_minibatches, split_meta_train_test
from domainbed.lib.printing import print_row, print_separator
from domainbed.lib.projection import distance, proj
from domainbed.lib.seeds import seed_hash
from domainbed.lib.splitting import _SplitDataset, make_weights_for_balanced_classes, split_dataset
from domainbed.lib.supervised_contrastive import SupConLossLambda
from domainbed.lib.tee import Tee
from domainbed.lib.tensor_dicts import ParamDict, l2_between_dicts
from domainbed.lib.weight_average import ErmPlusPlusMovingAvg

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
