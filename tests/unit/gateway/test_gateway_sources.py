"""What discovery makes of an AIService object, and of a file."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aiservice_api.tasks import Task
from aiservice_api.v1alpha1 import AITenant
from aiservice_gateway.discovery.file import FileDiscovery, read_file
from aiservice_gateway.discovery.kubernetes import to_service
from aiservice_gateway.discovery.tenants import to_tenant
from aiservice_gateway.errors import SettingsError
from aiservice_gateway.models import Limit, Measure, Policy, Service
from aiservice_gateway.services.api_keys import ApiKey
from aiservice_gateway.services.registry import Registry
from aiservice_gateway.services.tenants import Tenant, Tenants


def resource(**changes: Any) -> dict[str, Any]:
    """A ready AIService as the API server gives it."""
    condition = {
        "type": "Available",
        "status": "True",
        "reason": "Available",
        "message": "1 of 1 pods serve",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-23T07:00:00Z",
    }
    return {
        "apiVersion": "aiservice.dev/v1alpha1",
        "kind": "AIService",
        "metadata": {
            "name": "whisper",
            "namespace": "team-a",
            "creationTimestamp": "2026-11-23T06:00:00Z",
            **changes.get("metadata", {}),
        },
        "spec": {
            "tasks": ["speech-to-text"],
            "modelCacheRef": {"name": "whisper"},
            "profile": "cpu",
            "gateway": {"names": ["stt"], "default": True},
            **changes.get("spec", {}),
        },
        "status": {
            "endpoints": {"speech-to-text": "http://whisper.team-a.svc:7862/"},
            "model": "openai/whisper-tiny@main",
            "conditions": [{**condition, **changes.get("ready", {})}],
            **changes.get("status", {}),
        },
    }


def test_a_service_whose_pods_are_being_replaced_is_served() -> None:
    replaced = resource()
    rolling = {**replaced["status"]["conditions"][0], "type": "Ready", "status": "Unknown", "reason": "RollingOut"}
    replaced["status"]["conditions"].append(rolling)
    service = to_service(replaced)
    assert service is not None
    assert service.ready


def test_a_ready_service() -> None:
    assert to_service(resource()) == Service(
        name="whisper",
        namespace="team-a",
        tasks=(Task.SPEECH_TO_TEXT,),
        endpoints={Task.SPEECH_TO_TEXT: "http://whisper.team-a.svc:7862"},
        aliases=("stt",),
        default=True,
        ready=True,
        reason="Available: 1 of 1 pods serve",
        model="openai/whisper-tiny@main",
        created=datetime(2026, 11, 23, 6, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"ready": {"status": "False", "reason": "CrashLoop"}},
        {"ready": {"status": "Unknown", "reason": "Loading"}},
        {"ready": {"status": "False", "reason": "Idle"}},
        {"status": {"conditions": []}},
        {"status": {"conditions": [], "endpoints": {}}},
    ],
)
def test_a_service_that_cannot_answer_is_not_ready(changes: dict[str, Any]) -> None:
    service = to_service(resource(**changes))
    assert service is not None
    assert not service.ready
    assert service.tasks == (Task.SPEECH_TO_TEXT,)


@pytest.mark.parametrize(("stated", "read"), [(None, None), ([], frozenset()), (["acme"], frozenset({"acme"}))])
def test_a_service_states_whom_it_admits(stated: list[str] | None, read: frozenset[str] | None) -> None:
    service = to_service(resource(spec={"gateway": {} if stated is None else {"tenants": stated}}))
    assert service is not None
    assert service.tenants == read


@pytest.mark.parametrize(
    "changes",
    [{"spec": {"gateway": {"expose": False}}}, {"metadata": {"deletionTimestamp": "2026-11-23T08:00:00Z"}}],
)
def test_a_service_that_is_not_offered(changes: dict[str, Any]) -> None:
    assert to_service(resource(**changes)) is None


FILE = """
services:
  - name: whisper
    tasks: [speech-to-text]
    url: http://127.0.0.1:7862/
    model: openai/whisper-tiny
  - name: sdxl
    tasks: [text-to-image, image-to-image]
    url: http://gpu:7860
    endpoints: {image-to-image: "http://gpu:7863/base/"}
    names: [pictures]
    default: true
    tenants: [acme]
tenants:
  - metadata: {name: acme}
    spec:
      services: [sdxl]
      limits: [{measure: requests, maximum: 5, window: 1m, task: speech-to-text}, {measure: spend, maximum: 0.1}]
      apiKeys: [{name: ci, sha256: "%s", expires: 2030-01-01T00:00:00}]
  - apiVersion: aiservice.dev/v1alpha1
    kind: AITenant
    metadata: {name: other}
    spec: {tenant: Käse & Co., suspend: true}
