"""Models and images that cannot be used: one line that names what is wrong, and nothing half-written."""

import shutil

import pytest
import torch

OLDER = ("model_class_names", "model_preprocessing", "model_format", "model_version")


@pytest.fixture
def refused(forked_script, one_line_error, tmp_path, plain_run):
    """`refused(status, *flags)`: what the script says; it leaves no output, and an earlier one as it was."""

    def run(status, *flags):
        model = () if "--model" in flags else ("--model", plain_run)
        (tmp_path / "out.csv").write_text("earlier")
        before = sorted(path.name for path in tmp_path.iterdir())
        done = forked_script("predict", *model, *flags, "--out", "out.csv", "--features", "f.npz")
        assert done.stdout == ""
        assert (tmp_path / "out.csv").read_text() == "earlier"
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return one_line_error(done, status)

    return run


@pytest.fixture
def copy(album, tmp_path):
    """A copy of one environment, "oil", in the current directory."""
    shutil.copytree(album / "oil", tmp_path / "oil")
    return tmp_path / "oil"


@pytest.fixture
def changed(plain_run, tmp_path):
    """`changed(**entries)`: a run directory whose model has other entries; None removes one."""

    def write(**entries):
        content = torch.load(plain_run / "model.pkl", weights_only=True) | entries
        (tmp_path / "changed").mkdir()
        torch.save({k: v for k, v in content.items() if v is not None}, tmp_path / "changed" / "model.pkl")
        return "changed"

    return write


def test_an_image_that_cannot_be_read(refused, copy):
    (copy / "dog" / "8.png").write_bytes(b"no image")
    line = refused(1, "--images", "oil")
    assert line.startswith("error: image oil/dog/8.png cannot be read (UnidentifiedImageError")
    assert line.endswith("replace it or delete it.")


def test_a_truncated_image_is_refused_unless_it_may_be_kept(refused, copy, forked_script, plain_run):
    path = copy / "dog" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    line = refused(1, "--images", "oil")
    assert (
        "image oil/dog/1.jpg is truncated or damaged; replace it or delete it, or use --truncated keep"
        in line
    )
    done = forked_script("predict", "--model", plain_run, "--images", "oil", "--truncated", "keep")
    assert "of 24 images" in done.stdout, done.stderr


def test_a_folder_of_other_classes(refused, copy, album, forked_script, plain_run):
    (copy / "dog").rename(copy / "cow")
    expected = (
        "error: oil has cow, but the classes of the model are cat, dog; rename the folders, or use "
        "--no_labels to read all images below it without labels."
    )
    assert refused(2, "--images", "oil") == expected
    (copy / "cat").rename(copy / "pig")
    assert refused(2, "--images", "oil") == expected.replace("cow", "cow, pig")
    done = forked_script("predict", "--model", plain_run, "--images", "oil", "--no_labels")
    assert done.stdout.splitlines()[-1].startswith("predicted: "), done.stderr
    assert len(done.stdout.splitlines()) == 25


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere", "nowhere does not exist; pass images, a folder of images, or a list (.csv, .jsonl)"),
        ("empty", "empty has no images; expected are .jpg"),
        ("texts", "texts has no images (its files: 1 not images); expected are .jpg"),
        ("mixed", "mixed has both images and folders; move one of them away, or use --no_labels"),
        ("column.csv", "column.csv, line 1: path is missing"),
        ("label.csv", "label.csv, line 2: cow is no class of the model (cat, dog)"),
        ("file.csv", "file.csv, line 3: file nowhere.png does not exist"),
    ],
)
def test_images_that_are_not_there(refused, copy, tmp_path, images, message):
    for name in ("empty", "texts", "mixed"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    (tmp_path / "mixed" / "cat").mkdir()
    shutil.copy(copy / "cat" / "0.png", tmp_path / "mixed")
    (tmp_path / "column.csv").write_text("file\noil/cat/0.png\n")
    (tmp_path / "label.csv").write_text("path,label\noil/cat/0.png,cow\n")
    (tmp_path / "file.csv").write_text("path\noil/cat/0.png\nnowhere.png\n")
    assert message in refused(2, "--images", images)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "oil/cat/0.png", "--confusion"], "--confusion needs the true classes"),
        ([], "--images is missing"),
        (["--images", "oil", "--batch_size", "0"], "--batch_size must be 1 or more, not 0"),
        (["--images", "oil", "--device", "gpu"], "--device gpu cannot be used here"),
        (["--images", "oil", "--export", "model.pth"], "--export takes a name that ends with .safetensors"),
        (["--images", "oil", "--classes", "a", "b"], "has the classes cat, dog; leave out --classes"),
    ],
)
def test_flags_that_make_no_sense(refused, copy, flags, message):
    assert message in refused(2, *flags)


