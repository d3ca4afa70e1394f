"""The cells that several algorithms share."""

from __future__ import annotations

import math

import numpy as np

from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed_gs.report.shared_cells import shared_cells


def accuracies_of(by_target, algorithms=("a", "b", "c")):
    datasets = [ShownDataset("d", ("x", "y")), ShownDataset("e", ("z",)), ShownDataset("unused", ("u",))]
    return Accuracies("method", list(algorithms), datasets, by_target=by_target)


def complete():
    return {
        (dataset, algorithm, target): {trial: i + j + trial / 10 for trial in (0, 1)}
        for i, algorithm in enumerate("abc")
        for j, (dataset, target) in enumerate([("d", 0), ("d", 1), ("e", 0)])
    }


def test_all_cells_of_a_complete_sweep():
    shared = shared_cells(accuracies_of(complete()))
    assert (shared.algorithms, shared.datasets, shared.remarks) == (["a", "b", "c"], ["d", "e"], [])
    assert list(shared.accuracies) == [("d", "x"), ("d", "y"), ("e", "z")]
    np.testing.assert_allclose(shared.accuracies["d", "y"], [[1, 1.1], [2, 2.1], [3, 3.1]])
    np.testing.assert_allclose(shared.dataset_means(), [[0.55, 1.55, 2.55], [2.05, 3.05, 4.05]])


def test_missing_targets_and_trials_do_not_count_for_any_algorithm():
    cells = complete()
    del cells["d", "b", 1]
    cells["d", "c", 0][1] = math.nan
    shared = shared_cells(accuracies_of(cells))
    assert shared.trials == {("d", "x"): [0], ("e", "z"): [0, 1]}
    np.testing.assert_allclose(shared.dataset_means()[0], [0, 1, 2])
    assert shared.remarks == [
        "d: only the cells (target and trial) that all algorithms have count, 1 of 4 (without y: b; without "
        "x (1 of 2 trials): c)."
    ]


def test_algorithms_that_share_nothing_are_left_out():
    cells = complete()
    del cells["e", "a", 0]
    cells["d", "b", 0] = {5: 0.5}
    del cells["d", "b", 1]
    shared = shared_cells(accuracies_of(cells))
    assert shared.algorithms == ["c"]
    assert shared.remarks == [
        "Left out, without results on some dataset: a.",
        "Left out: b, which shares no cell of d with all others.",
    ]
    nothing = shared_cells(accuracies_of({}))
    assert nothing.dataset_means().shape == (0, 3)
