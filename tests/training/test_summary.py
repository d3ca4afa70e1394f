"""What a run prints last."""

import json

import pytest

from domainbed.training.summary import summary

ARGS = {"test_envs": [2], "dataset": "Mine", "algorithm": "ERM", "trial_seed": 0, "hparams_seed": 0}
NAMES = ["Flat", "Line", "Drawn"]


def write(path, *records):
    lines = [json.dumps({"args": ARGS, "environments": NAMES, **record}) for record in records]
    (path / "results.jsonl").write_text("\n".join(lines) + "\n")
    return summary(path)


def test_the_first_step_with_the_best_mean_of_the_sources_is_selected(tmp_path):
    (tmp_path / "model.pkl").touch()
    lines = write(
        tmp_path,
        {"step": 0, "env0_out_acc": 0.5, "env1_out_acc": 0.5, "env2_in_acc": 0.9},
        {"step": 5, "env0_out_acc": 0.8, "env1_out_acc": 0.6, "env2_in_acc": 0.25},
        {"step": 9, "env0_out_acc": 0.7, "env1_out_acc": 0.7, "env2_in_acc": 0.4},
    )
    assert lines == [
        "Selected step: 5, by a mean validation accuracy of 70.00% on Flat, Line",
        "Accuracy there on the target Drawn: 25.00%",
        f"Files: results.jsonl, model.pkl in {tmp_path}",
    ]


def test_a_test_split_is_what_the_target_is_reported_on(tmp_path):
    record = {"step": 0, "env0_out_acc": 0.5, "env2_in_acc": 0.9, "env2_out_acc": 0.8, "env2_test_acc": 0.125}
    assert write(tmp_path, record)[1] == "Accuracy there on the target Drawn: 12.50%"


@pytest.mark.parametrize("accuracies", [{}, {"env0_out_acc": float("nan")}])
def test_without_validation_accuracies_the_last_step_is_shown(tmp_path, accuracies):
    lines = write(tmp_path, {"step": 0} | accuracies, {"step": 7, "env2_in_acc": 0.5} | accuracies)
    assert lines[0].startswith("Selected step: 7, ")
    assert lines[1] == "Accuracy there on the target Drawn: 50.00%"
    assert lines[2] == f"Files: results.jsonl in {tmp_path}"
