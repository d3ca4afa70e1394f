"""Upstream's helpers under upstream's names; each has its home elsewhere."""

from domainbed.lib.accuracy import accuracy
from domainbed.lib.debugger import pdb
from domainbed.lib.pairing import random_pairs_of_minibatches, split_meta_train_test
from domainbed.lib.printing import print_row, print_separator
from domainbed.lib.seeds import seed_hash
from domainbed.lib.splitting import _SplitDataset, make_weights_for_balanced_classes, split_dataset
from domainbed.lib.tee import Tee

__all__ = [
    "Tee",
    "_SplitDataset",
    "accuracy",
    "make_weights_for_balanced_classes",
    "pdb",
    "print_row",
    "print_separator",
    "random_pairs_of_minibatches",
    "seed_hash",
    "split_dataset",
    "split_meta_train_test",
]
