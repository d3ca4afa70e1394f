import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.datasets import get_dataset_class
from domainbed.errors import UsageError
from domainbed.training.config import TrainConfig
from domainbed.training.derived import split_request
from domainbed.training.splits import SplitRequest, make_splits
from domainbed_gs.splits import split_indices, stratified


@pytest.fixture(scope="module")
def emoji():
    return get_dataset_class("EmojiStyles")(None, [], {})


def split(dataset, *options, trial_seed=0):
    return stratified(dataset, SplitRequest((0,), trial_seed, 0.2, 0, options))


def keys(parts):
    return {kind: list(part.keys) for kind, part in parts.items()}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 2**31))
def test_parts_divide_the_environment_and_every_class(labels, seed):
    labels = np.array(labels)
    parts = split_indices(labels, (0.7, 0.1, 0.2), np.random.RandomState(seed))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    for label in np.unique(labels):
        n = int((labels == label).sum())
        for kind, share in (("out", 0.1), ("test", 0.2), ("in", 0.7)):
            found = int((labels[parts[kind]] == label).sum())
            assert abs(found - share * n) <= 1.5
            assert found >= 1 or n < 3


def test_all_trials_share_one_split(emoji):
    first, other = split(emoji, "70/10/20"), split(emoji, "70/10/20", trial_seed=5)
    assert [keys(parts) for parts in first] == [keys(parts) for parts in other]


def test_per_trial_gives_each_trial_its_own_split(emoji):
    first, other = (split(emoji, "70/10/20", "per_trial", trial_seed=seed) for seed in (0, 1))
    assert keys(first[0]) != keys(other[0])


def test_splits_are_independent_of_other_environments_except_with_one_stream(emoji):
    class Reversed:
        ENVIRONMENTS = emoji.ENVIRONMENTS[::-1]
        datasets = emoji.datasets[::-1]

    for options, same in (((), True), (("one_stream",), False)):
        forward = split(emoji, "70/10/20", *options)[0]
        backward = split(Reversed, "70/10/20", *options)[-1]
        assert (keys(forward) == keys(backward)) is same


def test_unstratified_ignores_classes(emoji):
    labels = np.asarray(emoji[0].targets)
    parts = split(emoji, "70/10/20", "unstratified")[0]
    assert len(parts["test"]) == round(0.2 * len(labels))
    stratified_counts = np.bincount(labels[keys(split(emoji, "70/10/20")[0])["test"]])
    assert np.bincount(labels[keys(parts)["test"]]).tolist() != stratified_counts.tolist()


@pytest.mark.parametrize("shares", ["70/10", "70/10/30", "a/b/c", "100/0/0"])
def test_invalid_percentages_are_refused(emoji, shares):
    with pytest.raises(UsageError, match="percentages"):
        split(emoji, shares)


def test_an_unknown_option_suggests_the_nearest(emoji):
    with pytest.raises(UsageError, match="no option 'per_trail'") as info:
        split(emoji, "70/10/20", "per_trail")
    assert info.value.__notes__ == ["Did you mean per_trial?"]


def test_splits_flag_reaches_the_scheme(emoji):
    config = TrainConfig(dataset="EmojiStyles", splits="80/10/10:per_trial")
    parts = make_splits(emoji, split_request(config))
    assert [round(len(part) / 1283, 2) for part in parts[0].values()] == [0.8, 0.1, 0.1]
