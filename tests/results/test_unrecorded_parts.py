"""Reports on runs with `--evaluate reported` name the parts and selection methods that these lack."""

import pytest

import domainbed
from domainbed.errors import UsageError
from domainbed.scripts import collect_results


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    settings = {"dataset": "EmojiStyles", "test_envs": [2], "splits": "70/10/20", "evaluate": "reported"}
    settings |= {"steps": 1, "skip_model_save": True, "hparams": {"batch_size": 2}}
    domainbed.train(output_dir=root / "run", **settings)
    return root


def collect(sweep, *flags):
    collect_results.main(["--input_dir", str(sweep), *flags])


def test_the_papers_selection_needs_no_other_part(sweep, capsys):
    collect(sweep, "--selection", "iccv2021", "iccv2021_macro", "last")
    out, err = capsys.readouterr()
    assert out.count("+/-") >= 3
    assert "--evaluate" not in err


def test_methods_and_parts_that_were_not_recorded_are_named(sweep, capsys):
    collect(sweep, "--selection", "iccv2021", "iid", "oracle")
    assert (
        "note: runs with --evaluate reported lack accuracies on the target's part in and out, so selection "
        "methods have no result from them: iid, oracle; train with --evaluate selection, or choose others "
        "with --selection\n"
    ) in capsys.readouterr().err


def test_all_images_of_the_target_were_not_recorded(sweep):
    with pytest.raises(UsageError, match=r"these records lack \(--evaluate reported records one part\)"):
        collect(sweep, "--selection", "iccv2021", "--paired", "--target_part", "all")
