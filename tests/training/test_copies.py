"""Copies of an image are in one part of a split, except in runs that began before this rule."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import domainbed
from domainbed.datasets.splitting import SplitDataset
from domainbed.training.config import TrainConfig
from domainbed.training.copies import began_without, split_copies
from domainbed.training.run import build
from domainbed.training.run_description import describe
from domainbed.training.split_file import positions
from domainbed.training.splits import SplitRequest

SETTINGS = {"hparams": '{"input_size": 16, "featurizer": "mlp", "mlp_width": 4}', "steps": 1}


@pytest.fixture
def folder(tmp_path):
    """Two environments of two classes; each class has three images, each of them in four copies."""
    for number, place in enumerate(("ink/cat", "ink/dog", "oil/cat", "oil/dog")):
        inside = tmp_path / "paintings" / place
        inside.mkdir(parents=True)
        for image in range(3):
            Image.effect_noise((20 + number, 20 + image), 90).save(inside / f"{image}-0.png")
            for copy in (1, 2, 3):
                shutil.copy(inside / f"{image}-0.png", inside / f"{image}-{copy}.png")
    return tmp_path / "paintings"


class Images:
    def __init__(self, firsts):
        self.datasets = [range(len(firsts))]
        self.copies = [np.array(firsts, dtype=np.int64)]
        self.summary = {"copies": {"images": sum(first != i for i, first in enumerate(firsts))}}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["in", "out", "uda"])), min_size=1, max_size=12),
    st.randoms(),
)
def test_no_two_parts_share_an_image(images, rng):
    contents = [content for content, _ in images]
    firsts = [contents.index(content) for content in contents]
    keys = {kind: [i for i, (_, part) in enumerate(images) if part == kind] for kind in ("in", "out", "uda")}
    for inside in keys.values():
        rng.shuffle(inside)
    dataset = Images(firsts)
    before = {kind: SplitDataset(dataset.datasets[0], inside) for kind, inside in keys.items()}
    (after,) = split_copies(dataset, [before], SplitRequest((0,), 0, 0.2, 0.0), Path("nowhere"))
    found = {kind: positions(part) for kind, part in after.items()}
    assert sorted(key for inside in found.values() for key in inside) == list(range(len(images)))
    inside = [{contents[key] for key in part} for part in found.values()]
    assert sum(map(len, inside)) == len(set().union(*inside))
    for kind, part in keys.items():
        stay = [key for key in found[kind] if key in part]
        assert stay == [key for key in part if key in stay]  # in their order
        assert {key for key in part if firsts[key] == key} <= set(found[kind])
    if len(set(contents)) == len(contents):
        assert found == keys


def test_splits_of_a_dataset_without_copies_and_those_of_the_user_stay_as_they_are():
    parts = [{"in": SplitDataset(range(2), [0]), "out": SplitDataset(range(2), [1])}]
    assert split_copies(Images([0, 1]), parts, SplitRequest((0,), 0, 0.2, 0.0), Path("nowhere")) == parts
    request = SplitRequest((0,), 0, 0.2, 0.0, scheme="file")
    assert split_copies(Images([0, 0]), parts, request, Path("nowhere")) == parts


def contents_by_part(run):
    """For each environment and part, the contents of its images."""
    contents = []
    for environment, parts in zip(run.dataset.datasets, run.splits, strict=True):
        images = [Path(path).read_bytes() for path in environment.paths()]
        contents.append({kind: {images[key] for key in positions(part)} for kind, part in parts.items()})
    return contents


@pytest.mark.parametrize("splits", ["holdout", "60/20/20"])
def test_training_and_validation_share_no_image_of_a_users_folder(folder, tmp_path, splits):
    config = {"dataset": str(folder), "splits": splits, "output_dir": str(tmp_path / "run"), **SETTINGS}
    run = build(TrainConfig(**config, trial_seed=1))
    for parts in contents_by_part(run):
        assert not parts["in"] & parts["out"]
    assert run.dataset.summary["copies"] == {"images": 36, "other_class": 0, "split": "together"}
    line = "\t36 images have the same contents as an earlier one of their environment; copies are in the same"
    assert line in "\n".join(describe(run))


def test_the_rule_is_recorded(folder):
    records = domainbed.train(dataset=str(folder), trial_seed=1, **SETTINGS)
    assert records["data.copies"].tolist() == [{"images": 36, "other_class": 0, "split": "together"}]
    assert records["args.duplicates"].tolist() == ["keep"]


@pytest.mark.parametrize("where", ["run", "other"])
def test_a_run_and_a_sweep_that_began_before_keep_their_splits(folder, tmp_path, where):
    config = {"dataset": str(folder), "output_dir": str(tmp_path / "sweep/run"), "trial_seed": 1, **SETTINGS}
    (tmp_path / "sweep" / where).mkdir(parents=True)
    settings = TrainConfig(**config).compared()
    del settings["duplicates"]
    (tmp_path / "sweep" / where / "run.json").write_text(json.dumps({"settings": settings}))
    if where == "other":  # a folder beside the run, which is no sweep
        assert build(TrainConfig(**config)).dataset.summary["copies"]["split"] == "together"
        (tmp_path / "sweep/sweep.json").write_text("{}")
    run = build(TrainConfig(**config))
    assert run.dataset.summary["copies"]["split"] == "apart"
    assert any(parts["in"] & parts["out"] for parts in contents_by_part(run))
    assert [len(parts["out"]) for parts in run.splits] == [4, 4]


def test_a_run_that_began_with_the_rule_has_it(tmp_path):
    (tmp_path / "run").mkdir()
    assert not began_without("duplicates", tmp_path / "run")
    (tmp_path / "run/run.json").write_text(json.dumps({"settings": {"duplicates": "keep"}}))
    assert not began_without("duplicates", tmp_path / "run")
    (tmp_path / "run/run.json").write_text(json.dumps({"settings": {}}))
    assert began_without("duplicates", tmp_path / "run")
