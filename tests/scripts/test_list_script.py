"""The command `python -m domainbed.scripts.list`."""

import json

import pytest

from domainbed.algorithms import ALGORITHMS
from domainbed.algorithms.catalogue import facts_of
from domainbed.listing.kinds import KINDS, algorithms
from domainbed.listing.text import in_full, table


def test_everything_as_json(forked_script):
    shown = json.loads(forked_script("list", "--json").stdout)
    assert list(shown) == list(KINDS)
    assert all(shown.values())
    erm = shown["algorithms"]["ERM"]["hparams"]
    assert (erm["batch_size"]["default"], erm["batch_size"]["default_small_images"]) == (32, 64)
    assert all(entry["about"] for entry in shown["algorithms"].values())
    assert "order" in shown["algorithms"]["PCGrad"]["hparams"]
    assert shown["datasets"]["EmojiStyles"] == {
        "environments": ["Flat", "Gradient", "Line", "Rendered"],
        "missing": None,
    }
    assert "alexnet" in shown["featurizers"]
    assert "featurizer" in shown["options"]
    assert {"local", "multi_gpu", "dummy"} <= set(shown["launchers"])
    assert {"iid", "loo", "oracle", "iccv2021", "last"} <= set(shown["selection"])
    assert "70/10/20" in " ".join(shown["splits"]) or "holdout" in shown["splits"]
    assert shown["plugins"]["domainbed_gs"]["about"] == "ok"


def widest(text):
    return max(map(len, text.splitlines()))


def test_without_arguments_it_is_one_screen_of_counts_and_what_to_type_next(forked_script):
    text = forked_script("list").stdout
    assert len(text.splitlines()) <= 40
    assert widest(text) <= 80
    counts = {line.split()[0]: line.split()[1] for line in text.splitlines()[: len(KINDS)]}
    assert list(counts) == list(KINDS)
    assert counts["algorithms"] == str(len(ALGORITHMS))
    assert "python -m domainbed.scripts.list algorithms 'Agr*'" in text


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_is_a_table_of_80_columns(forked_script, kind):
    done = forked_script("list", kind)
    assert done.returncode == 0
    assert done.stderr == ""
    heading, *lines = done.stdout.splitlines()
    assert heading.startswith("name ")
    assert len(lines) >= len(KINDS[kind](None))
    assert widest(done.stdout) <= 80


def test_a_glob_chooses_the_rows_of_a_table_whatever_the_case(forked_script):
    lines = forked_script("list", "algorithms", "agr*", "*dro").stdout.splitlines()
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == ["name", "AgrSum", "AgrRand", "GroupDRO"]


def test_a_name_alone_is_shown_in_full_with_all_its_facts(forked_script):
    text = forked_script("list", "algorithms", "AgrSum").stdout
    facts = facts_of("AgrSum")
    flat = " ".join(text.split())
    for key in ("idea", "paper", "cost", "memory", "one_environment"):
        assert str(facts[key]) in flat
    assert text.startswith("AgrSum (2021)\n")
    assert "several processes can share an update" in flat
    assert "freeze_masked" in text
    assert "Hyper-parameters as those of ERM: data_augmentation" in flat
    assert widest(text) <= 80


def test_hyper_parameters_have_their_random_draws(forked_script):
    flat = " ".join(forked_script("list", "algorithms", "PGrad", "MIRO").stdout.split())
    assert "inner Adam; random: the default, for small images 10^U(-4.5, -2.5)" in flat
    assert "outer step; random: 10^U(-6, -4), for small images the default" in flat
    assert "number of principal directions; random: one of 1, 2, 4, 8" in flat
    assert "weight of the regularisation; random: one of 0.001, 0.01, 0.1, 1.0" in flat
    entry = json.loads(forked_script("list", "algorithms", "ERM", "--json").stdout)["algorithms"]["ERM"]
    assert entry["hparams"]["batch_size"]["random"] == "2^U(3, 5.5), truncated"


