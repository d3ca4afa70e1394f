from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.hparam_search import ranked_candidates


def test_the_first_candidate_is_the_one_that_selection_chooses(vlcs):
    records = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    for name in ("iid", "loo", "oracle"):
        groups = ranked_candidates(Q(records), METHODS[name])
        assert {(first.trial.seed, first.target): first.test_acc for first, *_ in groups} == {
            (trial, target): vlcs.chosen(trial, target, name) for trial in (0, 1) for target in range(4)
        }
        assert all(
            candidate.run[0]["args"]["test_envs"] == [candidate.target]
            for group in groups
            for candidate in group
        )
