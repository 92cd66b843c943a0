"""What archives come to: names, links and whiteouts, decided before a byte is written."""

from __future__ import annotations

import pytest

from aiservice_downloader.tree import Content, Entry, Kind, Tree


def file(name: str, size: int = 1) -> Entry:
    return Entry(name, Kind.FILE, size)


def link(name: str, target: str, kind: Kind = Kind.SYMLINK) -> Entry:
    return Entry(name, kind, target=target)


def tree(*archives: list[Entry], layers: bool = False) -> Tree:
    made = Tree(layers=layers)
    for entries in archives:
        made.add(entries)
    return made


def test_names_are_cleaned_and_folders_are_no_files() -> None:
    made = tree([Entry("./", Kind.FOLDER), Entry("./a/", Kind.FOLDER), file("./a//b"), file("c")])
    assert made.files("") == {"a/b": Content(0, 2, 1), "c": Content(0, 3, 1)}


def test_the_last_of_two_entries_counts() -> None:
    assert tree([file("a", 1), file("a", 2)]).files("") == {"a": Content(0, 1, 2)}
    assert tree([file("a"), file("a/b")]).files("") == {"a/b": Content(0, 1, 1)}
    assert tree([file("a/b"), file("a")]).files("") == {"a": Content(0, 1, 1)}
    assert set(tree([file("a/b"), Entry("a", Kind.FOLDER)]).files("")) == {"a/b"}


def test_only_what_is_below_a_folder() -> None:
    made = tree([file("models/sdxl/a"), file("models/sdxl-turbo/b"), file("etc/c")])
    assert set(made.files("models/sdxl")) == {"a"}
    assert set(made.files("models")) == {"sdxl/a", "sdxl-turbo/b"}
    assert set(made.files("etc/c")) == {"c"}
    assert made.files("none") == {}


def test_links_to_files_are_files() -> None:
    made = tree([file("blobs/x", 7), link("snap/a", "../blobs/x"), link("b", "blobs/x", Kind.HARDLINK)])
    content = Content(0, 0, 7)
    assert made.files("") == {"blobs/x": content, "snap/a": content, "b": content}
    assert made.files("snap") == {"a": content}


def test_links_to_folders_on_the_way_are_followed() -> None:
    assert tree([link("lib", "usr/lib"), file("usr/lib/a"), file("lib/b")]).files("lib") == {
        "a": Content(0, 1, 1),
        "b": Content(0, 2, 1),
    }


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([file("../a")], "leads out"),
        ([file("a/../../b")], "leads out"),
        ([file("/etc/passwd")], "absolute"),
        ([link("a", "/etc/passwd")], "link out of the archive"),
        ([link("d/a", "../../x")], "link out of the archive"),
        ([link("a", "../x", Kind.HARDLINK)], "leads out"),
        ([link("a", "b", Kind.HARDLINK)], "no file before it"),
        ([Entry("dev/null", Kind.SPECIAL)], "a device or a pipe"),
        ([file("/".join("a" * 201))], "folders deep"),
    ],
)
def test_entries_that_lead_out_are_refused(entries: list[Entry], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tree(entries)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([link("a", "b")], "not there"),
        ([link("a", "a")], "not there"),
        ([file("d/x"), link("a", "d")], "no file"),
    ],
)
def test_links_that_lead_to_no_file_are_refused(entries: list[Entry], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        tree(entries).files("")


def test_links_to_links_end_before_they_take_for_ever() -> None:
    entries = [Entry("d0", Kind.FOLDER)]
    entries += [link(f"d{number}", f"d{number - 1}/../d{number - 1}") for number in range(1, 60)]
    assert tree(entries).files("d59") == {}


def test_whiteouts_delete_from_earlier_layers_only_wherever_they_stand() -> None:
    first = [file("a"), file("d/old"), file("e/old"), file("f/x")]
    second = [file("d/new"), file("d/.wh..wh..opq"), file(".wh.a"), file("a"), file("e/.wh.old"), file(".wh.f")]
    assert set(tree(first, second, layers=True).files("")) == {"a", "d/new"}
    assert set(tree([file(".wh.a")]).files("")) == {".wh.a"}  # a name like others outside of images


def test_links_in_an_image_are_read_as_in_a_container() -> None:
    made = tree([file("data/x"), link("models/a", "/data/x"), link("models/b", "../../../data/x")], layers=True)
    assert set(made.files("models")) == {"a", "b"}
    with pytest.raises(ValueError, match="a device or a pipe"):
        tree([Entry("models/null", Kind.SPECIAL)], layers=True).files("models")
    assert set(tree([Entry("dev/null", Kind.SPECIAL), file("m/a")], layers=True).files("m")) == {"a"}
