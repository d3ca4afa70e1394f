"""Gradient surgery for domain generalization, a plugin of `domainbed`."""

from __future__ import annotations


def register() -> None:
    """Add all that this plugin has; nothing is imported before it is asked for."""
    from domainbed import algorithms, model_selection, networks
    from domainbed.results import report
    from domainbed.training import splits

    algorithms.REGISTRY.add_lazy("AgrSum", "domainbed_gs.algorithms:AgrSum")
    algorithms.REGISTRY.add_lazy("AgrRand", "domainbed_gs.algorithms:AgrRand")
    algorithms.REGISTRY.add_lazy("PCGrad", "domainbed_gs.algorithms:PCGrad")
    networks.FEATURIZERS.add_lazy("alexnet", "domainbed_gs.networks:AlexNet")
    splits.SCHEMES.add_lazy("stratified", "domainbed_gs.splits:stratified")
    model_selection.METHODS.add_lazy("iccv2021", "domainbed_gs.selection:ICCV2021SelectionMethod")
    model_selection.METHODS.add_lazy("iccv2021_macro", "domainbed_gs.selection:ICCV2021MacroSelectionMethod")
    model_selection.METHODS.add_lazy("last", "domainbed_gs.selection:LastSelectionMethod")
    report.SECTIONS.add_lazy("paired", "domainbed_gs.paired_section:SECTION")
