"""Image transforms, compared with PIL and torchvision."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from domainbed.datasets.image_transforms import AugmentingTransform, PlainTransform, input_shape
from domainbed.errors import UsageError
from domainbed.hparams import OPTIONS, override

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FINISH = [transforms.ToTensor(), transforms.Normalize(MEAN.tolist(), STD.tolist())]
RANDOM = [
    transforms.RandomHorizontalFlip(p=0.5),
    transforms.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.3),
    transforms.RandomGrayscale(p=0.1),
]


def normalised(image):
    return ((np.asarray(image) / 255 - MEAN) / STD).transpose(2, 0, 1)


def resized(image, side):
    return image.resize((side, side), Image.Resampling.BILINEAR)


def as_jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG")
    return Image.open(file)


@pytest.mark.parametrize(
    ("hparams", "prepare"),
    [
        ({}, lambda image: resized(image, 224)),
        ({"input_size": 32}, lambda image: resized(image, 32)),
        ({"stored_size": 227}, lambda image: resized(resized(image, 227), 224)),
        ({"stored_size": 227, "reencode": True}, lambda image: resized(as_jpeg(resized(image, 227)), 224)),
        ({"stored_size": 227, "input_size": 227}, lambda image: resized(image, 227)),
        ({"reencode": True, "input_size": 64}, as_jpeg),
    ],
)
def test_plain_images_are_resized_and_normalised(pictures, hparams, prepare):
    wide = pictures[0].crop((0, 10, 64, 50))
    image = wide if hparams.get("input_size") != 64 else pictures[0]
    x = PlainTransform(hparams)(image)
    assert x.dtype == torch.float32
    assert tuple(x.shape) == input_shape(hparams)
    np.testing.assert_allclose(x.numpy(), normalised(prepare(image)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        ({}, [transforms.RandomResizedCrop(48, scale=(0.7, 1.0))]),
        ({"resize": True}, [transforms.Resize((48, 48)), transforms.RandomResizedCrop(48, scale=(0.7, 1.0))]),
        ({"resize": True, "crop": False}, [transforms.Resize((48, 48))]),
    ],
)
def test_augmentation_makes_upstreams_draws_in_upstreams_order(pictures, arguments, before):
    expected = transforms.Compose([*before, *RANDOM, *FINISH])
    augment = AugmentingTransform({"input_size": 48}, **arguments)
    for seed, picture in enumerate(pictures):
        torch.manual_seed(seed)
        x = augment(picture)
        torch.manual_seed(seed)
        assert torch.equal(x, expected(picture))


def test_augmentation_changes_images(pictures):
    torch.manual_seed(0)
    augment = AugmentingTransform({"input_size": 32})
    assert not torch.equal(augment(pictures[0]), augment(pictures[0]))


def test_stored_size_is_applied_before_augmentation(pictures):
    torch.manual_seed(0)
    x = AugmentingTransform({"input_size": 32, "stored_size": 8})(pictures[0])
    torch.manual_seed(0)
    assert torch.equal(x, AugmentingTransform({"input_size": 32})(resized(pictures[0], 8)))


@pytest.mark.parametrize(
    ("name", "value"), [("input_size", 0), ("input_size", -1), ("stored_size", -1), ("stored_size", 1.5)]
)
def test_invalid_sizes_are_refused(name, value):
    with pytest.raises(UsageError, match=f"hyper-parameter {name} "):
        PlainTransform({name: value})


def test_augmentation_uses_tensors_or_pil():
    assert AugmentingTransform({}).by_tensors
    assert not AugmentingTransform({"augmentation": "pil"}).by_tensors
    with pytest.raises(UsageError, match="augmentation must be one of tensor, pil, not 'opencv'"):
        AugmentingTransform({"augmentation": "opencv"})


def test_options_can_be_given_on_the_command_line():
    hparams = {}
    given = {"input_size": 96, "stored_size": 227, "reencode": True, "augment_evaluation": False}
    override(hparams, given, OPTIONS, "PACS")
    assert hparams == given
    assert OPTIONS["augment_evaluation"].default is True
