"""Exact solvers equal TorchJD's aggregators where the definitions agree.

Not its Nash-MTL: that needs one more solver (ecos), for a solution to three digits.
"""

import numpy as np
import pytest
import torch
from torchjd.aggregation import CAGradWeighting, DualProjWeighting, MGDAWeighting, UPGradWeighting
from torchjd.linalg import QuadprogProjector

from domainbed_gs import surgery

# K, P, rank, scale
SHAPES = [
    *((2, 8, 2, 1.0), (3, 8, 3, 1.0), (4, 20, 4, 1.0), (6, 30, 6, 1.0), (10, 40, 10, 1.0)),
    *((3, 8, 3, 1e-9), (3, 8, 3, 1e9), (5, 20, 5, 1e-3), (5, 20, 5, 1e3)),
    *((3, 8, 2, 1.0), (4, 8, 1, 1.0), (5, 3, 3, 1.0), (6, 20, 4, 1e-6), (6, 20, 4, 1e6)),
]
FULL_RANK = [shape for shape in SHAPES if shape[0] == shape[2]]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make(shape):
    k, p, rank, scale = shape
    rng = np.random.default_rng(k * p * rank)
    return rng.standard_normal((k, rank)) @ rng.standard_normal((rank, p)) * scale


def assert_same_direction(g, weights, theirs, tolerance):
    reference = theirs(torch.from_numpy(g @ g.T)).numpy()
    greatest = np.linalg.norm(g, axis=1).max()
    np.testing.assert_allclose(weights @ g, reference @ g, rtol=0, atol=tolerance * greatest)


@pytest.mark.parametrize("shape", FULL_RANK, ids=str)
def test_upgrad_and_dual_proj_without_regularisation(shape):
    g = make(shape)
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=0.0)
    assert_same_direction(g, surgery.upgrad_weights(g @ g.T), UPGradWeighting(projector=projector), 1e-10)
    assert_same_direction(
        g, surgery.dual_proj_weights(g @ g.T), DualProjWeighting(projector=projector), 1e-10
    )


@shapes
def test_upgrad_and_dual_proj_with_the_least_regularisation_it_can_do_with(shape):
    g = make(shape)
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=1e-10)
    assert_same_direction(g, surgery.upgrad_weights(g @ g.T), UPGradWeighting(projector=projector), 1e-4)
    assert_same_direction(g, surgery.dual_proj_weights(g @ g.T), DualProjWeighting(projector=projector), 1e-4)


@shapes
def test_mgda_run_to_convergence(shape):
    g = make(shape)
    theirs = MGDAWeighting(epsilon=1e-9, max_iters=3000)
    assert_same_direction(g, surgery.mgda_weights(g @ g.T), theirs, 1e-2)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@shapes
def test_cagrad(shape, c):
    g = make(shape)
    theirs = CAGradWeighting(c=c, norm_eps=0.0)
    assert_same_direction(g, surgery.cagrad_weights(g @ g.T, c), theirs, 1e-4)
