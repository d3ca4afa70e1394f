"""The part of a page with the DomainBed tables."""

from __future__ import annotations

from domainbed.results.documents import print_rendered
from domainbed.results.page.content import Content


def write(content: Content) -> None:
    """Print the tables of each selection method."""
    for accuracies in content.accuracies.values():
        print_rendered(accuracies, content.context.format)
