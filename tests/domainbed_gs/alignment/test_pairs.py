"""Normalised distances, and comparisons of methods by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed_gs.alignment.comparison import NORMS, beyond_chance, compare_methods
from domainbed_gs.alignment.pairs import distance, kind_of_pair, pairs_of
from domainbed_gs.alignment.settings import NUMBERS
from domainbed_gs.alignment.tables import print_tables

NUMBERS_OF_VECTORS = st.floats(-100, 100).map(lambda value: round(value, 3))


def of_vectors(*vectors):
    vectors = np.array(vectors, dtype=float)
    return vectors @ vectors.T


@pytest.mark.parametrize(
    ("v", "expected"), [([3, 4], 0), ([-4, 3], 1), ([-3, -4], 2), ([0, 0], 1), ([6, 8], 1 / 5)]
)
def test_a_distance_is_0_for_equal_1_for_orthogonal_2_for_opposite_vectors(v, expected):
    u = [3, 4]
    found, norms = distance(of_vectors(u, u, v, v), 0, 1)
    assert found == pytest.approx(expected)
    assert norms == 25 + v[0] ** 2 + v[1] ** 2
    assert distance(of_vectors(u, v), 0, 0)[0] == pytest.approx(expected)  # within an environment


@given(arrays(float, (6, 5), elements=NUMBERS_OF_VECTORS))
def test_distances_are_those_of_all_pairs_of_groups(vectors):
    gram = of_vectors(*vectors)
    for first, second in pairs_of(3):
        u, v = vectors[2 * first : 2 * first + 2], vectors[2 * second : 2 * second + 2]
        pairs = [(u[0], u[1])] if first == second else [(a, b) for a in u for b in v]
        norms = sum(a @ a + b @ b for a, b in pairs)
        found, mean = distance(gram, first, second)
        assert mean == pytest.approx(norms / len(pairs))
        if norms > 0:
            squares = sum((a - b) @ (a - b) for a, b in pairs)
            assert found == pytest.approx(squares / norms, abs=1e-9)
            assert distance(gram, second, first)[0] == pytest.approx(found)
        else:
            assert math.isnan(found)


def test_kinds_of_pairs():
    kinds = {pair: kind_of_pair(*pair, [False, True, False, True]) for pair in pairs_of(4)}
    assert kinds[0, 2] == "source-source"
    assert kinds[0, 1] == kinds[1, 2] == "source-target"
    assert kinds[1, 3] == "target-target"
    assert (kinds[0, 0], kinds[1, 1]) == ("within-source", "within-target")
    assert len(kinds) == 10


def rows(**methods):
    """A row for each trial and kind of pairs; `method=[value of each trial]`."""
    found = []
    for method, values in methods.items():
        for trial, value in enumerate(values):
            pairs = (
                ("source-source", "a", "b", 1),
                ("within-source", "a", "a", 0.1),
                ("within-source", "b", "b", 0.1),
            )
            for pair, first, second, scale in pairs:
                numbers = dict.fromkeys(NUMBERS, math.nan)
                numbers |= {"variance_distance": value * scale, "variance_norms": 2.0}
                texts = {"dataset": "EmojiStyles", "part": "in", "parameters": "classifier", "pair": pair}
                texts |= {"first": first, "second": second}
                of_model = {"algorithm": method, "targets": "Flat", "trial_seed": str(trial), "step": ""}
                settings = {"samples": "64", "probes": "4", "run": f"{method}{trial}"}
                found.append({**texts, **of_model, **settings, **numbers})
    return found


ERM = [0.50, 0.52, 0.55, 0.49, 0.51, 0.53, 0.56, 0.54]


def test_a_method_whose_environments_are_closer_in_every_trial_is_called_so():
    cells = compare_methods(rows(Fishr=[value - 0.2 for value in ERM], ERM=ERM, SAM=ERM[::-1]), "ERM")
    found = {(cell.label, cell.algorithm): cell for cell in cells}
    assert [cell.algorithm for cell in cells[:3]] == ["ERM", "Fishr", "SAM"]
    fishr = found["source-source", "Fishr"]
    assert fishr.comparison.difference == pytest.approx(-0.2)
    assert fishr.comparison.p == pytest.approx(2 / 2**8)
    assert (fishr.family, fishr.holm_p) == (4, pytest.approx(8 / 2**8))
    beyond = found["source-source, beyond chance", "Fishr"]
    assert beyond.mean == pytest.approx(0.9 * fishr.mean)
    assert (beyond.family, beyond.verdict()) == (4, "lower")
    assert fishr.verdict() == "lower"
    assert found["source-source", "SAM"].verdict() == "undecided"
    assert found["within-source", "Fishr"].comparison is None
    assert {cell.label for cell in cells if cell.table[-1] == NORMS} == {"variance"}
    assert found["variance", "Fishr"].mean == 1.0  # half of |u|^2 + |v|^2
    assert compare_methods(rows(Fishr=[1.0] * 8, ERM=ERM), "ERM")[1].verdict() == "higher"


@given(arrays(float, (4, 5), elements=NUMBERS_OF_VECTORS))
def test_beyond_chance_is_what_independent_groups_have_in_common(vectors):
    gram, model = of_vectors(*vectors), []
    for first, second in pairs_of(2):
        found, norms = distance(gram, first, second)
        pair = kind_of_pair(first, second, [False, True])
        texts = {"pair": pair, "first": "ab"[first], "second": "ab"[second]}
        model.append({**texts, "mean_distance": found, "mean_norms": norms})
    norms = model[0]["mean_norms"]
    # An environment whose gradients are all 0 has no distance.
    if any(math.isnan(row["mean_distance"]) for row in model):
        assert beyond_chance(model, "mean", "source-target") is None
        return
    u, v = vectors[:2], vectors[2:]
    expected = ((u[0] - v[0]) @ (u[1] - v[1]) + (u[0] - v[1]) @ (u[1] - v[0])) / 2
    assert beyond_chance(model, "mean", "source-target") * norms == pytest.approx(expected, abs=1e-6)
    assert beyond_chance(model, "mean", "source-source") is None


def test_too_few_trials_say_how_many_are_needed_and_other_baselines_compare_nothing(capsys):
    print_tables(rows(ERM=ERM[:3], Fishr=[0.1, 0.2, 0.3]), "ERM", "text")
    out = capsys.readouterr().out
    assert "part in: distance of variances of the samples' gradients, the classifier" in out
    assert "undecided, needs 7 trials" in out
    assert "Dataset: EmojiStyles, part in: squared norms, sources, the classifier" in out
    assert "within-source: two groups of samples of one source environment" in " ".join(out.split())
    print_tables(rows(SAM=ERM, Fishr=ERM), "ERM", "text")
    assert "Nothing is compared, because no model is of the baseline ERM." in capsys.readouterr().out
