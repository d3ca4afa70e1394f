"""Gradient surgery for domain generalization, a plugin of `domainbed`."""

from __future__ import annotations


def register() -> None:
    """Register everything that this plugin offers, without importing it."""
    from domainbed import algorithms, model_selection, networks
    from domainbed.results import frames, report
    from domainbed.scripts import command
    from domainbed.training import splits

    # The paper's methods are the first rows of tables.
    algorithms.REGISTRY.add_package("domainbed_gs.algorithms", first=("AgrSum", "AgrRand", "PCGrad"))
    networks.FEATURIZERS.add_lazy("alexnet", "domainbed_gs.alexnet:AlexNet")
    splits.SCHEMES.add_lazy("stratified", "domainbed_gs.splits:stratified")
    model_selection.METHODS.add_lazy("iccv2021", "domainbed_gs.selection:ICCV2021SelectionMethod")
    model_selection.METHODS.add_lazy("iccv2021_macro", "domainbed_gs.selection:ICCV2021MacroSelectionMethod")
    model_selection.METHODS.add_lazy("last", "domainbed_gs.selection:LastSelectionMethod")
    model_selection.METHODS.add_lazy("iid_pooled", "domainbed_gs.selection:PooledSelectionMethod")
    command.COMMANDS["plan"] = command.Command(
        "domainbed_gs.scripts.plan", "how many trials find a difference"
    )
    command.COMMANDS["similarity"] = command.Command(
        "domainbed_gs.scripts.similarity", "similarity of gradients within and between environments"
    )
    command.COMMANDS["sharpness"] = command.Command(
        "domainbed_gs.scripts.sharpness", "sharpness of trained models, domain by domain"
    )
    command.COMMANDS["alignment"] = command.Command(
        "domainbed_gs.scripts.alignment", "distances of gradients and curvature between environments"
    )
    frames.FRAMES.add_lazy("paired", "domainbed_gs.report.paired_frame:paired_frame")
    report.SECTIONS.add_lazy("paired", "domainbed_gs.report.paired:SECTION")
    report.SECTIONS.add_lazy("control", "domainbed_gs.report.control:SECTION")
    report.SECTIONS.add_lazy("against", "domainbed_gs.report.against:SECTION")
    report.SECTIONS.add_lazy("compare", "domainbed_gs.report.compare:SECTION")
    report.SECTIONS.add_lazy("ranks", "domainbed_gs.report.ranks:SECTION")
    report.SECTIONS.add_lazy("aggregate", "domainbed_gs.report.aggregate:SECTION")
    report.SECTIONS.add_lazy("budget", "domainbed_gs.report.budget:SECTION")
    report.SECTIONS.add_lazy("gradients", "domainbed_gs.report.gradient_agreement:SECTION")
    report.SECTIONS.add_lazy("sharpness", "domainbed_gs.sharpness.section:SECTION")
    report.SECTIONS.add_lazy("alignment", "domainbed_gs.alignment.section:SECTION")
