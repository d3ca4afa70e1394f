"""Gram methods against TorchJD's, on well-behaved, scaled and rank-deficient matrices."""

import numpy as np
import pytest
import torch

from domainbed_gs import surgery

aggregation = pytest.importorskip("torchjd.aggregation")


def matrices(min_k=2, max_k=5):
    """Gradients (K, P): plain, norms far apart, large, small, of low rank, one repeated, one 0."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    for k in range(min_k, max_k + 1):
        for shift in (0.0, 1.0):
            g = normal(k, 30) + shift
            yield g
            yield g * torch.logspace(-2, 2, k, dtype=torch.float64)[:, None]
            yield from (g * 1e3, g * 1e-3)
            yield normal(k, k - 1) @ normal(k - 1, 30)
            yield normal(k, 1) @ normal(1, 30)
            yield torch.cat([g[:1], g[:-1]])
            yield torch.cat([torch.zeros_like(g[:1]), g[:-1]])


def check(ours, theirs, g, tolerance=1e-7):
    """Both directions, relative to the gradients."""
    gram = surgery.gram_matrix(list(g)).numpy()
    try:
        direction = surgery.combine(list(g), ours(gram))
    except surgery.NoDirection:
        return False
    scale = g.norm(dim=1).max()
    torch.testing.assert_close(direction / scale, theirs(g) / scale, rtol=0, atol=tolerance)
    return True


def test_imtlg():
    compared = [check(surgery.imtlg_weights, aggregation.IMTLG(), g, 1e-6) for g in matrices()]
    assert np.mean(compared) > 0.9


@pytest.mark.parametrize("mode", ["min", "median", "rmse"])
def test_aligned_mtl(mode):
    theirs = aggregation.AlignedMTL(scale_mode=mode)
    for g in matrices():
        assert check(lambda gram: surgery.aligned_mtl_weights(gram, mode), theirs, g)


def test_pcgrad_of_two():
    """Where the order is no choice."""
    for g in matrices(2, 2):
        assert check(lambda gram: surgery.pcgrad_weights(gram, [[1], [0]]), aggregation.PCGrad(), g)


def test_gradvac_of_two_over_several_updates():
    """Targets follow the cosines; gradients of one direction are left out, as our cosines end before 1."""
    theirs = aggregation.GradVac(beta=0.3, eps=0.0)
    targets = np.zeros((2, 2))
    sequence = [g for g in matrices(2, 2) if torch.linalg.matrix_rank(g, rtol=1e-6) == 2]
    assert len(sequence) >= 8
    for g in sequence * 2:
        gram = surgery.gram_matrix(list(g)).numpy()
        weights, targets = surgery.gradvac_weights(gram, [[1], [0]], targets, 0.3)
        scale = g.norm(dim=1).max()
        found = surgery.combine(list(g), weights) / scale
        torch.testing.assert_close(found, theirs(g) / scale, rtol=0, atol=1e-7)
    assert np.abs(targets[0, 1]) > 0.01


def test_graddrop_given_the_same_draws():
    for g in matrices():
        sums = surgery.SignSums()
        list(sums.passing(iter(g)))
        torch.manual_seed(3)
        uniform = torch.rand(g.shape[1], dtype=g.dtype)
        torch.manual_seed(3)
        theirs = aggregation.GradDrop()(g)
        torch.testing.assert_close(surgery.graddrop(sums.positive, sums.negative, uniform), theirs)
