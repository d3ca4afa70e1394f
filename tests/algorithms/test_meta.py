"""ARM: groups of images share a context. MLDG is tested in test_families."""

import pytest
import torch

from domainbed.algorithms.meta import ARM
from domainbed.errors import UsageError
from domainbed.hparams_registry import default_hparams

SHAPE = (2, 8, 8)


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("ARM", "Debug28") | {"featurizer": "mnist_cnn", "batch_size": 4} | overrides
    return ARM(SHAPE, 3, 2, hparams)


@torch.no_grad()
def test_a_prediction_depends_only_on_the_images_of_its_group():
    arm = make().eval()
    x = torch.randn(8, *SHAPE)
    other = torch.cat([x[:4], torch.randn(4, *SHAPE)])
    torch.testing.assert_close(arm.predict(x)[:4], arm.predict(other)[:4])
    torch.testing.assert_close(arm.predict(x), torch.cat([arm.predict(x[:4]), arm.predict(x[4:])]))
    shuffled = arm.predict(x[[2, 0, 3, 1, 4, 5, 6, 7]])
    torch.testing.assert_close(shuffled[[1, 3, 0, 2, 4, 5, 6, 7]], arm.predict(x))


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 3, 6, 7])
def test_a_batch_that_is_not_a_multiple_of_the_group_size_is_one_group(n):
    arm = make().eval()
    x = torch.randn(n, *SHAPE)
    context = arm.context_net(x).mean(0, keepdim=True).expand(n, -1, -1, -1)
    torch.testing.assert_close(arm.predict(x), arm.network(torch.cat([x, context], 1)))


@pytest.mark.parametrize("train", [False, True])
def test_the_context_network_is_trained_with_the_switch_only(train):
    arm = make(arm_train_context=train)
    before = [p.detach().clone() for p in arm.context_net.parameters()]
    data = [(torch.randn(4, *SHAPE), torch.randint(3, (4,))) for _ in range(2)]
    arm.update(data)
    after = list(arm.context_net.parameters())
    assert all(map(torch.equal, before, after)) != train
    assert all((p.grad is not None) == train for p in after)


def test_inputs_other_than_images_are_rejected():
    hparams = default_hparams("ARM", "Debug28") | {"featurizer": "mlp"}
    with pytest.raises(UsageError, match=r"ARM takes images .* not inputs of shape \(5,\)"):
        ARM((5,), 3, 2, hparams)


def test_the_default_group_size_of_large_images_is_eight():
    assert default_hparams("ARM", "PACS")["batch_size"] == 8
    assert default_hparams("ARM", "DomainNet")["batch_size"] == 8
    assert default_hparams("ARM", "RotatedMNIST")["batch_size"] == 64
