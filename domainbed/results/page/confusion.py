"""The part of a page with confusion matrices, if runs saved their predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from domainbed.escaping import html_escape
from domainbed.results.confusion_matrices import ConfusionMatrix, confusion_matrices
from domainbed.results.page.content import PageContent
from domainbed.results.printing import print_lines, print_paragraphs
from domainbed.results.saved_predictions import any_saved
from domainbed.results.tables import html_table

MOST_CLASSES = 30
"""Number of classes up to which the whole matrix is shown."""

MOST_CONFUSIONS = 20
"""Number of pairs of classes that are shown if there are more."""


def write(content: PageContent) -> None:
    """Print a matrix for each method and target, side by side if the page is wide enough."""
    context, method = content.context, content.methods[content.selection]
    if not any_saved(context.input_dir, content.runs):
        return
    found = confusion_matrices(context.input_dir, content.candidates, method)
    results, notes = content.accuracies[content.selection], []
    found.sort(key=lambda matrix: results.algorithms.index(matrix.algorithm))
    for dataset in results.datasets:
        for target, environment in enumerate(dataset.targets):
            matrices = [each for each in found if (each.dataset, each.target) == (dataset.name, target)]
            if matrices:
                title = f"{dataset.name}, {environment}"
                print_lines('<div class="matrices">', *(_html(each, title) for each in matrices), "</div>")
                notes += [note for each in matrices for note in _missing(each, environment)]
    if not found:
        print_paragraphs(
            [
                "The runs saved predictions, but none of the steps that selection by "
                f"{content.selection} selects; --save_predictions all saves every step."
            ],
            "html",
        )
        return
    print_paragraphs([*_explanation(content.selection, method.reported, found), *notes], "html")


def _html(matrix: ConfusionMatrix, title: str) -> str:
    trials = "1 trial" if matrix.trials == 1 else f"{matrix.trials} trials"
    heading = f"{title}: {matrix.algorithm}, {trials}"
    if len(matrix.classes) > MOST_CLASSES:
        rows = [[a, b, _percent(share)] for a, b, share in matrix.confusions()[:MOST_CONFUSIONS]]
        table = html_table(heading, ["Label", "Taken for", "Images of the class (%)"], rows)
    else:
        table = _matrix(matrix, heading)
    return f"<div><h3>{html_escape(heading)}</h3>\n{table}</div>"


def _matrix(matrix: ConfusionMatrix, heading: str) -> str:
    head = "".join(
        f'<th scope="col" class="number" data-sort="no"><span>{html_escape(name)}</span></th>'
        for name in matrix.classes
    )
    rows = [
        f'<tr><th scope="row">{html_escape(name)}</th>{_cells(shares.tolist(), i)}</tr>'
        for i, (name, shares) in enumerate(zip(matrix.classes, matrix.shares, strict=True))
    ]
    return (
        f'<div class="table matrix" role="region" aria-label="{html_escape(heading)}" tabindex="0"><table>\n'
        f'<thead><tr><th scope="col" data-sort="no">label \\ predicted</th>{head}</tr></thead>\n'
        "<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _cells(shares: Sequence[float], diagonal: int) -> str:
    cells = []
    for i, share in enumerate(shares):
        text = f"<b>{_percent(share)}</b>" if i == diagonal else _percent(share)
        shade = 0 if math.isnan(share) else round(100 * share)
        cells.append(f'<td class="number shaded" style="--share:{shade}%">{text}</td>')
    return "".join(cells)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}"


def _explanation(selection: str, reported: str, matrices: Sequence[ConfusionMatrix]) -> Iterator[str]:
    yield (
        "Rows: the true class; columns: the predicted class; numbers: % of the images of the true class, "
        f"averaged over trials. Runs and steps: those that selection by {selection} chose; images: those of "
        f"{reported.removeprefix('the accuracy on ')}."
    )
    if any(len(each.classes) > MOST_CLASSES for each in matrices):
        yield (
            f"Where there are more than {MOST_CLASSES} classes, the {MOST_CONFUSIONS} most frequent "
            "confusions are listed."
        )


def _missing(matrix: ConfusionMatrix, environment: str) -> Iterator[str]:
    for reason, count in matrix.missing.items():
        trials = "1 trial" if count == 1 else f"{count} trials"
        yield f"{matrix.algorithm} on {environment} without {trials}: {reason}."
