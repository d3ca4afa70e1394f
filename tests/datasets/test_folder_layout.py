"""Folders root/environment/class/image, and errors for folders with another layout."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.datasets.folder_layout import environment_names, read_layout
from domainbed.errors import UsageError

CLASSES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["x", "Y", "z 1"]), CLASSES, min_size=1))
def test_a_layout_is_read_if_and_only_if_all_environments_have_the_same_classes(tree):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for environment, classes in tree.items():
            for name, n in classes.items():
                touch(root, *(f"{environment}/{name}/{i}.png" for i in range(n)))
        if len({frozenset(classes) for classes in tree.values()}) > 1:
            with pytest.raises(UsageError, match="have different classes"):
                read_layout(root)
            return
        layout = read_layout(root)
        assert layout.environments == tuple(sorted(tree))
        for environment, classes in tree.items():
            assert layout.classes == tuple(sorted(classes))
            expected = [(name, i) for name in layout.classes for i in range(classes[name])]
            found = [
                (Path(path).parent.name, int(Path(path).stem)) for path, _ in layout.samples(environment)
            ]
            assert found == expected
            assert [layout.classes[label] for _, label in layout.samples(environment)] == [
                n for n, _ in found
            ]


def test_hidden_files_and_other_files_than_images_are_ignored(tmp_path):
    touch(tmp_path, "env/cat/1.png", "env/cat/._1.png", "env/cat/Thumbs.db", "env/cat/.cache/2.png")
    touch(tmp_path, "imagelist.txt", ".git/x/1.png", "env/.hidden/1.png", "env/.DS_Store", ".photo.jpg")
    layout = read_layout(tmp_path)
    assert (layout.environments, layout.classes) == (("env",), ("cat",))
    assert layout.samples("env") == [(str(tmp_path / "env" / "cat" / "1.png"), 0)]


def test_images_are_in_torchvisions_order(tmp_path):
    from torchvision.datasets import ImageFolder

    touch(
        tmp_path,
        *(f"env/{c}/{i}" for c in "ba" for i in ("10.png", "9.JPG", "x/1.webp", "x!/2.bmp", "B.png")),
    )
    assert read_layout(tmp_path).samples("env") == ImageFolder(str(tmp_path / "env")).samples


def test_links_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "root" / "env").mkdir(parents=True)
    (tmp_path / "root" / "env" / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(read_layout(tmp_path / "root").samples("env")) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no environments; expected are folders root/environment/class"),
        (["1.png"], r"1\.png is where a folder is expected"),
        (["env/1.jpeg", "env/cat/1.png"], r"1\.jpeg is where a folder is expected"),
        (["a/cat/1.png", "b/notes.txt"], "environment b has no class folders"),
        (
            ["a/cat/1.png", "b/dog/1.png"],
            "of .*: a lacks dog; b lacks cat; every environment needs every class",
        ),
        (["a/cat/1.png", "a/dog/1.png", "b/dog/1.png"], "of .*: b lacks cat; every"),
        ([*(f"a/{i}/1.png" for i in range(9)), "b/0/1.png"], "b lacks 1, 2, 3, 4, 5, 6 and 2 more;"),
    ],
)
def test_a_wrong_layout_is_refused_in_one_line(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(UsageError, match=message) as raised:
        read_layout(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_class_without_images_is_refused(tmp_path):
    touch(tmp_path, "a/cat/1.png", "a/dog/.hidden.png")
    with pytest.raises(UsageError, match="class dog of environment a has no images"):
        read_layout(tmp_path).samples("a")


def test_a_path_that_is_not_a_folder_is_refused(tmp_path):
    touch(tmp_path, "file")
    for name in ("file", "nowhere"):
        with pytest.raises(UsageError, match=f"{name} does not exist or is not a folder"):
            environment_names(tmp_path / name)


def test_expected_environments_have_the_expected_order_and_no_others_are_allowed(tmp_path):
    touch(tmp_path, "b/x/1.png", "a/x/1.png", "ImageInfo.csv")
    assert environment_names(tmp_path, ("b", "a")) == ("b", "a")
    with pytest.raises(
        UsageError, match="must have the folders a, c and no others; it lacks c and also has b"
    ):
        environment_names(tmp_path, ("a", "c"))
    with pytest.raises(UsageError, match=r"it also has b$"):
        environment_names(tmp_path, ("a",))


def test_an_error_names_a_folder_without_read_permission():
    """Root may read everything, so the test changes to another user if root runs it."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        touch(Path(directory), "env/cat/1.png")
        (Path(directory) / "env" / "cat").chmod(0)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)
        try:
            with pytest.raises(UsageError, match="cat cannot be read: Permission denied"):
                read_layout(Path(directory)).samples("env")
        finally:
            os.seteuid(user)
            (Path(directory) / "env" / "cat").chmod(0o700)
