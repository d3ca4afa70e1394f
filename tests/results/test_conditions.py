import pytest

from domainbed.results.conditions import algorithm_and_condition, method_name, with_method_names


@pytest.mark.parametrize(
    ("algorithm", "condition", "method"),
    [("AgrSum", "pooled", "AgrSum/pooled"), ("AgrSum", "domain", "AgrSum"), ("AgrSum", None, "AgrSum")],
)
def test_only_an_unusual_condition_shows_in_the_name(algorithm, condition, method):
    assert method_name(algorithm, condition) == method
    assert algorithm_and_condition(method) == (algorithm, condition or "domain")


def test_records_are_renamed_in_copies():
    record = {"step": 1, "args": {"algorithm": "PCGrad", "grouping": "single_domain", "test_envs": [0]}}
    ordinary = {"step": 1, "args": {"algorithm": "PCGrad"}}
    first, second, third = with_method_names([record, record | {"step": 2}, ordinary])
    assert first["args"] == {**record["args"], "algorithm": "PCGrad/single_domain"}
    assert record["args"]["algorithm"] == "PCGrad"
    assert second == {"step": 2, "args": first["args"]}
    assert second["args"] is first["args"]
    assert third is ordinary
