"""Gradient surgery: one update direction from K environments' gradients, as pure functions.

A gradient is a flat tensor (P,). Sign methods take the K gradients one at a time and hold a few tensors of
size P whatever K is; Gram methods need the inner products only and return K weights.
"""

from domainbed_gs.surgery.agr import agr_rand, agr_rand_sigma, agr_sum, agreeing_sum, magnitudes
from domainbed_gs.surgery.aligned_mtl import aligned_mtl_weights
from domainbed_gs.surgery.cagrad import cagrad_weights
from domainbed_gs.surgery.consensus import Consensus, sign_agreement, sign_consensus
from domainbed_gs.surgery.dual_proj import dual_proj_weights
from domainbed_gs.surgery.graddrop import SignSums, graddrop
from domainbed_gs.surgery.gradvac import gradvac_weights
from domainbed_gs.surgery.gram import NoDirection, combine, gram_matrix, mean_cosine, norm_of
from domainbed_gs.surgery.imtlg import imtlg_weights
from domainbed_gs.surgery.mgda import mgda_weights
from domainbed_gs.surgery.nash_mtl import nash_mtl_weights
from domainbed_gs.surgery.pcgrad import Order, pcgrad_orders, pcgrad_weights
from domainbed_gs.surgery.upgrad import upgrad_weights

__all__ = [
    "Consensus",
    "NoDirection",
    "Order",
    "SignSums",
    "agr_rand",
    "agr_rand_sigma",
    "agr_sum",
    "agreeing_sum",
    "aligned_mtl_weights",
    "cagrad_weights",
    "combine",
    "dual_proj_weights",
    "graddrop",
    "gradvac_weights",
    "gram_matrix",
    "imtlg_weights",
    "magnitudes",
    "mean_cosine",
    "mgda_weights",
    "nash_mtl_weights",
    "norm_of",
    "pcgrad_orders",
    "pcgrad_weights",
    "sign_agreement",
    "sign_consensus",
    "upgrad_weights",
]
