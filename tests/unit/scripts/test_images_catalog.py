"""What images are made of: an image is built again when that changes, and only then."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from images import __main__ as command
from images.base import sources_of
from images.catalog import IMAGES, Image, content_id, copied, select, version_of
from images.console import shown_step, table
from images.engines import Build, Buildah, Place, build_options, needs_tls
from images.errors import ImagesError

ROOT = Path(__file__).resolve().parents[3]

DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS other
FROM ${BASE_IMAGE}
COPY part/requirements.txt \\
     part/torch-${TORCH}.txt /opt/build/
COPY --from=other /x /y
COPY part/src /app/
"""
ARGUMENTS = {"TORCH": "cpu", "BASE_IMAGE": "python:3.11-slim"}
IMAGE = Image("part", "part", torch=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "part/src/module").mkdir(parents=True)
    (tmp_path / "part/Dockerfile").write_text(DOCKERFILE)
    for name in ("requirements.txt", "torch-cpu.txt", "torch-cuda.txt", "src/module/__init__.py", "README.md"):
        (tmp_path / "part" / name).write_text(name)
    (tmp_path / "part/pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    return tmp_path


def test_what_a_dockerfile_copies_is_read_from_it() -> None:
    assert copied(DOCKERFILE, ARGUMENTS) == ["part/requirements.txt", "part/torch-cpu.txt", "part/src"]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_file_that_the_dockerfiles_copy_may_be_copied(image: Image) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied((ROOT / image.dockerfile).read_text(), ARGUMENTS):
        assert any(Path(source).match(pattern) or Path(source).is_relative_to(pattern) for pattern in allowed), source


@pytest.mark.parametrize("image", [image for image in IMAGES if not image.demo], ids=lambda image: image.name)
def test_every_image_has_a_content_and_a_version(image: Image) -> None:
    assert content_id(ROOT, image, ARGUMENTS) == content_id(ROOT, image, ARGUMENTS)
    assert version_of(ROOT, image) == "0.1.0"


def test_the_layers_that_engines_share_come_first_and_are_the_same() -> None:
    heads = set()
    for image in IMAGES:
        if image.torch:
            text = (ROOT / image.dockerfile).read_text()
            heads.add(text[text.index("FROM scratch AS wheels") : text.index("bin/protoc*")])  # the torch layer's end
    assert len(heads) == 1


@pytest.mark.parametrize(
    "change",
    [
        "part/Dockerfile",
        "part/requirements.txt",
        "part/torch-cpu.txt",
        "part/src/module/__init__.py",
        "part/src/new.py",
    ],
)
def test_a_change_of_what_is_copied_changes_the_content(repository: Path, change: str) -> None:
    before = content_id(repository, IMAGE, ARGUMENTS)
    path = repository / change
    path.write_text((path.read_text() if path.exists() else "") + "\n# changed\n")
    assert content_id(repository, IMAGE, ARGUMENTS) != before


@pytest.mark.parametrize(
    "change", ["part/README.md", "part/torch-cuda.txt", "part/src/__pycache__/x.pyc", "other/file"]
)
def test_other_changes_do_not(repository: Path, change: str) -> None:
    before = content_id(repository, IMAGE, ARGUMENTS)
    (repository / change).parent.mkdir(exist_ok=True)
    (repository / change).write_text("changed")
    assert content_id(repository, IMAGE, ARGUMENTS) == before


def test_build_arguments_and_file_modes_are_part_of_the_content(repository: Path) -> None:
    before = content_id(repository, IMAGE, ARGUMENTS)
    assert content_id(repository, IMAGE, {**ARGUMENTS, "TORCH": "cuda"}) != before
    assert content_id(repository, IMAGE, {**ARGUMENTS, "BASE_IMAGE": "debian"}) != before
    (repository / "part/requirements.txt").chmod(0o755)
    assert content_id(repository, IMAGE, ARGUMENTS) != before


def test_a_missing_source_is_named(repository: Path) -> None:
    (repository / "part/requirements.txt").unlink()
    with pytest.raises(ImagesError, match=r"part/requirements\.txt is copied by part/Dockerfile"):
        content_id(repository, IMAGE, ARGUMENTS)


def test_the_version_comes_from_the_project_file(repository: Path) -> None:
    assert version_of(repository, IMAGE) == "1.2.3"
    (repository / "part/pyproject.toml").write_text("[project]\n")
    with pytest.raises(ImagesError, match="does not tell the version"):
        version_of(repository, IMAGE)


def test_images_are_chosen_by_name_in_a_fixed_order() -> None:
    assert [image.name for image in select(["vision", "operator"])] == ["operator", "vision"]
    assert not any(image.demo for image in select([]))
    with pytest.raises(ImagesError, match="no such image: visoin; there are operator, gateway"):
        select(["visoin"])


def test_the_machines_sources_become_those_of_the_base_image() -> None:
    assert sources_of(
        [
            "http://mirror.example/debian/ trixie main",
            "http://mirror.example/debian/ trixie contrib",
            "http://mirror.example/debian/ trixie-updates main",
            "http://mirror.example/debian/ trixie-backports main",
            "http://security.example/ trixie-security main",
        ]
    ) == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian/ bookworm-updates main",
        "deb http://security.example/ bookworm-security main",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("STEP 3/9: RUN --mount=type=cache,target=/x   apt-get update", "step 3/9: RUN apt-get update"),
        ("[2/2] STEP 1/18: FROM localhost/base", "step 1/18: FROM localhost/base"),
        ("#12 [stage-1 5/9] RUN make", "step 5/9: RUN make"),
        ("#12 [5/9] COPY a b", "step 5/9: COPY a b"),
        ("STEP 4/9: ENV A=b", None),
        ("Get:1 http://mirror.example bookworm InRelease", None),
    ],
)
def test_steps_of_both_engines_are_recognised(line: str, expected: str | None) -> None:
    assert shown_step(line + "\n") == expected


