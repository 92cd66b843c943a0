"""Quantities, names, comparison, downloader messages and command line: parts that stand alone."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiservice_api.v1alpha1 import ModelCacheSpec
from aiservice_operator import names
from aiservice_operator.__main__ import main
from aiservice_operator.compare import differs, ousted
from aiservice_operator.downloads import (
    Progress,
    Proof,
    Verification,
    parse_failure,
    parse_kept,
    parse_progress,
    parse_success,
    progress_status,
)
from aiservice_operator.errors import ConfigurationError
from aiservice_operator.kinds import Json
from aiservice_operator.quantities import duration, human_bytes, larger, parse, same
from aiservice_operator.settings import Settings, identity, load
from support.operator_objects import MODEL


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1000m", "1", True),
        ("1024Mi", "1Gi", True),
        ("1G", "1Gi", False),
        ("0.5", "500m", True),
        ("1e3", "1k", True),
        (".5", "500m", True),
        ("100u", "0.1m", True),
        (2, "2", True),
        ("two", "two", True),
        ("two", "2", False),
    ],
)
def test_quantities_are_compared_by_value(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1KI", "--1", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        parse(text)


def test_the_larger_quantity_keeps_its_spelling() -> None:
    assert (larger("1Gi", "1000Mi"), larger("1Gi", "2Gi")) == ("1Gi", "2Gi")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (6_940_000_000, "6.9 GB"), (99_960, "100 kB"), (123e13, "1230 TB")],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert human_bytes(int(count)) == text


def parsed(model: Json) -> ModelCacheSpec:
    return ModelCacheSpec.model_validate(model)


def test_services_that_state_the_same_model_share_a_cache() -> None:
    repo = {"huggingFace": {"repo": "o/m"}}
    spelt_out = {"huggingFace": {"repo": "o/m", "revision": "main", "include": []}}
    assert names.cache_name(parsed(repo)) == names.cache_name(parsed(spelt_out))
    assert names.cache_name(parsed(repo)) != names.cache_name(
        parsed({"huggingFace": {"repo": "o/m", "revision": "v2"}})
    )
    assert names.cache_name(parsed(repo)) != names.cache_name(parsed({**repo, "storage": {"size": "5Gi"}}))


def test_the_name_of_a_cache_never_changes() -> None:
    """Another name would download every model again after an upgrade of the operator."""
    assert names.cache_name(parsed(MODEL)) == "mc-443918c0b15e3fd1"
    assert names.source_digest(parsed(MODEL)) == "443918c0b15e3fd1"


def test_token_and_volume_do_not_change_the_content() -> None:
    source = {"repo": "o/m"}
    plain = parsed({"huggingFace": source})
    other = parsed({"huggingFace": {**source, "tokenSecretRef": {"name": "t"}}, "storage": {"size": "9Gi"}})
    assert names.source_digest(plain) == names.source_digest(other)
    assert names.source_wire(other) == {
        "huggingFace": {"repo": "o/m", "revision": "main", "include": [], "exclude": []}
    }


LIVE: Json = {
    "metadata": {"labels": {"a": "1", "theirs": "2"}, "finalizers": ["x", "y"], "resourceVersion": "7"},
    "spec": {
        "replicas": 1,
        "selector": {"app": "a"},
        "template": {
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "containers": [
                {"name": "sidecar", "image": "s"},
                {
                    "name": "engine",
                    "image": "e",
                    "args": ["--x"],
                    "env": [{"name": "INJECTED", "value": "1"}, {"name": "A"}],
                    "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    "terminationMessagePath": "/dev/termination-log",
                },
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}],
        },
    },
}


def engine(**fields: Any) -> Json:
    return {"spec": {"template": {"containers": [{"name": "engine", **fields}]}}}


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({}, None),
        ({"metadata": {"labels": {"a": "1"}}}, None),
        ({"metadata": {"labels": {"a": "2"}}}, "metadata.labels.a"),
        ({"metadata": {"annotations": {"n": "1"}}}, "metadata.annotations.n"),
        ({"metadata": {"finalizers": ["x"]}}, None),
        ({"metadata": {"finalizers": ["z"]}}, "metadata.finalizers"),
        ({"spec": {"replicas": 2}}, "spec.replicas"),
        ({"spec": {"selector": {"app": "a"}}}, None),
        ({"spec": {"selector": {}}}, "spec.selector"),
        ({"spec": {"template": {"nodeSelector": {}}}}, "spec.template.nodeSelector"),
        ({"spec": {"template": {"tolerations": [{"key": "gpu"}]}}}, None),
        ({"spec": {"template": {"tolerations": []}}}, "spec.template.tolerations"),
        (engine(image="e"), None),
        (engine(image="f"), "spec.template.containers[0].image"),
        (engine(args=["--x"]), None),
        (engine(args=["--x", "--y"]), "spec.template.containers[0].args"),
        (engine(env=[{"name": "A", "value": ""}]), None),
        (engine(env=[{"name": "A", "value": "1"}]), "spec.template.containers[0].env[0].value"),
        (engine(env=[{"name": "B", "value": "1"}]), "spec.template.containers[0].env[0].name"),
        (engine(ports=[{"containerPort": 80, "name": "http"}]), None),
        (engine(ports=[{"containerPort": 81}]), "spec.template.containers[0].ports[0].containerPort"),
        (engine(resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}}), None),
        (engine(resources={"limits": {"cpu": "2"}}), "spec.template.containers[0].resources.limits.cpu"),
        ({"spec": {"template": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1024Mi"}}]}}}, None),
        (
            {"spec": {"template": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "2Gi"}}]}}},
            "spec.template.volumes[0].emptyDir.sizeLimit",
        ),
    ],
)
def test_what_differs_from_a_live_object(wanted: Json, where: str | None) -> None:
    assert differs(wanted, LIVE) == where
    assert differs(LIVE, copy.deepcopy(LIVE)) is None


def _spread(unsatisfiable: str) -> Json:
    return {"topologyKey": "zone", "whenUnsatisfiable": unsatisfiable}


OTHERS: Json = {
    "spec": {
        "metrics": [{"pods": {"target": {"averageValue": "4"}}}],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
        "topologySpreadConstraints": [
            {**_spread("DoNotSchedule"), "maxSkew": 2},
            {**_spread("ScheduleAnyway"), "maxSkew": 3},
        ],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "targetPort": 1}],
        "claims": [{"name": "theirs"}, {"name": "ours"}],
    },
}


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"metrics": [{"pods": {"target": {"averageValue": "4000m"}}}]}, None),
        ({"metrics": [{"pods": {"target": {"averageValue": "5"}}}]}, "spec.metrics[0].pods.target.averageValue"),
        ({"metrics": []}, "spec.metrics"),
        ({"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}, None),
        # In a list that is one value, an item of somebody else is a difference.
        ({"ingress": [{"from": [{"podSelector": {}}], "ports": []}]}, "spec.ingress[0].ports"),
        ({"ingress": [{"ports": [{"port": 80}, {"port": 81}]}]}, "spec.ingress[0].ports"),
        ({"topologySpreadConstraints": [_spread("ScheduleAnyway")]}, None),
        (
            {"topologySpreadConstraints": [{**_spread("ScheduleAnyway"), "maxSkew": 2}]},
            "spec.topologySpreadConstraints[0].maxSkew",
        ),
        ({"ports": [{"port": 53, "targetPort": 1}]}, None),
        ({"ports": [{"port": 53, "protocol": "UDP", "targetPort": 1}]}, "spec.ports[0].targetPort"),
        ({"claims": [{"name": "ours"}]}, None),
        ({"claims": [{"name": "missing"}]}, "spec.claims[0].name"),
    ],
)
def test_lists_are_compared_as_they_are_merged(wanted: Json, where: str | None) -> None:
    assert differs({"spec": wanted}, OTHERS) == where


def test_an_item_under_another_key_is_the_rival_of_ours() -> None:
    ours = {"name": "speech", "port": 7862}
    stranger = {"name": "metrics", "port": 9090}

    def ports(*items: Json) -> Json:
        return {"spec": {"ports": list(items), "clusterIP": "10.0.0.1"}}

    wanted = {"spec": {"ports": [ours]}}
    assert ousted(wanted, ports({**ours, "port": 9999}, stranger)) == ports(ours, stranger)
    assert ousted(wanted, ports({**ours, "nodePort": 30000}, stranger)) is None
    assert ousted(wanted, ports(stranger)) is None, "missing is not ousted: apply adds it"
    assert ousted(wanted, ports({**ours, "protocol": "UDP"})) == ports(ours), "the protocol is part of the key"
    assert ousted(wanted, {"spec": {}}) is None


def test_progress_of_a_download() -> None:
    line = '{"event":"progress","bytesDone":3000,"bytesTotal":10000,"bytesPerSecond":500,"etaSeconds":14,"file":"a"}'
    progress = parse_progress(line)
    assert progress is not None
    status = progress_status(progress, 2)
    assert (status.progress, status.bytes_per_second, status.eta_seconds, status.attempts) == (
        "30% of 10.0 kB",
        500,
        14,
        2,
    )
    assert progress_status(Progress(event="progress", bytes_done=3000), 1).progress == "3.0 kB"
    assert progress_status(Progress(event="progress", bytes_done=0, bytes_total=0), 1).progress == "0 B"


@pytest.mark.parametrize("line", ["", "Traceback", '{"event":"done"}', '{"event":"progress","bytesDone":-1}', "[]"])
def test_lines_that_are_no_progress(line: str) -> None:
    assert parse_progress(line) is None


def test_last_words_of_a_download() -> None:
    success = parse_success('{"status":"ok","bytes":5,"files":2,"revision":"c0ffee"}')
    assert success is not None
    assert (success.bytes, success.files, success.revision) == (5, 2, "c0ffee")
    failure = parse_failure('{"status":"failed","reason":"NotFound","message":"gone","retryable":false}')
    assert failure is not None
    assert (failure.reason, failure.retryable, failure.required_bytes) == ("NotFound", False, None)
    for words in ("", "killed", '{"status":"failed","reason":"no word","message":"","retryable":true}'):
        assert parse_success(words) is None
        assert parse_failure(words) is None


def test_a_verification_is_read_as_it_was_written() -> None:
    record = Verification(at=datetime(2026, 11, 23, 12, tzinfo=UTC), request="r", repaired=("ä", "b"), damage="c")
    assert parse_kept(Verification, record.to_json()) == record
    assert Verification(at=record.at).to_json() == '{"at":"2026-11-23T12:00:00Z"}'


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


def test_a_proof_is_read_as_it_was_written() -> None:
    proof = Proof(source="s", bytes=6_900_000_000, files=3)
    assert parse_kept(Proof, proof.to_json()) == proof
    assert proof.size() == "6.9 GB"
    assert parse_kept(Proof, "") is None
    assert parse_kept(Proof, "true") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("profiles: {cpu: {nodeselector: {}}}", "profiles.cpu.nodeselector: Extra inputs are not permitted"),
        ("profiles: {cpu: {resources: {limits: {memory: lots}}}}", "is no quantity"),
        (
            "download: {deniedNetworks: [10.0.0.0/8, 10.0.0.1/8]}",
            "download.deniedNetworks.1: .*10.0.0.1/8 has host bits set: write a network in CIDR form, such as",
        ),
        ("download: {deniedNetworks: [pods.corp]}", "'pods.corp' does not appear to be .* network: write a network in"),
        ("download: {env: {PATH: /}}", "download.env.PATH.*: Input should be 'HTTP_PROXY'"),
        ("download: {env: {HTTP_PROXY: proxy}}", "HTTP_PROXY is no proxy's address: write it like http://proxy.corp"),
        (
            "download: {env: {HTTPS_PROXY: 'http://me:secret@proxy:1'}}",
            "HTTPS_PROXY is no .* without user and password",
        ),
        ("images: {whisper: x}", "no engine is called whisper; engines are diffusion,"),
        ("leaderElection: {leaseSeconds: 5}", "leaseSeconds must be above renewSeconds"),
        ("- 1", "the file: Input should be"),
        ("a: b: c", "cannot read the configuration"),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        load(file)


def test_an_empty_configuration_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("")
    assert load(file) == Settings()


def test_a_replica_must_know_who_it_is() -> None:
    assert identity({"POD_NAME": "a", "POD_NAMESPACE": "b"}).name == "a"
    with pytest.raises(ConfigurationError, match="POD_NAME and POD_NAMESPACE"):
        identity({})


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("profiles: {cpu: {}}")
    assert main(["check", "--config", str(file)]) == 0
    assert "1 profiles" in capsys.readouterr().out
    file.write_text("profile: {}")
    assert main(["run", "--config", str(file)]) == 2
    assert "profile: Extra inputs" in capsys.readouterr().err


def test_a_replica_without_a_name_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POD_NAME", raising=False)
    file = tmp_path / "config.yaml"
    file.write_text("{}")
    assert main(["run", "--config", str(file)]) == 2
    assert "leader election needs POD_NAME" in capsys.readouterr().err
