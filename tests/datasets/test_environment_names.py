"""Environments by index or name: which index a name becomes, and what a misspelt one is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.datasets.environment_names import environment_indices, index_or_name
from domainbed.datasets.image_folder import folder_dataset
from domainbed.errors import UsageError, describe

NAMES = ("Flat", "Gradient", "Line", "Rendered")
WORDS = st.text(st.characters(categories=("Lu", "Ll")), min_size=1, max_size=6)


def indices(*given, names=NAMES, dataset="EmojiStyles"):
    return environment_indices(given, names, dataset)


@given(st.lists(WORDS, min_size=1, max_size=8, unique=True))
def test_a_name_is_the_index_of_the_environment_that_is_written_like_it(names):
    assert indices(*names, names=names, dataset="no dataset") == list(range(len(names)))


@given(st.lists(WORDS, min_size=1, max_size=8, unique_by=str.casefold))
def test_capitals_do_not_matter_where_no_other_name_differs_by_them_alone(names):
    given = [name.casefold() for name in names]
    assert indices(*given, names=names, dataset="no dataset") == list(range(len(names)))


@given(st.integers(-100, 100))
def test_a_number_is_an_index_whatever_environments_are_called(number):
    assert index_or_name(str(number)) == number
    assert indices(str(number), number, names=("0", "1", "2"), dataset="Debug28") == [number, number]


def test_indices_and_names_may_be_mixed():
    assert indices(3, "line", "0") == [3, 2, 0]


@pytest.mark.parametrize(
    ("dataset", "names", "given", "expected"),
    [
        ("PACS", "ACPS", ["sketch", "Art_painting", "P"], [3, 0, 2]),
        ("OfficeHome", "ACPR", ["real world", "Clipart"], [3, 1]),
        ("TerraIncognita", ["L100", "L38", "L43", "L46"], ["l43", "location_46"], [2, 3]),
    ],
)
def test_environments_of_folders_have_the_folders_names_too(dataset, names, given, expected):
    assert indices(*given, names=tuple(names), dataset=dataset) == expected


def test_environments_of_a_users_folder_are_called_like_its_folders(tmp_path):
    for name in ("night shots", "Café", "day"):
        (tmp_path / name / "cat").mkdir(parents=True)
    names = folder_dataset(tmp_path).ENVIRONMENTS
    assert names == ("Café", "day", "night shots")
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}"
    assert indices(decomposed, "Night Shots", names=names, dataset=str(tmp_path)) == [0, 2]


@pytest.mark.parametrize(
    ("given", "names", "dataset", "message"),
    [
        (
            "Lin",
            NAMES,
            "EmojiStyles",
            "--test_envs Lin: EmojiStyles has no such environment. Did you mean Line",
        ),
        (
            "x",
            NAMES,
            "EmojiStyles",
            "EmojiStyles has no such environment. Known: Flat, Gradient, Line, Rendered.",
        ),
        ("skech", tuple("ACPS"), "PACS", "PACS has no such environment. Did you mean sketch?"),
        ("", NAMES, "EmojiStyles", "EmojiStyles has no such environment. Known: "),
        (
            "AB",
            ("Ab", "c", "aB"),
            "mine",
            "AB could be any of the environments 0 (Ab), 2 (aB) of mine; give an index",
        ),
        ("a", ("a", "a"), "mine", "a could be any of the environments 0 (a), 1 (a) of mine; give an index."),
    ],
)
def test_a_name_that_means_no_environment_or_several_is_refused_in_one_line(given, names, dataset, message):
    with pytest.raises(UsageError) as info:
        indices(given, names=names, dataset=dataset)
    assert message in describe(info.value)
    assert "\n" not in describe(info.value)
