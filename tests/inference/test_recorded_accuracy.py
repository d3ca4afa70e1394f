"""Predictions for a run's own images have the accuracy that its record has."""

import csv
import json

import pytest

import domainbed
from domainbed.inference.loading import load_models
from domainbed.inference.predict import predict_files

# Batches of another size may round an image between two classes to the other one.
ONE_IMAGE = 1.01


def correct_on(run, *images, **options):
    """Group -> number of correct predictions."""
    done = predict_files(load_models([run]), images, **options)
    return {group: correct for group, (correct, _) in done.counts.correct.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"splits": "70/10/20"},
        {"hparams": {"data_augmentation": False}},
        {"hparams": {"stored_size": 40, "reencode": True}},
        {"hparams": {"augmentation": "pil"}, "cache_dir": "none", "num_workers": 0},
        {"hparams": {"weight_averaging": "sma", "sma_start": 2}},
        {"hparams": {"weight_averaging": "swad", "swad_n_s": 2, "swad_n_e": 2}, "checkpoint_freq": 1},
        {"algorithm": "ERMPlusPlus", "hparams": {"linear_steps": 2}},
        {"precision": "bf16"},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
)
def test_the_targets_images_have_the_recorded_accuracy(settings, train, album, recorded):
    run = train("own", **settings)
    expected = recorded(run, 1)
    assert correct_on(run, album / "oil") == {"oil": pytest.approx(expected, abs=ONE_IMAGE)}


def test_frozen_stages_whose_outputs_were_cached(train, album, recorded, tmp_path):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    torch.manual_seed(3)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.pth")
    hparams = {"featurizer": "timm:test_resnet", "weights_file": str(tmp_path / "mine.pth")}
    hparams |= {"freeze": "layer2", "data_augmentation": False}
    run = train("frozen", hparams=hparams, cache_dir=str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("*.outputs"))) == 3
    (tmp_path / "mine.pth").unlink()  # a model needs neither the weights that it began with nor the cache
    assert correct_on(run, album / "oil") == {"oil": pytest.approx(recorded(run, 1), abs=ONE_IMAGE)}


def test_each_part_of_a_list_has_the_recorded_accuracy(train, album, recorded, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "environment", "split"])
        for number, path in enumerate(sorted(album.glob("*/*/*"))):
            part = ("in", "in", "out", "test")[number % 4]
            rows.writerow([path, path.parent.name, path.parent.parent.name, part])
    run = train("listed", dataset=str(tmp_path / "list.csv"), splits="list", evaluate="all")
    found = correct_on(run, tmp_path / "list.csv")
    assert len(found) == 9
    for part in ("in", "out", "test"):
        assert found[f"oil {part}"] == pytest.approx(recorded(run, 1, part), abs=ONE_IMAGE)
    # Source environments were evaluated with augmentation, as upstream does, so only the target's are equal.


def test_sources_evaluated_without_augmentation_have_theirs_too(train, album, recorded):
    run = train("plainly", hparams={"augment_evaluation": False}, evaluate="all")
    found = correct_on(run, album)
    assert list(found) == ["ink", "oil", "photo"]
    for number, name in enumerate(found):
        assert found[name] == pytest.approx(recorded(run, number), abs=ONE_IMAGE)


def test_a_model_of_an_earlier_step_has_the_accuracy_of_that_step(train, album):
    run = train("steps", save_model_every_checkpoint=True)
    for line in (run / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        expected = sum(record[f"env1_{part}_acc"] * record["sizes"][f"env1_{part}"] for part in ("in", "out"))
        found = correct_on(run / f"model_step{record['step']}.pkl", album / "oil")
        assert found == {"oil": pytest.approx(expected, abs=ONE_IMAGE)}


def test_emoji_of_the_package_as_files(exported, tmp_path):
    """EmojiStyles has no files; its models read the exported ones, to the bit."""
    run, few = tmp_path / "run", exported["png"]
    domainbed.train(
        dataset="EmojiStyles", test_envs=[2], steps=3, hparams={"batch_size": 8}, output_dir=str(run)
    )
    model, emoji = domainbed.load(run), domainbed.datasets.get_dataset_class("EmojiStyles")(None, [], {})
    for environment, images in zip(emoji.ENVIRONMENTS, emoji.datasets, strict=True):
        for label, name in enumerate(emoji.class_names):
            first = (images.targets == label).nonzero()[:2, 0]
            files = sorted((few / environment / name).iterdir())
            for position, file in zip(first.tolist(), files, strict=True):
                assert model.transform(file).equal(images[position][0])


def test_rotated_digits_as_files(tmp_path):
    """Greyscale inputs: (1, 8, 8)."""
    from PIL import Image

    pytest.importorskip("sklearn")
    run = tmp_path / "run"
    domainbed.train(dataset="RotatedDigits", steps=2, hparams={"batch_size": 8}, output_dir=str(run))
    images, _ = domainbed.datasets.get_dataset_class("RotatedDigits").read()
    Image.fromarray(images[3].numpy()).save(tmp_path / "three.png")
    x = domainbed.load(run).transform(tmp_path / "three.png")
    assert x.equal(images[3].float().div(255)[None])
