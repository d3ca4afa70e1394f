"""Ranks over datasets and the tests of pairs: Demsar's own numbers, an oracle, and reports in each format."""

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
from domainbed_gs.report.ranking import NEMENYI, RANK_TESTS, rank, rank_table
from domainbed_gs.report.signed_rank import signed_rank_p
from domainbed_gs.report.statistics import holm

# Demsar 2006, table 6: AUC of C4.5 and three variants (+m, +cf, +m+cf) on 14 datasets.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip
NAMES = ("C4.5", "+m", "+cf", "+m+cf")


def ranking_of(table, algorithms, rank_test="signed_rank"):
    table = np.asarray(table)
    datasets = [f"d{i}" for i in range(len(table))]
    return rank_table(table, datasets=datasets, algorithms=algorithms, remarks=[], rank_test=rank_test)


def diagram_of(ranking):
    return diagram(ranking.averages, ranking.cliques(), ranking.critical_difference)


@pytest.fixture
def demsar():
    return ranking_of(DEMSAR, NAMES, NEMENYI)


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
    assert demsar.friedman.statistic > uncorrected
    assert demsar.friedman.p < 0.05
    assert demsar.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert demsar.cliques() == [["+m+cf", "+m", "+cf", "C4.5"]]


@pytest.mark.parametrize("rank_test", RANK_TESTS)
@given(st.integers(3, 5), st.integers(2, 10), st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_cliques_join_exactly_the_pairs_that_do_not_differ(rank_test, algorithms, datasets, seed):
    rng = np.random.default_rng(seed)
    names = [f"a{i}" for i in range(algorithms)]
    table = rng.integers(0, 6, (datasets, algorithms)) / 6 + np.arange(algorithms) * rng.integers(3)
    ranking = ranking_of(table, names, rank_test)
    averages = ranking.averages
    assert sum(averages.values()) == pytest.approx(algorithms * (algorithms + 1) / 2)
    assert len(ranking.pairs) == algorithms * (algorithms - 1) / 2
    joined = {frozenset((a, b)) for group in ranking.cliques() for a in group for b in group if a != b}
    assert joined == {frozenset((pair.better, pair.worse)) for pair in ranking.pairs if not pair.significant}
    assert not any(set(one) < set(other) for one in ranking.cliques() for other in ranking.cliques())
    if rank_test == NEMENYI:
        for pair in ranking.pairs:
            distance = averages[pair.worse] - averages[pair.better]
            assert pair.significant == (distance > ranking.critical_difference)


def test_a_clique_need_not_be_a_row_of_neighbours():
    # y is always a little below x. z is between them on most datasets, and far below on the last two.
    x = np.linspace(0.5, 0.6, 10)
    z = x - np.array([0.01] * 8 + [0.5] * 2)
    ranking = ranking_of(np.array([x, x - 0.02, z]).T, ["x", "y", "z"])
    assert list(ranking.ranks) == ["x", "z", "y"]
    assert ranking.cliques() == [["z", "y"]]


def test_pairs_are_signed_rank_tests_with_holms_correction():
    table = np.asarray(DEMSAR)
    ranking = ranking_of(table, NAMES)
    expected = {
        frozenset((a, b)): signed_rank_p(table[:, i] - table[:, j])
        for i, a in enumerate(NAMES)
        for j, b in enumerate(NAMES[:i])
    }
    found = {frozenset((pair.better, pair.worse)): pair for pair in ranking.pairs}
    assert {key: pair.p for key, pair in found.items()} == pytest.approx(expected)
    assert [pair.corrected_p for pair in ranking.pairs] == holm([pair.p for pair in ranking.pairs])
    pair = found[frozenset(("C4.5", "+m+cf"))]
    assert (pair.better, pair.wins, pair.ties, pair.losses) == ("+m+cf", 11, 1, 2)
    assert pair.difference == pytest.approx((table[:, 3] - table[:, 0]).mean())
    assert ranking.critical_difference is None


def test_nemenyi_equals_scikit_posthocs(demsar):
    posthocs = pytest.importorskip("scikit_posthocs")
    oracle = posthocs.posthoc_nemenyi_friedman(np.asarray(DEMSAR))
    for pair in demsar.pairs:
        expected = oracle.iloc[NAMES.index(pair.better), NAMES.index(pair.worse)]
        assert pair.corrected_p == pytest.approx(expected, abs=1e-6)


def test_equal_accuracies_give_no_evidence():
    ranking = ranking_of(np.full((2, 3), 0.3) + [[0, 1e-15, 0], [0, 0, 0]], ["x", "y", "z"])
    assert (ranking.friedman.statistic, ranking.friedman.p, ranking.averages["y"]) == (0.0, 1.0, 2.0)


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
    assert ranking.datasets == ["VLCS", "PACS"]
    assert ranking.remarks == ["Left out, without results on some dataset: IRM."]


def test_an_algorithm_without_the_hard_target_is_ranked_on_the_shared_ones(sweep, collect):
    # PCGrad is 3 points worse on each target that it has, but has no result on the hard one.
    accuracies = {"ERM": {0: [0.8], 1: [0.3]}, "AgrSum": {0: [0.79], 1: [0.29]}, "PCGrad": {0: [0.77]}}
    records = list(sweep(accuracies, dataset="PACS")) + list(sweep(accuracies, dataset="VLCS"))
    ranking = rank(compute_accuracies(Q(records), METHODS["iid"]))
    assert ranking.averages == {"ERM": 1.0, "AgrSum": 2.0, "PCGrad": 3.0}
    out = " ".join(collect(records, "--ranks").out.split())
    assert (
        "Note: PACS: only the cells (target and trial) that all algorithms have count, 1 of 2 (without C: "
        "PCGrad)." in out
    )


def test_table_in_every_format(three_methods, collect):
    out = collect(three_methods, "--ranks").out
    assert re.search(r"Algorithm  VLCS  PACS  Average rank *\nAgrSum +1 +1 +1.00 *\nERM +2 +3 +2.50", out)
    words = " ".join(out.split())
    assert (
        "Friedman's test of 3 algorithms on 2 datasets: chi-squared 3.00, p = 0.5 (exact, over all "
        "permutations within datasets)." in words
    )
    assert "p cannot be below 0.05 with 3 algorithms on 2 datasets; at least 3 datasets are needed." in words
    assert "no two of 3 algorithms can differ significantly on 2 datasets" in words
    assert "At least 7 datasets are needed." in words
    assert "Pairs of algorithms\n" not in out
    assert "Left out, without results on some dataset: IRM." in words


def seven_datasets(sweep):
    names = ["PACS", "VLCS", "OfficeHome", "DomainNet", "SVIRO", "RotatedMNIST", "ColoredMNIST"]
    return [
        record
        for i, dataset in enumerate(names)
        for record in sweep(
            {"ERM": {0: [0.5]}, "AgrSum": {0: [0.52 + i / 1000]}, "PCGrad": {0: [0.45 + i / 100]}},
            dataset=dataset,
        )
    ]


def test_pairs_are_listed_where_datasets_suffice(sweep, collect):
    out = collect(seven_datasets(sweep), "--ranks").out
    assert re.search(
        r"Algorithm +Compared with +Difference +Rank difference +W/T/L +p +Holm p *\n"
        r"AgrSum +ERM +\+2.30 +1.21 +7/0/0 +0.0156 +0.0469 \* *\n"
        r"AgrSum +PCGrad +\+4.30 +1.79 +7/0/0 +0.0156 +0.0469 \* *\n",
        out,
    )
    assert "needed" not in out


def test_nemenyis_test_by_option(sweep, collect, tmp_path):
    out = collect(seven_datasets(sweep), "--ranks", "--rank_test", "nemenyi", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out.split("\n\n")[2])))
    assert [(row["Algorithm"], row["Compared with"], row["W/T/L"]) for row in rows] == [
        ("AgrSum", "ERM", "7/0/0"),
        ("AgrSum", "PCGrad", "7/0/0"),
        ("ERM", "PCGrad", "5/1/1"),
    ]
    assert 0.01 < float(rows[0]["Nemenyi p"]) < 0.1


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
    assert 'aria-label="Diagram of average ranks: ranks"' in text


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
