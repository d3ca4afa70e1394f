"""Fixtures of real images in folders, and of short runs with and without the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import domainbed
from domainbed.datasets.emoji_styles import EmojiStyles

WriteTree = Callable[[Path, Mapping[str, Mapping[str, int]]], None]


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Twelve emoji of 64x64 pixels, RGB."""
    images = EmojiStyles(None, [], {}).datasets[1].images[:240:20]
    return [Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in images]


@pytest.fixture
def assert_cache_changes_nothing(tmp_path: Path) -> Callable[..., None]:
    """`check(dataset, data_dir, **hparams)` asserts that five steps with and without the cache are equal.

    Datasets that are `in_memory` must not use the cache.
    """

    def check(
        dataset: str, data_dir: Path | None = None, in_memory: bool = False, **hparams: bool | int | str
    ) -> None:
        small = {"featurizer": "mlp", "mlp_width": 8, "batch_size": 3}
        if not in_memory:
            small["input_size"] = 32
        settings = {"dataset": dataset, "data_dir": data_dir, "steps": 5, "checkpoint_freq": 4}
        settings |= {"num_workers": 0, "skip_model_save": True, "hparams": small | hparams}
        runs = []
        for cache_dir in (tmp_path / "decoded", "none"):
            run = domainbed.train(**settings, cache_dir=cache_dir)
            # Only a run that decodes all images at its start knows the hashes of their files.
            decodes = cache_dir != "none" and not in_memory and hparams.get("augmentation") != "pil"
            assert ("data.contents" in run) is decodes
            run = run.drop(columns="data.contents", errors="ignore")
            runs.append(run.drop(columns=["step_time", "mem_gb", "args.output_dir"]))
        assert bool(list((tmp_path / "decoded").glob("*.images"))) is not in_memory
        assert runs[0]["step"].tolist() == [0, 4]
        assert runs[0]["loss"].between(0, 100).all()
        pd.testing.assert_frame_equal(*runs, check_exact=True)

    return check


@pytest.fixture
def write_tree(pictures: list[Image.Image]) -> WriteTree:
    """`write_tree(root, {environment: {class: n}})` writes n images per class; every third is a JPEG."""

    def write(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
        number = 0
        for environment, classes in counts.items():
            (root / environment).mkdir(parents=True)
            for name, n in classes.items():
                folder = root / environment / name
                folder.mkdir()
                for i in range(n):
                    picture = pictures[number % len(pictures)]
                    picture.save(folder / (f"{i}.jpg" if number % 3 == 2 else f"{i}.png"))
                    number += 1

    return write
