"""Normalised distances, and comparisons of methods by them."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed_gs.alignment.comparison import (
    LEAST_SHARE,
    NORMS,
    beyond_chance,
    compare_methods,
    mean_distance,
)
from domainbed_gs.alignment.figure import models_figure, page_panels, training_figure
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


def rows(quantity="variance", **methods):
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
                numbers |= {f"{quantity}_distance": value * scale, f"{quantity}_norms": 2.0}
                texts = {"dataset": "EmojiStyles", "part": "in", "parameters": "classifier", "pair": pair}
                texts |= {"first": first, "second": second}
                of_model = {"algorithm": method, "targets": "Flat", "trial_seed": str(trial), "step": ""}
                settings = {"samples": "64", "probes": "4", "quantities": quantity, "run": f"{method}{trial}"}
                found.append({**texts, **of_model, **settings, **numbers})
    return found


ERM = [0.50, 0.52, 0.55, 0.49, 0.51, 0.53, 0.56, 0.54]


def test_a_method_whose_environments_are_closer_in_every_trial_is_called_so():
    cells = compare_methods(rows(Fishr=[value - 0.2 for value in ERM], ERM=ERM, SAM=ERM[::-1]), "ERM")
    found = {(cell.label, cell.algorithm): cell for cell in cells}
    assert [cell.algorithm for cell in cells[:3]] == ["ERM", "Fishr", "SAM"]
    fishr = found["source-source, beyond chance", "Fishr"]
    trials = [0.9 * value / (1 - 0.1 * value) for value in ERM]
    own = [0.9 * (value - 0.2) / (1 - 0.1 * (value - 0.2)) for value in ERM]
    assert fishr.difference == pytest.approx(fmean(own) - fmean(trials))
    assert fishr.comparison.p == pytest.approx(2 / 2**8)
    assert (fishr.family, fishr.holm_p, fishr.verdict()) == (2, pytest.approx(4 / 2**8), "lower")
    assert found["source-source, beyond chance", "SAM"].verdict() == "undecided"
    # How noisy gradients are decides over the others.
    assert found["source-source", "Fishr"].mean == pytest.approx(fmean(ERM) - 0.2)
    assert found["source-source", "Fishr"].comparison is None
    assert found["within-source", "Fishr"].comparison is None
    assert {cell.label for cell in cells if cell.table[-1] == NORMS} == {"variance"}
    assert found["variance", "Fishr"].mean == 1.0  # half of |u|^2 + |v|^2
    apart = compare_methods(rows(Fishr=[1.0] * 8, ERM=ERM), "ERM")
    assert [cell.verdict() for cell in apart if cell.comparison][:1] == ["higher"]


def rows_of_gram(gram, is_target, quantity="mean"):
    """The rows of one model whose groups have these inner products."""
    model = []
    for first, second in pairs_of(len(is_target)):
        found, norms = distance(gram, first, second)
        texts = {"pair": kind_of_pair(first, second, is_target), "first": first, "second": second}
        model.append({**texts, f"{quantity}_distance": found, f"{quantity}_norms": norms})
    return model


@given(arrays(float, (4, 5), elements=NUMBERS_OF_VECTORS))
def test_beyond_chance_is_what_independent_groups_have_in_common(vectors):
    model = rows_of_gram(of_vectors(*vectors), [False, True])
    assert beyond_chance(model, "mean", "source-source") is None
    found = beyond_chance(model, "mean", "source-target")
    u, v = vectors[:2], vectors[2:]
    above = ((u[0] - v[0]) @ (u[1] - v[1]) + (u[0] - v[1]) @ (u[1] - v[0])) / 2
    below, squares = u[0] @ u[1] + v[0] @ v[1], (vectors**2).sum() / 2
    # Gradients that are all 0 have no distance, and neither have those that are mostly chance.
    if any(math.isnan(row["mean_distance"]) for row in model) or below < (LEAST_SHARE - 1e-9) * squares:
        assert math.isnan(found)
    elif below > (LEAST_SHARE + 1e-9) * squares:
        assert found == pytest.approx(above / below, abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("cosine", "expected"), [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)])
def test_noise_of_samples_does_not_change_what_is_beyond_chance(noise, cosine, expected):
    draws = np.random.default_rng(0)
    u, v = np.zeros((2, 4000))
    u[0], v[:2] = 1.0, (cosine, math.sqrt(1 - cosine**2))
    found = []
    for _ in range(20):
        vectors = [each + noise * draws.normal(size=4000) / math.sqrt(4000) for each in (u, u, v, v)]
        model = rows_of_gram(of_vectors(*vectors), [False, False])
        found.append(beyond_chance(model, "mean", "source-source"))
    assert np.mean(found) == pytest.approx(expected, abs=0.03)
    raw = mean_distance(model, "mean", "source-source")
    assert raw == pytest.approx((expected + noise**2) / (1 + noise**2), abs=0.1)


def test_a_distance_of_hessians_that_is_noise_of_random_vectors_is_left_out(capsys):
    noisy = rows(ERM=ERM, Fishr=[value - 0.2 for value in ERM], quantity="hessian")
    for row in noisy:
        row["hessian_error"] = 0.6 if row["run"] in ("Fishr0", "Fishr1") else 0.4
    fishr = next(cell for cell in compare_methods(noisy, "ERM") if cell.algorithm == "Fishr")
    assert (fishr.label, fishr.models, fishr.missing, len(fishr.trials)) == ("source-source", 8, 2, 6)
    print_tables(noisy, "ERM", "text")
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "values of models are left out: those that are not finite; distances of Hessians with a standard"
        in out
    )
    assert "Diagonals of Hessians are exact if" in out


def test_methods_whose_classifier_does_not_predict_are_named(capsys):
    whole = [{**row, "parameters": "all"} for row in rows(ERMPlusPlus=ERM, ERM=ERM)]
    print_tables([*whole, *rows(ERM=ERM)], "ERM", "text")
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "Note: ERMPlusPlus predict with no layer of their `classifier`, and have no rows of classifier."
        in out
    )


def test_too_few_trials_say_how_many_are_needed_and_other_baselines_compare_nothing(capsys):
    print_tables(rows(ERM=ERM[:3], Fishr=[0.1, 0.2, 0.3]), "ERM", "text")
    out = capsys.readouterr().out
    assert "part in: distance of variances of the samples' gradients, the classifier" in out
    assert "undecided, needs 6 trials" in out
    assert "Dataset: EmojiStyles, part in: squared norms, sources, the classifier" in out
    assert "within-source: two groups of samples of one source environment" in " ".join(out.split())
    print_tables(rows(SAM=ERM, Fishr=ERM), "ERM", "text")
    assert "Nothing is compared, because no model is of the baseline ERM; there" in capsys.readouterr().out


def test_distances_that_are_not_finite_are_counted_and_the_figures_say_so(capsys):
    pytest.importorskip("matplotlib")
    lost = rows(ERM=[math.nan] * 3)
    for row in lost:
        row["step"] = 0.0
    print_tables(lost, "ERM", "text")
    out = " ".join(capsys.readouterr().out.split())
    assert "source-source ERM - - 0 - - - - -" in out
    assert "Note: 9 of 12 values of models are left out" in out
    for figure in (models_figure(lost, "PACS"), training_figure({"ERM": [lost]}, "PACS")):
        assert figure.get_suptitle() == "PACS: no distance is finite"
    assert page_panels(lost) == []
