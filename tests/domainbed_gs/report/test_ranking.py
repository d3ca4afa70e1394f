"""Average ranks, Friedman's test and Nemenyi's critical difference, against Demsar's own numbers."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from domainbed.errors import RunError, UsageError
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.rank_diagram import diagram
from domainbed_gs.report.ranking import rank, rank_table

# Demsar 2006, table 6: AUC of C4.5 and three variants (+m, +cf, +m+cf) on 14 datasets.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip
NAMES = ("C4.5", "+m", "+cf", "+m+cf")


def ranking_of(table, algorithms):
    table = np.asarray(table)
    return rank_table(
        table, datasets=[f"d{i}" for i in range(len(table))], algorithms=algorithms, left_out=[]
    )


def diagram_of(ranking):
    return diagram(ranking.averages, ranking.cliques(), ranking.critical_difference)


@pytest.fixture
def demsar():
    return ranking_of(DEMSAR, NAMES)


def test_demsars_example(demsar):
    averages = demsar.averages
    assert {name: round(averages[name], 3) for name in NAMES} == {
        "C4.5": 3.143,
        "+m": 2.0,
        "+cf": 2.893,
        "+m+cf": 1.964,
    }
    # The paper's 9.28 lacks scipy's correction for ties; p is below 0.05 either way.
    uncorrected = 12 * 14 / (4 * 5) * (sum(average**2 for average in averages.values()) - 4 * 25 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert demsar.statistic > uncorrected
    assert demsar.p < 0.05
    assert demsar.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert demsar.cliques() == [["+m+cf", "+m", "+cf", "C4.5"]]


@given(st.integers(3, 8), st.integers(2, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_cliques_contain_exactly_the_pairs_closer_than_the_critical_difference(algorithms, datasets, seed):
    rng = np.random.default_rng(seed)
    names = [f"a{i}" for i in range(algorithms)]
    table = rng.integers(0, 6, (datasets, algorithms)) / 6
    ranking = ranking_of(table, names)
    averages = ranking.averages
    assert sum(averages.values()) == pytest.approx(algorithms * (algorithms + 1) / 2)
    joined = {frozenset((a, b)) for group in ranking.cliques() for a in group for b in group if a != b}
    close = {
        frozenset((a, b))
        for a in names
        for b in names
        if a != b and abs(averages[a] - averages[b]) < ranking.critical_difference
    }
    assert joined == close
    assert not any(set(one) < set(other) for one in ranking.cliques() for other in ranking.cliques())


def test_equal_accuracies_give_no_evidence():
    ranking = ranking_of(np.full((2, 3), 0.3) + [[0, 1e-15, 0], [0, 0, 0]], ["x", "y", "z"])
    assert (ranking.statistic, ranking.p, ranking.averages["y"]) == (0.0, 1.0, 2.0)


@pytest.fixture
def three_methods(sweep):
    """Three methods on two datasets, a fourth on one."""

    def of(dataset, **accuracies):
        trials = {name: {0: [each, each + 0.1]} for name, each in accuracies.items()}
        return list(sweep(trials, dataset=dataset))

    return of("PACS", ERM=0.5, AgrSum=0.7, PCGrad=0.6, IRM=0.9) + of("VLCS", ERM=0.6, AgrSum=0.7, PCGrad=0.5)


def test_ranks_of_a_sweep(three_methods):
    ranking = rank(compute_accuracies(Q(three_methods), METHODS["iid"]))
    assert ranking.ranks == {"AgrSum": [1.0, 1.0], "ERM": [2.0, 3.0], "PCGrad": [3.0, 2.0]}
    assert (ranking.datasets, ranking.left_out) == (["VLCS", "PACS"], ["IRM"])


def test_table_in_every_format(three_methods, collect):
    out = collect(three_methods, "--ranks").out
    assert re.search(r"Algorithm  VLCS  PACS  Average rank *\nAgrSum +1 +1 +1.00 *\nERM +2 +3 +2.50", out)
    assert "Friedman's test of 3 algorithms on 2 datasets: chi-squared 3.00, 2 degrees of freedom" in out
    assert "p = 0.2231" in out
    assert "average ranks of 3 algorithms on 2 datasets cannot differ by the" in " ".join(out.split())
    assert "lack of results on some dataset: IRM." in " ".join(out.split())


def test_csv(three_methods, collect):
    captured = collect(three_methods, "--ranks", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(captured.out.split("\n\n")[1])))
    assert [(row["Algorithm"], float(row["Average rank"])) for row in rows] == [
        ("AgrSum", 1.0),
        ("ERM", 2.5),
        ("PCGrad", 2.5),
    ]
    assert "Friedman" in captured.err


def test_a_page_has_it_by_default(three_methods, collect, tmp_path):
    collect(three_methods, "--html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "<h2>Ranks over datasets</h2>" in text
    assert 'aria-label="Critical-difference diagram: ranks"' in text


def test_one_dataset_is_not_ranked_on_a_page_and_is_an_error_elsewhere(sweep, collect, tmp_path):
    records = sweep({name: {0: [0.5, 0.6]} for name in ("ERM", "AgrSum", "PCGrad")})
    collect(records, "--html", str(tmp_path / "page.html"))
    assert "Ranks over datasets" not in (tmp_path / "page.html").read_text()
    with pytest.raises(UsageError, match=r"ranks need at least 2 datasets.*found 1 and 3"):
        rank(compute_accuracies(records, METHODS["iid"]))


def test_the_diagram_shows_every_name_and_the_critical_difference(demsar, three_methods, collect, tmp_path):
    texts = [text.get_text().split() for text in diagram_of(demsar).axes[0].texts]
    assert {word for words in texts for word in words} >= {*NAMES, "1.96", "3.14", "1.25"}
    path = tmp_path / "new" / "ranks.png"
    out = collect(three_methods, "--ranks_figure", str(path)).out
    assert out.splitlines()[-1] == f"Figure: {path}"
    assert "Average rank" not in out  # the table needs --ranks
    with Image.open(path) as image:
        assert image.width > 400


@pytest.mark.parametrize("name", ["a", "a_method_with_a_very_long_name"])
def test_names_stay_inside_the_diagram(name):
    averages = {name: 1.0, "b": 2.0, "c" * 12: 3.0}
    figure = diagram(averages, cliques=[list(averages)], critical_difference=2.3)
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_a_diagram_that_cannot_be_written(three_methods, collect, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the diagram to"):
        collect(three_methods, "--ranks_figure", str(tmp_path / "file" / "ranks.png"))
