"""Augmentation of decoded images, compared with torchvision's."""

import numpy as np
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import functional

from domainbed.datasets.image_transforms import IMAGENET_MEAN, IMAGENET_STD, AugmentingTransform
from domainbed.images.augmentation import augment_batch, augment_one_by_one, draw
from domainbed.seeds import generator

SIDE = 32


def tensors(pictures):
    return [torch.from_numpy(np.array(picture)) for picture in pictures]


def levels(inputs):
    """Inputs scaled back to values from 0 to 255."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return 255 * (inputs * std + mean)


def test_probabilities_and_ranges_are_upstreams():
    draws = draw(np.random.default_rng(0), 8000)
    assert abs(draws.flips.mean() - 0.5) < 0.02
    assert abs(draws.greys.mean() - 0.1) < 0.012
    for number, (low, high) in enumerate([(0.7, 1.3)] * 3 + [(-0.3, 0.3)]):
        assert kstest(draws.factors[:, number], "uniform", args=(low, high - low)).pvalue > 1e-3
    counts = np.bincount(draws.orders @ (64, 16, 4, 1))
    assert len(counts[counts > 0]) == 24
    assert chisquare(counts[counts > 0]).pvalue > 1e-3
    everything = np.column_stack([draws.flips, draws.factors, draws.orders, draws.greys, draws.crops[:, 0]])
    together = np.corrcoef(everything.T) - np.eye(14)
    together[5:9, 5:9] = 0  # positions within one order are dependent
    assert np.abs(together).max() < 0.05


def test_draws_of_an_image_do_not_depend_on_the_number_of_images_after_it():
    few, many = draw(generator(1, 2), 3), draw(generator(1, 2), 7)
    for name in ("crops", "flips", "factors", "orders", "greys"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:3])


def test_results_equal_torchvisions_for_the_same_draws(pictures):
    draws = draw(np.random.default_rng(3), 8)
    from domainbed.images.crops import boxes

    found = levels(augment_one_by_one(tensors(pictures), draws, SIDE, crop=True))
    places = boxes(draws.crops, np.array([picture.size[::-1] for picture in pictures]))
    away = []
    for i, picture in enumerate(pictures):
        image = functional.resized_crop(picture, *places[i].tolist(), [SIDE, SIDE])
        image = functional.hflip(image) if draws.flips[i] else image
        for number in draws.orders[i]:
            change = ("brightness", "contrast", "saturation", "hue")[number]
            image = getattr(functional, f"adjust_{change}")(image, draws.factors[i, number])
        image = functional.rgb_to_grayscale(image, 3) if draws.greys[i] else image
        away.append((found[i] - torch.from_numpy(np.array(image)).permute(2, 0, 1)).abs())
    assert (torch.stack(away) < 2.01).float().mean() > 0.98
    assert torch.stack(away).mean() < 0.2


def test_results_have_the_same_distribution_as_torchvisions(pictures):
    """Mean, contrast, colourfulness and left-right difference of one image, with 400 draws each."""
    torch.manual_seed(0)
    picture = pictures[3]
    by_pil = AugmentingTransform({"input_size": SIDE})
    theirs = levels(torch.stack([by_pil(picture) for _ in range(400)]))
    draws = draw(np.random.default_rng(0), 400)
    ours = levels(augment_one_by_one(tensors([picture]) * 400, draws, SIDE, crop=True))
    measures = {
        "mean": lambda x: x.mean((1, 2, 3)),
        "contrast": lambda x: x.mean(1).std((1, 2)),
        "colours": lambda x: x.std(1).mean((1, 2)),
        "red": lambda x: x[:, 0].mean((1, 2)) - x.mean((1, 2, 3)),
        "side": lambda x: x[..., : SIDE // 2].mean((1, 2, 3)) - x[..., SIDE // 2 :].mean((1, 2, 3)),
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours).numpy(), measure(theirs).numpy()).pvalue > 1e-3, name


def test_one_by_one_and_batched_augmentation_are_equal_up_to_rounding(pictures):
    images = [picture.resize((40 + 3 * i, 60 - 2 * i)) for i, picture in enumerate(pictures)]
    sizes = np.array([image.size[::-1] for image in images])
    draws = draw(np.random.default_rng(5), 8)
    assert draws.greys.any()
    assert draws.flips.any()
    padded = torch.zeros((8, *sizes.max(axis=0).tolist(), 3), dtype=torch.uint8)
    for i, image in enumerate(tensors(images)):
        padded[i, : sizes[i, 0], : sizes[i, 1]] = image
    each = augment_one_by_one(tensors(images), draws, SIDE, crop=True)
    away = (levels(each) - levels(augment_batch(padded, sizes, draws, SIDE, crop=True))).abs()
    assert (away < 2.01).float().mean() > 0.97
    assert away.mean() < 0.3


def test_without_a_crop_the_whole_image_is_kept(pictures):
    square = [picture.resize((SIDE, SIDE)) for picture in pictures]
    draws = draw(np.random.default_rng(1), 8)
    nothing = type(draws)(
        draws.crops, draws.flips, draws.factors * 0 + (1, 1, 1, 0), draws.orders, draws.greys & False
    )
    found = levels(augment_one_by_one(tensors(square), nothing, SIDE, crop=False))
    for i, image in enumerate(tensors(square)):
        whole = image.permute(2, 0, 1).float()
        expected = whole.flip(2) if draws.flips[i] else whole
        assert (found[i] - expected).abs().max() < 6.01  # the hue is rounded even if its factor is 0
        assert (found[i] - expected).abs().mean() < 2
