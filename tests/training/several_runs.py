"""A program for torchrun: train the runs in a JSON file of settings, one after the other.

A run with `float64` in its settings computes in double precision. The error of a refused run is written to
NAME-refused.txt beside its directory.
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
from domainbed.training.config_checks import from_settings
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


def train_run(settings):
    """Train one run, in double precision if its settings have `float64`."""
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
            train_run(settings)
        except DomainBedError as error:
            Path(settings["output_dir"] + "-refused.txt").write_text(f"{type(error).__name__}: {error}")
        except SystemExit as exited:
            if exited.code != 2 or os.environ["RANK"] == "0":
                raise
    distributed.destroy_process_group()
    exit_immediately()


if __name__ == "__main__":
    main()
