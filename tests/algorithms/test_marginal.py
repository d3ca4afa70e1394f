import pytest
import torch
import torch.nn.functional as F

from domainbed.algorithms.marginal import MTL
from domainbed.hparams_registry import default_hparams


def make(**overrides):
    torch.manual_seed(0)
    hparams = default_hparams("MTL", "Debug28") | {"featurizer": "mlp", "mlp_width": 8} | overrides
    return MTL((5,), 3, 2, hparams)


def minibatches():
    torch.manual_seed(1)
    return [(torch.randn(n, 5), torch.randint(3, (n,))) for n in (6, 4)]


def test_embeddings_are_moving_averages_of_mean_features():
    mtl, data = make(mtl_ema=0.75), minibatches()
    first, second = (mtl.featurizer(x).mean(0).detach() for x, _ in data)
    mtl.predict(data[0][0], 0)
    torch.testing.assert_close(mtl.embeddings, torch.stack([0.75 * first, torch.zeros(8)]))
    mtl.predict(data[1][0], 0)
    torch.testing.assert_close(mtl.embeddings[0], 0.75 * second + 0.25 * 0.75 * first)
    before = mtl.embeddings.clone()
    mtl.predict(data[0][0])
    assert torch.equal(mtl.embeddings, before)


@pytest.mark.parametrize("embedding", [False, True])
def test_noise_replaces_the_embedding_without_the_switch(embedding):
    mtl, (x, _) = make(mtl_embedding=embedding).eval(), minibatches()[0]
    state = torch.get_rng_state()
    first, second = mtl.predict(x), mtl.predict(x)
    assert torch.equal(first, second) == embedding
    assert torch.equal(torch.get_rng_state(), state) == embedding
    features = mtl.featurizer(x)
    torch.set_rng_state(state)
    noise = [torch.randn(6, 8) for _ in range(2)][1]
    beside = features.mean(0).expand(6, 8) if embedding else noise
    torch.testing.assert_close(second, mtl.classifier(torch.cat([features, beside], 1)))


@pytest.mark.parametrize("embedding", [False, True])
def test_gradients_reach_the_featurizer_through_the_embedding(embedding):
    """The classifier ignores the features themselves here."""
    mtl, (x, y) = make(mtl_embedding=embedding), minibatches()[0]
    with torch.no_grad():
        mtl.classifier.weight[:, :8] = 0
    F.cross_entropy(mtl.predict(x, 0), y).backward()
    assert (mtl.featurizer.output.weight.grad.abs().sum() > 0) == embedding


def test_the_loss_is_the_sum_over_environments():
    mtl, data = make(mtl_embedding=True, mtl_ema=1.0), minibatches()
    losses = [F.cross_entropy(mtl.predict(x), y).item() for x, y in data]
    assert mtl.update(data)["loss"] == pytest.approx(sum(losses))