def test_tables_line_up() -> None:
    assert table(("A", "LONG"), [("value", "x"), ("y", "z")]) == "A      LONG\nvalue  x\ny      z"


def test_both_engines_get_the_same_options(tmp_path: Path) -> None:
    build = Build("t:1", "part/Dockerfile", {"B": "2", "A": "1"}, tmp_path, fresh=True)
    options = build_options(build, Path("/repo"))
    assert options[:8] == [
        "--file",
        "/repo/part/Dockerfile",
        "--tag",
        "t:1",
        "--build-arg",
        "A=1",
        "--build-arg",
        "B=2",
    ]
    assert f"wheels={tmp_path}" in options
    assert options[-1] == "--no-cache"


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        ("localhost:5000/aiservice/operator:0.1.0", True),
        ("127.0.0.1:5000/aiservice/operator:0.1.0", True),
        ("registry.example/team/aiservice/operator:0.1.0", False),
        ("localhost.example/aiservice/operator:0.1.0", False),
    ],
)
def test_only_a_registry_on_this_machine_may_do_without_tls(target: str, plain: bool) -> None:
    assert needs_tls(target) is not plain


def test_a_base_image_of_ones_own_is_taken_as_named(tmp_path: Path) -> None:
    assert Buildah(Place(ROOT, tmp_path, {})).use_base("team/python:3.11", fresh=False) == "team/python:3.11"


def test_torch_is_the_cpu_build_where_one_is_at_hand(tmp_path: Path) -> None:
    assert command.torch_flavour({}) == "cuda"
    assert command.torch_flavour({"UV_FIND_LINKS": str(tmp_path)}) == "cuda"
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    assert command.torch_flavour({"UV_FIND_LINKS": str(tmp_path)}) == "cpu"
    assert command.torch_flavour({"UV_FIND_LINKS": str(tmp_path), "TORCH": "cuda"}) == "cuda"
    assert command.torch_flavour({"UV_INDEX": "https://index.example"}) == "cpu"
    with pytest.raises(ImagesError, match="TORCH is 'gpu'"):
        command.torch_flavour({"TORCH": "gpu"})


def test_the_cuda_images_have_a_tag_and_tars_of_their_own(tmp_path: Path) -> None:
    place = Place(ROOT, tmp_path, {"TORCH": "cpu"})
    engine = Buildah(place)
    plain = command.plan(command.parse([]), place, engine)
    cuda = command.plan(command.parse(["--cuda"]), place, engine)
    assert [one.tag.partition(":")[2] for one in cuda] == ["0.1.0"] * 3 + ["0.1.0-cuda"] * 4
    assert [a.tar == b.tar for a, b in zip(plain, cuda, strict=True)] == [True] * 3 + [False] * 4


def test_the_oldest_tars_go_but_not_those_of_other_images(tmp_path: Path) -> None:
    def tar(name: str, age: int) -> Path:
        path = tmp_path / name
        path.touch()
        os.utime(path, (10_000 - age, 10_000 - age))
        return path

    newest, newer, old = tar("vision-aa.tar", 0), tar("vision-bb.tar", 1), tar("vision-cc.tar", 2)
    others = [tar("vision-cuda-dd.tar", 3), tar("gateway-ee.tar", 4)]
    command.forget_old_tars(command.Wanted(IMAGES[4], "t", {}, newest))
    assert newest.exists()
    assert newer.exists()
    assert not old.exists()
    assert all(other.exists() for other in others)


def test_paths_are_those_of_the_sources_as_they_are_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(ROOT, tmp_path, {"TORCH": "cpu"})
    options: argparse.Namespace = command.parse(["paths", "--only", "operator"])
    wanted = command.plan(options, place, Buildah(place))
    with pytest.raises(ImagesError, match="not built as the sources are now: operator"):
        command.paths(wanted)
    wanted[0].tar.parent.mkdir(parents=True)
    wanted[0].tar.touch()
    assert command.paths(wanted) == 0
    assert capsys.readouterr().out == f"{wanted[0].tar}\n"