def test_an_output_that_is_an_input_or_has_no_folder(
    forked_script, one_line_error, copy, plain_run, tmp_path
):
    (tmp_path / "list.csv").write_text("path\noil/cat/0.png\n")

    def line(status, *flags):
        return one_line_error(forked_script("predict", "--model", plain_run, *flags), status)

    assert "list.csv is one of the images, or their list" in line(
        2, "--images", "list.csv", "--out", "list.csv"
    )
    assert (tmp_path / "list.csv").read_text() == "path\noil/cat/0.png\n"
    own = ("--images", "oil", "--out", "oil/cat/0.png")
    assert "oil/cat/0.png is one of the images" in line(2, *own)
    assert "no/out.csv cannot be written: No such file or directory" in line(
        1, "--images", "oil", "--out", "no/out.csv"
    )


def test_models_that_are_missing_or_damaged(refused, copy, plain_run, tmp_path):
    assert "model nowhere does not exist; pass the directory of a run" in refused(
        2, "--images", "oil", "--model", "nowhere"
    )
    assert "oil has no model.pkl: its run is not finished, or it is not the directory of a run" in refused(
        2, "--images", "oil", "--model", "oil"
    )
    whole = (plain_run / "model.pkl").read_bytes()
    (tmp_path / "half.pkl").write_bytes(whole[: len(whole) // 2])
    assert "half.pkl is damaged, or is not a model written by train: " in refused(
        2, "--images", "oil", "--model", "half.pkl"
    )
    (tmp_path / "half.safetensors").write_bytes(b"12345678")
    assert "half.json cannot be read: No such file or directory" in refused(
        2, "--images", "oil", "--model", "half.safetensors"
    )
    (tmp_path / "half.json").write_text("{}")
    assert "half.safetensors or half.json is damaged, or --export did not write it: " in refused(
        2, "--images", "oil", "--model", "half.safetensors"
    )


def test_a_model_of_a_newer_release(refused, copy, changed):
    line = refused(2, "--images", "oil", "--model", changed(model_format=9, model_version="7.0"))
    assert "model changed/model.pkl cannot be used: it was written by release 7.0, and this is " in line
    assert line.endswith("; update it.")


def test_a_model_whose_network_this_release_builds_otherwise(refused, copy, changed, plain_run):
    weights = torch.load(plain_run / "model.pkl", weights_only=True)["model_dict"]
    weights = {name: value for name, value in weights.items() if "classifier" not in name}
    line = refused(2, "--images", "oil", "--model", changed(model_dict=weights, model_version="0.1.9"))
    assert "its weights, written by release 0.1.9, are not those of ERM in release" in line
    assert "Missing key(s) in state_dict" in line


def test_a_model_of_a_missing_plugin(refused, copy, changed):
    line = refused(2, "--images", "oil", "--model", changed(args={"algorithm": "Ours", "dataset": "Debug28"}))
    assert (
        "model changed/model.pkl needs a plugin that is missing here (Algorithm not found: Ours); install "
        "it, or name its module in DOMAINBED_PLUGINS" in line
    )


def test_older_files_say_what_is_missing_and_how_to_give_it(
    refused, copy, changed, forked_script, plain_run, album
):
    run = changed(**dict.fromkeys(OLDER))
    assert refused(2, "--images", "oil", "--model", run) == (
        "error: model changed was written by an older release, without the names of its 2 classes; give "
        "them in the order of the labels, or a folder that has a folder for each class, with --classes."
    )
    assert "has 2 classes, but 3 names are given" in refused(
        2, "--images", "oil", "--model", run, "--classes", "cat", "cow", "dog"
    )
    assert "--classes takes all names, or a folder; cat is not a folder" in refused(
        2, "--images", "oil", "--model", run, "--classes", "cat"
    )
    expected = forked_script("predict", "--model", plain_run, "--images", "oil")
    for given in (["cat", "dog"], [album / "ink"]):
        done = forked_script("predict", "--model", run, "--images", "oil", "--classes", *given)
        assert done.stdout == expected.stdout
        assert done.stderr == (
            "note: model changed was written by an older release, without its preprocessing; images are "
            "prepared like those of a folder of images in this release, 32 pixels a side\n"
        )