""" % ("a" * 64)


def test_services_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(FILE)
    whisper, sdxl = read_file(path).services
    assert (whisper.name, whisper.key, whisper.model) == ("whisper", "whisper", "openai/whisper-tiny")
    assert whisper.endpoints == {Task.SPEECH_TO_TEXT: "http://127.0.0.1:7862"}
    assert sdxl.endpoints == {
        Task.TEXT_TO_IMAGE: "http://gpu:7860",
        Task.IMAGE_TO_IMAGE: "http://gpu:7863/base",
    }
    assert (sdxl.aliases, sdxl.default, sdxl.ready) == (("pictures",), True, True)
    assert (whisper.tenants, sdxl.tenants) == (None, frozenset({"acme"}))


def test_tenants_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(FILE)
    acme, other = read_file(path).tenants
    assert acme == Tenant(
        key="acme",
        name="acme",
        stated=Policy(
            limits=(
                Limit(Measure.REQUESTS, Decimal(5), Task.SPEECH_TO_TEXT, 60),
                Limit(Measure.SPEND, Decimal("0.1")),
            ),
            services=frozenset({"sdxl"}),
        ),
        keys=(ApiKey("ci", "a" * 64, expires=datetime(2030, 1, 1, tzinfo=UTC)),),
    )
    assert (other.name, other.stated) == ("Käse & Co.", Policy(suspended=True))


@pytest.mark.parametrize(
    ("window", "seconds"), [(None, 3600), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)]
)
def test_windows_are_seconds(window: str | None, seconds: int) -> None:
    stated = {"measure": "units", "maximum": 1.5, **({} if window is None else {"window": window})}
    document = {"metadata": {"name": "a", "namespace": "ns"}, "spec": {"limits": [stated]}}
    tenant = to_tenant(AITenant.model_validate(document))
    assert tenant.key == "ns/a"
    assert tenant.stated.limits == (Limit(Measure.UNITS, Decimal("1.5"), None, seconds),)


def tenant(spec: str) -> str:
    """A file of one tenant."""
    return f"services: []\ntenants:\n- metadata: {{name: a}}\n  spec:\n    {spec}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read: No such file"),
        ("a: [", "is not YAML"),
        ("", "the file: Input should be"),
        ("services: [{name: a, tasks: [speech-to-text]}]", r"services\.0: Value error, set url, urls, or endpoints\."),
        ("services: [{name: a, tasks: [chess], url: http://a}]", r"services\.0\.tasks\.0: Input should be"),
        ("services: [{name: a, tasks: [], url: http://a}]", r"services\.0\.tasks: List should have at least 1"),
        ("services: [{name: a, tasks: [speech-to-text], url: file:///etc}]", r"services\.0\.url: URL scheme"),
        ("services: [{name: a, tasks: [speech-to-text], url: http://a, prot: 1}]", r"services\.0\.prot: Extra"),
        ("services: []\ntenants: {}", "tenants: Input should be a valid list"),
        ("services: []\ntenants: [a]", r"tenants\.0: Input should be a valid dictionary"),
        ("services: []\ntenants: [{spec: {}}]", r"tenants\.0\.metadata: Field required"),
        ("services: []\ntenants: [{metadata: {name: a}}]", r"tenants\.0\.spec: Field required"),
        (tenant("limts: []"), r"tenants\.0\.spec\.limts: Extra inputs are not permitted"),
        (tenant("limits: [{measure: units, maximum: 1, tsk: a}]"), r"tenants\.0\.spec\.limits\.0\.tsk: Extra"),
        (tenant("limits: [{measure: units, maximum: 0}]"), r"limits\.0\.maximum: Input should be greater than 0"),
        (tenant("limits: [{measure: requests, maximum: 1.5}]"), r"tenants\.0: requests is counted whole: 1\.5 cannot"),
        (tenant("limits: [{measure: concurrency, maximum: .5}]"), r"tenants\.0: concurrency is counted whole"),
        (tenant("limits: [{measure: requests, maximum: 1000001}]"), r"tenants\.0: .* at most 1000000"),
        (tenant("limits: [{measure: spend, maximum: 1, window: 1h}]"), r"tenants\.0: a limit of spend has no window"),
        (tenant("limits: [{measure: units, maximum: 1, window: 0s}]"), r"tenants\.0: '0s' is no window"),
        (tenant("apiKeys: [{name: ci, sha256: ais_key}]"), r"tenants\.0: sha256 of an API key is 64"),
        (tenant("tenant: ''"), r"tenants\.0\.spec\.tenant: String should have at least 1"),
        (
            "services: []\ntenants: [{metadata: {name: a}, spec: {}}, {metadata: {name: b}, spec: {tenant: a}}]",
            r"tenants\.1: another entry is about tenant a too",
        ),
        (
            "services:\n" + "- {name: a, tasks: [speech-to-text], url: http://a}\n" * 2,
            "two services have the name a",
        ),
    ],
)
def test_a_wrong_file_is_told_with_the_place(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "services.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_file(path)


def test_a_mistake_in_a_changed_file_keeps_the_last_good_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(FILE)
    registry = Registry()
    tenants = Tenants(100)
    discovery = FileDiscovery(path, registry, tenants)
    assert tenants.policy("Käse & Co.").suspended
    path.write_text("services: [{}]")
    discovery._reload()
    states = [discovery.connected]
    assert [service.name for service in registry.services()] == ["sdxl", "whisper"]
    assert "is not used" in caplog.text
    replacement = tmp_path / "new.yaml"
    replacement.write_text("services: []")
    replacement.replace(path)
    discovery._reload()
    assert [*states, discovery.connected] == [False, True]
    assert registry.services() == []
    assert not tenants.policy("Käse & Co.").suspended
