import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.algorithms.selfreg import SelfReg, same_class_partners
from domainbed.hparams_registry import default_hparams


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 100))
def test_partners_are_permutations_within_the_classes(labels, seed):
    y = torch.tensor(labels)
    torch.manual_seed(seed)
    order, *partners = same_class_partners(y)
    assert y[order].tolist() == sorted(labels)
    for partner in partners:
        assert partner.sort().values.tolist() == list(range(len(labels)))
        assert torch.equal(y[order][partner], y[order])


def test_two_permutations_are_drawn_for_each_class_in_order():
    torch.manual_seed(5)
    _, partners, others = same_class_partners(torch.tensor([7, 2, 2, 7, 2]))
    torch.manual_seed(5)
    expected = [torch.randperm(3), torch.randperm(3), 3 + torch.randperm(2), 3 + torch.randperm(2)]
    assert partners.tolist() == torch.cat(expected[::2]).tolist()
    assert others.tolist() == torch.cat(expected[1::2]).tolist()


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("SelfReg", "Debug28") | {"featurizer": "mlp", "mlp_width": 8} | overrides
    return SelfReg((5,), 3, 2, hparams)


def minibatches():
    torch.manual_seed(1)
    return [(torch.randn(n, 5), torch.randint(3, (n,))) for n in (6, 4)]


@pytest.mark.parametrize("train", [False, True])
def test_the_projection_is_trained_with_the_switch_only(train):
    algorithm = make(selfreg_train_projection=train)
    before = [p.detach().clone() for p in algorithm.cdpl.parameters()]
    algorithm.update(minibatches())
    after = list(algorithm.cdpl.parameters())
    assert all(map(torch.equal, before, after)) != train
    assert all((p.grad is not None) == train for p in after)


def test_samples_alone_in_their_class_are_only_pulled_toward_their_own_projection():
    """Each sample is its own partner, so the logits have no penalty."""
    algorithm = make()
    with torch.no_grad():
        for parameter in algorithm.cdpl[-1].parameters():
            parameter.zero_()  # projected features are 0
    x = torch.randn(3, 5)
    features = algorithm.featurizer(x).detach()
    ce = torch.nn.functional.cross_entropy(algorithm.predict(x), torch.tensor([2, 0, 1])).item()
    loss = algorithm.update([(x[:2], torch.tensor([2, 0])), (x[2:], torch.tensor([1]))])["loss"]
    assert loss == pytest.approx(ce + min(ce, 1) * 0.3 * (features**2).mean().item(), rel=1e-5)
