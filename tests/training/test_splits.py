import pytest

from domainbed.datasets import get_dataset_class
from domainbed.datasets.splitting import split_dataset
from domainbed.errors import UsageError
from domainbed.seeds import seed_hash
from domainbed.training.config import TrainConfig
from domainbed.training.splits import make_splits, parse_scheme


def splits_of(data, **settings):
    return make_splits(data, TrainConfig(**settings).split_request())


@pytest.fixture(scope="module")
def emoji():
    return get_dataset_class("EmojiStyles")(None, [], {})


def keys_in_environment(part):
    if hasattr(part.underlying_dataset, "keys"):
        return [part.underlying_dataset.keys[key] for key in part.keys]
    return list(part.keys)


def test_names_and_options_of_schemes():
    assert parse_scheme("holdout") == ("holdout", ())
    assert parse_scheme("70/10/20") == ("stratified", ("70/10/20",))
    assert parse_scheme("70/10/20:per_trial") == ("stratified", ("70/10/20", "per_trial"))


def test_holdout_equals_upstreams_splits(emoji):
    config = TrainConfig(dataset="EmojiStyles", test_envs=[1], trial_seed=2, uda_holdout_fraction=0.25)
    splits = make_splits(emoji, config.split_request())
    for index, parts in enumerate(splits):
        out, in_ = split_dataset(emoji[index], int(len(emoji[index]) * 0.2), seed_hash(2, index))
        assert keys_in_environment(parts["out"]) == out.keys
        if index != 1:
            assert keys_in_environment(parts["in"]) == in_.keys
            assert "uda" not in parts
        else:
            uda, rest = split_dataset(in_, int(len(in_) * 0.25), seed_hash(2, 1))
            assert keys_in_environment(parts["uda"]) == keys_in_environment(uda)
            assert keys_in_environment(parts["in"]) == keys_in_environment(rest)


def test_a_target_is_shuffled_twice_even_without_a_uda_part(emoji):
    target, source = (splits_of(emoji, test_envs=[index])[0]["in"] for index in (0, 1))
    assert sorted(keys_in_environment(target)) == sorted(source.keys)
    assert keys_in_environment(target) != source.keys


def test_holdout_takes_no_options(emoji):
    with pytest.raises(UsageError, match="takes no options, not 80/20"):
        splits_of(emoji, splits="holdout:80/20")


def test_whole_trains_on_all_sources_and_tests_on_the_whole_target(emoji):
    splits = make_splits(
        emoji, TrainConfig(splits="whole", test_envs=[1, 3], holdout_fraction=0.5).split_request()
    )
    for index, parts in enumerate(splits):
        assert set(parts) == ({"in", "test"} if index in (1, 3) else {"in"})
        for part in parts.values():
            assert keys_in_environment(part) == list(range(len(emoji[index])))
    with pytest.raises(UsageError, match="--splits whole takes no options, not per_trial"):
        splits_of(emoji, splits="whole:per_trial")
