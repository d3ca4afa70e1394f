"""Algorithms: one file for each family, one class for each method, with its hyper-parameters.

To add one, put a class with `@REGISTRY.register()` into a file of this package or into a plugin; see
`domainbed.algorithms.base`. Classes are attributes of this module by their names, as forks of upstream
expect. Their files are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm as Algorithm

    ALGORITHMS: list[str]

UPSTREAM = (
    "ERM",
    "ERMPlusPlus",
    "Fish",
    "IRM",
    "GroupDRO",
    "Mixup",
    "MLDG",
    "CORAL",
    "MMD",
    "DANN",
    "CDANN",
    "MTL",
    "SagNet",
    "ARM",
    "VREx",
    "RSC",
    "SD",
    "ANDMask",
    "SANDMask",
    "IGA",
    "SelfReg",
    "Fishr",
    "TRM",
    "IB_ERM",
    "IB_IRM",
    "CAD",
    "CondCAD",
    "Transfer",
    "CausIRL_CORAL",
    "CausIRL_MMD",
    "EQRM",
    "RDM",
    "ADRMX",
    "URM",
)
"""Upstream's algorithms in upstream's order, which is the order of the rows in tables."""

REGISTRY: Registry[type[Algorithm]] = Registry.of_module("Algorithm", home=__name__, first=UPSTREAM)


def get_algorithm_class(name: str) -> type[Algorithm]:
    """The class of the algorithm `name`, registered or set as an attribute of this module by a fork.

    Raises: UnknownName (a NotImplementedError), "Algorithm not found: <name>".
    """
    from domainbed.algorithms.base import Algorithm

    own = globals().get(name)
    if isinstance(own, type) and issubclass(own, Algorithm):
        return own
    return REGISTRY[name]


def __getattr__(name: str) -> object:
    if name == "Algorithm":
        from domainbed.algorithms.base import Algorithm

        return Algorithm
    if name == "ALGORITHMS":
        # The same list at each access, because forks append names to it.
        return globals().setdefault(name, list(REGISTRY))
    if not name.startswith("_") and name in REGISTRY:
        return REGISTRY[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
