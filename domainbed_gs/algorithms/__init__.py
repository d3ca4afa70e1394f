"""Gradient surgery as algorithms: ERM with another rule for combining the environments' gradients."""

from domainbed_gs.algorithms.aggregation import Aggregation
from domainbed_gs.algorithms.gram import IMTLG, MGDA, AlignedMTL, CAGrad, DualProj, UPGrad
from domainbed_gs.algorithms.nash import NashMTL
from domainbed_gs.algorithms.pairwise import GradVac, PCGrad
from domainbed_gs.algorithms.sign import AgrRand, AgrSum, GradDrop

__all__ = [
    "IMTLG",
    "MGDA",
    "Aggregation",
    "AgrRand",
    "AgrSum",
    "AlignedMTL",
    "CAGrad",
    "DualProj",
    "GradDrop",
    "GradVac",
    "NashMTL",
    "PCGrad",
    "UPGrad",
]
