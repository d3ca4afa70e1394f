"""The networks and minibatches that steps are measured on, and rivals written as plain textbook code."""

import torch
import torch.nn.functional as F

from domainbed.algorithms import get_algorithm_class
from domainbed.hparams_registry import default_hparams

K, CLASSES = 3, 7

CASES = {
    "AlexNet 3x16 @224": ((3, 224, 224), 16, "PACS", {"featurizer": "alexnet", "pretrained": False}),
    "ResNet-18 (frozen BN) 3x8 @224": (
        (3, 224, 224),
        8,
        "PACS",
        {"featurizer": "resnet18", "resnet50_augmix": False, "pretrained": False, "freeze_bn": True},
    ),
    "MNIST_CNN 3x64 @28": ((1, 28, 28), 64, "RotatedMNIST", {}),
    "small CNN 3x32 @64": ((3, 64, 64), 32, "EmojiStyles", {}),
}
"""Name -> input shape, B, dataset whose hyper-parameters are taken, and what differs from its defaults."""


def minibatches(case, device="cpu", k=K, batch_size=None):
    shape, b = CASES[case][:2]
    draws = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(batch_size or b, *shape, generator=draws).to(device),
            torch.randint(CLASSES, (batch_size or b,), generator=draws).to(device),
        )
        for _ in range(k)
    ]


def algorithm(name, case, device="cpu", k=K, own=None):
    shape, _, dataset, overrides = CASES[case]
    torch.manual_seed(0)
    hparams = default_hparams(name, dataset) | overrides | (own or {})
    return get_algorithm_class(name)(shape, CLASSES, k, hparams).to(device)


def plain_erm(network, batches):
    """The loop of any tutorial: Adam as it comes, gradients set to None."""
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def stacked_agr_sum(network, batches):
    """Agr-Sum as its authors lay it out: a list of gradients, stacked copies of them and of their signs."""
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=5e-5)

    def step():
        gradients = []
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            gradients.append(torch.cat([p.grad.clone().flatten() for p in parameters]))
        signs = torch.stack([g.sign() for g in gradients])
        agree = signs.sum(0).abs() == len(gradients)
        combined = torch.where(agree, torch.stack(gradients).sum(0), 0.0)
        start = 0
        for parameter in parameters:
            parameter.grad = combined[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()
        optimizer.step()

    return step


def retained_mask(network, batches):
    """AND-mask by one concatenated forward pass and a retained backward pass for each environment."""
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=5e-5)
    x = torch.cat([x for x, _ in batches])

    def step():
        logits = network(x).split([len(y) for _, y in batches])
        losses = [F.cross_entropy(z, y) for z, (_, y) in zip(logits, batches, strict=True)]
        gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
        for parameter, *own in zip(parameters, *gradients, strict=True):
            stack = torch.stack(own)
            mask = (stack.sign().mean(0).abs() >= 1).float()
            parameter.grad = mask * stack.mean(0) / (1e-10 + mask.mean())
        optimizer.step()

    return step
