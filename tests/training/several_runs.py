"""Runs one after the other, whose settings a JSON file has: a program for torchrun.

A run whose settings have `float64` computes in that precision. A run that is refused leaves its error in
refused.txt beside its directory.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed
from torch.utils.data import TensorDataset

from domainbed import datasets
from domainbed.datasets.debug import Debug
from domainbed.errors import DomainBedError
from domainbed.training.api import train
from domainbed.training.config import from_settings
from domainbed.training.torchrun import exit_immediately


class Uneven(Debug):
    """Five environments, some of which have fewer samples than a minibatch."""

    ENVIRONMENTS = tuple("abcde")
    INPUT_SHAPE = (3, 32, 32)

    def __init__(self, root, test_envs, hparams):
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 3
        sizes = (16, 40, 12, 30, 9)
        self.datasets = [
            TensorDataset(torch.randn(size, *self.input_shape), torch.arange(size) % 3) for size in sizes
        ]


def carry_out(settings):
    """One run, in float64 where its settings say so."""
    settings = dict(settings)
    torch.set_default_dtype(torch.float64 if settings.pop("float64", False) else torch.float32)
    try:
        train(from_settings(settings))
    finally:
        torch.set_default_dtype(torch.float32)


def main():
    datasets.Uneven = Uneven
    distributed.init_process_group("gloo")
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        try:
            carry_out(settings)
        except DomainBedError as error:
            Path(settings["output_dir"] + "-refused.txt").write_text(f"{type(error).__name__}: {error}")
        except SystemExit as left:
            if left.code != 2 or os.environ["RANK"] == "0":
                raise
    distributed.destroy_process_group()
    exit_immediately()


if __name__ == "__main__":
    main()
