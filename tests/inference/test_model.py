"""`domainbed.load`: what a loaded model takes, and what it returns."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbed
from domainbed.algorithms import REGISTRY
from domainbed.errors import RunError, UsageError
from domainbed.hparams_registry import default_hparams
from domainbed.inference import exported
from domainbed.inference.features import FeatureRecorder
from domainbed.inference.loading import load_models
from domainbed.training.model_file import SavedModel


@pytest.fixture(scope="module")
def model(plain_run):
    return domainbed.load(plain_run)


@pytest.fixture(scope="module")
def paths(album):
    """The pictures of one environment that are RGB."""
    return sorted(str(path) for path in album.glob("oil/*/[048].png"))


def test_names_labels_and_probabilities(model, paths):
    found = model.predict(paths)
    assert model.classes == found.classes == ("cat", "dog")
    assert found.labels.shape == (len(paths),)
    assert found.labels.dtype == np.int64
    assert found.probabilities.shape == (len(paths), 2)
    assert found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)
    assert found.names == [("cat", "dog")[label] for label in found.probabilities.argmax(1)]
    assert found.features is None


def test_one_image_in_every_form_gives_one_answer(model, paths):
    image = Image.open(paths[0])
    image.load()
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels.copy())
    forms = [
        *(paths[0], Path(paths[0]), image, pixels, tensor.permute(2, 0, 1)),
        *(pixels[None], tensor.permute(2, 0, 1)[None], model.transform(paths[0])),
        *(model.transform(image)[None], model.transform(pixels).numpy(), iter([paths[0]])),
    ]
    expected = model.predict([paths[0]])
    for form in forms:
        found = model.predict(form)
        assert found.labels.shape == (1,)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_images_of_other_modes_are_read_as_files_of_them(model, paths, tmp_path, mode):
    with Image.open(paths[0]) as rgb:
        image = rgb.convert(mode)
    image.save(tmp_path / f"it.{'tif' if mode == 'CMYK' else 'png'}")
    (file,) = tmp_path.iterdir()
    assert model.transform(image).equal(model.transform(file))


def test_grey_arrays(model):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    grey = model.transform(pixels)
    assert grey.equal(model.transform(pixels[..., None]))
    assert grey.equal(model.transform(np.stack([pixels] * 3, axis=2)))
    assert grey.equal(model.transform(torch.from_numpy(pixels)))
    assert grey.equal(model.transform(torch.from_numpy(pixels)[None]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (3, "an image is a path, a PIL image, an array or a tensor, not int"),
        (np.zeros((8, 8, 3), np.int64), r"pixels are int64 of shape \(8, 8, 3\); pass uint8"),
        (np.zeros((8, 8, 5), np.uint8), "with 1, 3 or 4 channels"),
        (torch.zeros(3, 8, 8), r"inputs of the network, of shape \(3, 32, 32\), not \(3, 8, 8\)"),
    ],
)
def test_what_is_no_image_is_refused(model, image, message):
    with pytest.raises(UsageError, match=message):
        model.predict([image])


def test_no_images_and_folders_are_refused(model, album):
    with pytest.raises(UsageError, match="there are no images to predict"):
        model.predict([])
    with pytest.raises(RunError, match=r"oil cannot be read \(IsADirectoryError"):
        model.predict(album / "oil")


def test_several_models_average_their_probabilities(train, plain_run, model, paths):
    other = train("other", seed=1, hparams={"input_size": 24}, steps=2)
    each = [domainbed.load(run).predict(paths) for run in (plain_run, other)]
    both = domainbed.load(plain_run, other)
    found = both.predict(paths)
    expected = (each[0].probabilities.astype(float) + each[1].probabilities) / 2
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)
    assert found.labels.tolist() == expected.argmax(1).tolist()
    with pytest.raises(UsageError, match="different preprocessing"):
        both.transform  # noqa: B018
    assert [member.transform(paths[0]).shape[1] for member in both.members] == [32, 24]
    with pytest.raises(UsageError, match="floats cannot be inputs of all"):
        both.predict(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UsageError, match="features are those of one model"):
        both.predict(paths, features=True)
    same = domainbed.load(plain_run, plain_run).predict(paths)
    np.testing.assert_allclose(same.probabilities, each[0].probabilities, rtol=1e-6)


def test_models_of_different_classes_are_not_averaged(plain_run, tmp_path):
    domainbed.train(
        dataset="RotatedDigits", steps=1, hparams={"batch_size": 8}, output_dir=str(tmp_path / "d")
    )
    with pytest.raises(UsageError, match="different classes cannot be averaged: cat, dog and 0, 1, 2"):
        domainbed.load(plain_run, tmp_path / "d")


def test_features_are_those_that_the_classifier_gets(model, paths):
    found = model.predict(paths, features=True, batch_size=3)
    algorithm = model.members[0].algorithm
    assert found.features.shape == (len(paths), algorithm.featurizer.n_outputs)
    logits = algorithm.classifier(torch.from_numpy(found.features))
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), found.probabilities, rtol=1e-4)


def test_the_size_of_batches_does_not_matter(model, paths):
    whole, single = model.predict(paths), model.predict(paths, batch_size=1)
    np.testing.assert_allclose(single.probabilities, whole.probabilities, rtol=1e-4)


def test_neither_loading_nor_predicting_changes_generators_or_settings(plain_run, paths):
    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before, grad = state(), torch.is_grad_enabled()
    domainbed.load(plain_run).predict(paths)
    assert state() == before
    assert torch.is_grad_enabled() is grad


@pytest.mark.parametrize("name", REGISTRY)
def test_every_algorithm_has_features_and_is_exported(name, tmp_path, identical):
    """Those with several networks call one featurizer to predict. States are tensors, some of them shared.

    What only updates need, such as LFME's experts, is left out.
    """
    hparams = default_hparams(name, "Debug28")
    algorithm = REGISTRY[name]((3, 28, 28), 2, 3, hparams).eval()
    with torch.no_grad(), FeatureRecorder(algorithm) as recorder:
        algorithm.predict(torch.ones(6, 3, 28, 28))
    assert len(recorder.features(6)) == 6
    pytest.importorskip("safetensors")
    args = {"algorithm": name, "dataset": "Debug28"}
    saved = SavedModel(algorithm, args, (3, 28, 28), 2, 3, ("a", "b"), None, "0")
    exported.export(saved, tmp_path / "it.safetensors")
    again = exported.read_exported(tmp_path / "it.safetensors").algorithm
    assert type(again) is type(algorithm)
    own, other = (
        {
            key: each
            for key, each in model.state_dict().items()
            if key.partition(".")[0] not in model.UPDATES_ONLY
        }
        for model in (algorithm, again)
    )
    assert own
    assert identical(own, other)


def test_draws_of_an_algorithm_are_the_same_in_each_call(train, paths):
    model = load_models([train("mtl", algorithm="MTL", steps=2)])  # noise takes the place of its embedding
    np.testing.assert_array_equal(model.predict(paths).probabilities, model.predict(paths).probabilities)


def test_a_dataset_without_images_takes_inputs_only(tmp_path):
    domainbed.train(dataset="Debug28", steps=1, hparams={"batch_size": 4}, output_dir=str(tmp_path / "run"))
    model = domainbed.load(tmp_path / "run")
    assert model.classes == ("0", "1")
    assert model.predict(np.zeros((5, 3, 28, 28), np.float32)).labels.shape == (5,)
    with pytest.raises(
        UsageError, match=r"takes inputs of shape \(3, 28, 28\), and its file does not say how"
    ):
        model.predict(np.zeros((28, 28, 3), np.uint8))