def test_a_class_without_facts_is_listed_too():
    entry = algorithms(None)["ERM"] | {"about": "A plugin's.", "facts": {"module": "mine", "shared": False}}
    assert table("algorithms", {"Mine": entry})[1].split() == ["Mine", "?", "?", "?", "A", "plugin's."]
    assert in_full("Mine", entry, {})[0] == "Mine"


def test_a_misspelt_name_gets_the_nearest_ones(forked_script, one_line_error):
    message = one_line_error(forked_script("list", "algorithms", "AgrSun"), 2)
    assert message.startswith("error: Algorithm not found: AgrSun. Did you mean AgrSum")
    message = one_line_error(forked_script("list", "selection", "orakle"), 2)
    assert message == "error: Selection method not found: orakle. Did you mean oracle?"
    message = one_line_error(forked_script("list", "datasets", "Zzz*"), 2)
    assert message.startswith(
        "error: no datasets match 'Zzz*'; python -m domainbed.scripts.list datasets lists"
    )


def test_names_are_chosen_in_json_too(forked_script):
    shown = json.loads(forked_script("list", "algorithms", "MLDG", "--json").stdout)
    assert list(shown["algorithms"]) == ["MLDG"]
    assert shown["algorithms"]["MLDG"]["facts"]["one_environment"] == "refused"


def test_only_the_given_kinds_are_listed(forked_script):
    shown = json.loads(forked_script("list", "--json", "splits", "launchers").stdout)
    assert list(shown) == ["splits", "launchers"]


def test_datasets_are_ready_or_have_a_reason_why_not(forked_script, tmp_path):
    for environment in ("art_painting", "cartoon", "photo", "sketch"):
        (tmp_path / "PACS" / environment / "dog").mkdir(parents=True)
    (tmp_path / "VLCS" / "LabelMe").mkdir(parents=True)
    shown = json.loads(forked_script("list", "datasets", "--json", "--data_dir", tmp_path).stdout)["datasets"]
    assert shown["PACS"]["missing"] is None
    assert "lacks Caltech101, SUN09, VOC2007" in shown["VLCS"]["missing"]
    assert "office_home does not exist" in shown["OfficeHome"]["missing"]
    text = forked_script("list", "datasets", "--data_dir", tmp_path).stdout
    assert ["PACS", "ready", "A,", "C,", "P,", "S"] in [line.split() for line in text.splitlines()]
    rows = [line.split() for line in forked_script("list", "datasets").stdout.splitlines()]
    assert ["PACS", "no", "data", "A,", "C,", "P,", "S"] in rows
    assert ["Debug28", "ready", "0,", "1,", "2"] in rows
    in_full = " ".join(forked_script("list", "datasets", "PACS").stdout.split())
    assert "missing PACS needs --data_dir, the folder that holds its data; run" in in_full


def test_an_unknown_kind_is_refused(forked_script, one_line_error):
    message = one_line_error(forked_script("list", "algoritms"), 2)
    assert message == "error: Kind not found: algoritms. Did you mean algorithms?"


def test_featurizers_say_whether_their_weights_are_on_this_machine(forked_script, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").touch()
    shown = json.loads(forked_script("list", "featurizers", "--json").stdout)["featurizers"]
    weights = {name: entry["weights"] for name, entry in shown.items()}
    assert weights["resnet18"] == f"weights at hand: {folder / 'resnet18-f37072fd.pth'}"
    assert weights["alexnet"] == "weights not at hand: torchvision alexnet (IMAGENET1K_V1)"
    assert weights["mnist_cnn"] == "no pretrained weights"
    assert weights["dinov2"].startswith("weights not at hand: ")
    assert "efficientnet" in weights["efficientnet_lite0"]
    rows = [line.split()[:3] for line in forked_script("list", "featurizers").stdout.splitlines()]
    assert ["alexnet", "not", "here"] in rows
    assert ["resnet18", "here", "A"] in rows
