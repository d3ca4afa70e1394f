"""Methods against TorchJD's aggregators where the definitions agree.

Not its Nash-MTL: that needs one more solver (ecos), for a solution to three digits.
"""

import numpy as np
import pytest
import torch

from domainbed.gradients.componentwise import Block
from domainbed.gradients.gram import NoDirection
from domainbed_gs.algorithms.cagrad import cagrad_weights
from domainbed_gs.algorithms.dual_proj import dual_proj_weights
from domainbed_gs.algorithms.imtl_g import imtl_g_weights
from domainbed_gs.algorithms.mgda import mgda_weights
from domainbed_gs.algorithms.upgrad import upgrad_weights

aggregation = pytest.importorskip("torchjd.aggregation")
linalg = pytest.importorskip("torchjd.linalg")


class TestExactSolvers:
    SHAPES = [  # K, P, rank, scale
        (2, 8, 2, 1.0),
        (3, 8, 3, 1.0),
        (4, 20, 4, 1.0),
        (6, 30, 6, 1.0),
        (10, 40, 10, 1.0),
        (3, 8, 3, 1e-9),
        (3, 8, 3, 1e9),
        (5, 20, 5, 1e-3),
        (5, 20, 5, 1e3),
        (3, 8, 2, 1.0),
        (4, 8, 1, 1.0),
        (5, 3, 3, 1.0),
        (6, 20, 4, 1e-6),
        (6, 20, 4, 1e6),
    ]
    FULL_RANK = [shape for shape in SHAPES if shape[0] == shape[2]]
    each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)

    def gradients(self, shape):
        k, p, rank, scale = shape
        rng = np.random.default_rng(k * p * rank)
        return rng.standard_normal((k, rank)) @ rng.standard_normal((rank, p)) * scale

    def assert_same_direction(self, g, weights, theirs, tolerance):
        reference = theirs(torch.from_numpy(g @ g.T)).numpy()
        greatest = np.linalg.norm(g, axis=1).max()
        np.testing.assert_allclose(weights @ g, reference @ g, rtol=0, atol=tolerance * greatest)

    def compare_projections(self, shape, reg_eps, tolerance):
        g = self.gradients(shape)
        projector = linalg.QuadprogProjector(norm_eps=0.0, reg_eps=reg_eps)
        upgrad = aggregation.UPGradWeighting(projector=projector)
        self.assert_same_direction(g, upgrad_weights(g @ g.T), upgrad, tolerance)
        dual_proj = aggregation.DualProjWeighting(projector=projector)
        self.assert_same_direction(g, dual_proj_weights(g @ g.T), dual_proj, tolerance)

    @pytest.mark.parametrize("shape", FULL_RANK, ids=str)
    def test_upgrad_and_dual_proj_without_regularisation(self, shape):
        self.compare_projections(shape, reg_eps=0.0, tolerance=1e-10)

    @each_shape
    def test_upgrad_and_dual_proj_with_the_least_regularisation_that_torchjd_works_with(self, shape):
        self.compare_projections(shape, reg_eps=1e-10, tolerance=1e-4)

    @each_shape
    def test_mgda_run_to_convergence(self, shape):
        g = self.gradients(shape)
        theirs = aggregation.MGDAWeighting(epsilon=1e-9, max_iters=3000)
        self.assert_same_direction(g, mgda_weights(g @ g.T), theirs, 1e-2)

    @pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
    @each_shape
    def test_cagrad(self, shape, c):
        g = self.gradients(shape)
        theirs = aggregation.CAGradWeighting(c=c, norm_eps=0.0)
        self.assert_same_direction(g, cagrad_weights(g @ g.T, c), theirs, 1e-4)


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


def assert_equal_directions(weights_of, theirs, g, tolerance=1e-7):
    """Compare both directions, relative to the longest gradient."""
    direction = torch.from_numpy(weights_of((g @ g.T).numpy())) @ g
    scale = g.norm(dim=1).max()
    torch.testing.assert_close(direction / scale, theirs(g) / scale, rtol=0, atol=tolerance)


def test_imtl_g():
    compared = []
    for g in matrices():
        try:
            assert_equal_directions(lambda gram: imtl_g_weights(gram, 1e-7), aggregation.IMTLG(), g, 1e-6)
            compared.append(True)
        except NoDirection:
            compared.append(False)
    assert np.mean(compared) > 0.9


@pytest.mark.parametrize("mode", ["min", "median", "rmse"])
def test_aligned_mtl(rule, mode):
    ours, theirs = rule("AlignedMTL", aligned_scale=mode).weights, aggregation.AlignedMTL(scale_mode=mode)
    for g in matrices():
        assert_equal_directions(ours, theirs, g)


def test_pcgrad_of_two_environments(pcgrad_weights):
    """With two there is one order only."""
    for g in matrices(2, 2):
        assert_equal_directions(lambda gram: pcgrad_weights(gram, [[1], [0]]), aggregation.PCGrad(), g)


def test_gradvac_of_two_environments_over_several_updates(gradvac_weights):
    """Targets follow the cosines. Parallel gradients are left out, as our cosines stay below 1."""
    theirs = aggregation.GradVac(beta=0.3, eps=0.0)
    targets = np.zeros((2, 2))
    sequence = [g for g in matrices(2, 2) if torch.linalg.matrix_rank(g, rtol=1e-6) == 2]
    assert len(sequence) >= 8
    for g in sequence * 2:
        weights, targets = gradvac_weights((g @ g.T).numpy(), [[1], [0]], targets, beta=0.3)
        scale = g.norm(dim=1).max()
        torch.testing.assert_close(
            torch.from_numpy(weights) @ g / scale, theirs(g) / scale, rtol=0, atol=1e-7
        )
    assert np.abs(targets[0, 1]) > 0.01


def test_graddrop_with_the_same_draws(rule):
    for g in matrices():
        torch.manual_seed(3)
        draws = torch.rand(g.shape[1], dtype=g.dtype)
        torch.manual_seed(3)
        theirs = aggregation.GradDrop()(g)
        torch.testing.assert_close(rule("GradDrop").combine(Block(g, draws)), theirs)
