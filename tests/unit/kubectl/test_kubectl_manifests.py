"""Manifests and configurations, read from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aiservice_kubectl.errors import UsageError
from aiservice_kubectl.planning.configuration import from_file
from aiservice_kubectl.planning.manifests import Document, read_all
from aiservice_kubectl.planning.validity import by_models
from aiservice_operator.kinds import Json
from support.manifests import ABSENT, Change, ai_service, model_cache


def written(folder: Path, *bodies: object, name: str = "m.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump_all(bodies))
    return str(path)


def test_several_documents_lists_and_other_kinds(tmp_path: Path) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [model_cache(name="c"), ai_service(name="d")]}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    other_group = {"apiVersion": "other.dev/v1", "kind": "ModelCache", "metadata": {"name": "o"}}
    path = written(tmp_path, ai_service(name="a"), None, secret, other_group, listed)
    ours, others = read_all([path], "team", enforced=False)
    assert [item.title for item in ours] == ["AIService a", "ModelCache c", "AIService d"]
    assert {item.namespace for item in ours} == {"team"}
    assert others == ["Secret s", "ModelCache o"]


def test_a_folder_gives_its_manifests_in_order(tmp_path: Path) -> None:
    written(tmp_path, ai_service(name="second"), name="b.yml")
    written(tmp_path, ai_service(name="first"), name="a.yaml")
    (tmp_path / "README.md").write_text("no manifest")
    ours, _ = read_all([str(tmp_path)], "team", enforced=False)
    assert [item.name for item in ours] == ["first", "second"]


def test_the_namespace_of_a_document_wins_unless_another_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, ai_service(("metadata.namespace", "speech")))
    assert read_all([path], "default", enforced=False)[0][0].namespace == "speech"
    assert read_all([path], "speech", enforced=True)[0][0].namespace == "speech"
    with pytest.raises(UsageError, match="AIService whisper is in namespace speech, and -n says default"):
        read_all([path], "default", enforced=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("- 1", "no Kubernetes object"),
        ("kind: AIService\napiVersion: aiservice.dev/v1alpha1\nmetadata: {}", "has no metadata.name"),
        ("kind: AIService\napiVersion: aiservice.dev/v9\nmetadata: {name: a}", "write aiservice.dev/v1alpha1"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_all([str(path)], "team", enforced=False)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_all([str(tmp_path / "missing.yaml")], "team", enforced=False)
    with pytest.raises(UsageError, match=r"holds no \.yaml"):
        read_all([str(tmp_path)], "team", enforced=False)


def wrong(body: Json) -> list[str]:
    return by_models(Document("m.yaml", body, "team"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("spec.replicas", -1), "spec.replicas: Input should be greater than or equal to 0"),
        (("spec.replcas", 1), "spec.replcas: there is no such field"),
        (("spec.engine.imge", "x"), "spec.engine.imge: there is no such field"),
        (("spec.model.huggingFace.repository", "x"), "spec.model.huggingFace.repository: there is no such field"),
        (("spec.engine.env", [{"name": "A", "valeu": "1"}]), "spec.engine.env[0].valeu: there is no such field"),
        (("spec.model", ABSENT), "spec: set exactly one of model and modelCacheRef"),
    ],
)
def test_what_shows_without_a_cluster(change: Change, complaint: str) -> None:
    assert wrong(ai_service(change)) == [complaint]


def test_good_documents_pass() -> None:
    free_keys = ("spec.pod.nodeSelector", {"any/key": "x"})
    assert wrong(ai_service(free_keys, ("spec.resources.limits", {"nvidia.com/gpu": 1}))) == []
    assert wrong(model_cache()) == []


def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("profils: {}")
    with pytest.raises(UsageError, match=r"config\.yaml is wrong: profils"):
        from_file(path)
    with pytest.raises(UsageError, match="cannot read the configuration"):
        from_file(tmp_path / "missing.yaml")
