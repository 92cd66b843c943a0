"""Hashes of the Secrets and ConfigMaps that pods take values from."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest

from aiservice_operator.errors import RefusedError, UnavailableError
from aiservice_operator.kinds import Json
from aiservice_operator.references import References, named
from support.operator_objects import service


class Server:
    """Answers reads of single objects, and counts them."""

    def __init__(self, **objects: Json | Exception) -> None:
        self.objects = objects
        self.asked: list[str] = []

    async def find(self, path: str) -> Json | None:
        self.asked.append(path)
        answer = self.objects.get(path.rpartition("/")[2])
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def secret(**values: str) -> Json:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}


def references(server: Server, clock: Clock | None = None, *, enabled: bool = True) -> References:
    return References(server, enabled=enabled, clock=clock or Clock())  # type: ignore[arg-type] # it only reads


def digest(server: Server, keys: list[str] | None = None, name: str = "hub") -> str:
    return asyncio.run(references(server).digest("team", "Secret", name, keys))


def test_a_digest_is_of_the_values_that_are_used() -> None:
    one = digest(Server(hub=secret(token="a", other="b")), ["token"])
    assert len(one) == 16
    assert digest(Server(hub=secret(token="a", other="c")), ["token"]) == one
    assert digest(Server(hub=secret(token="z", other="b")), ["token"]) != one
    everything = digest(Server(hub=secret(token="a", other="b")))
    assert digest(Server(hub=secret(token="a", other="c"))) != everything


def test_what_is_not_there_has_no_digest() -> None:
    assert digest(Server()) == ""
    assert digest(Server(hub=secret(token="a")), ["missing"]) == ""
    assert digest(Server(hub={"metadata": {}}), ["missing"]) == ""


def test_no_value_is_in_the_answer_or_kept() -> None:
    server = Server(hub=secret(token="s3cret"))
    found = references(server)
    answer = asyncio.run(found.digest("team", "Secret", "hub", None))
    kept = repr(found._known)
    for form in ("s3cret", base64.b64encode(b"s3cret").decode()):
        assert form not in answer + kept


def test_objects_are_read_by_name_and_not_again_at_once() -> None:
    server, clock = Server(hub=secret(token="a"), app={"data": {"mode": "fast"}, "binaryData": {"b": "AA=="}}), Clock()
    found = references(server, clock)

    async def ask() -> list[str]:
        return [
            await found.digest("team", "Secret", "hub", ["token"]),
            await found.digest("team", "ConfigMap", "app", ["mode", "b"]),
        ]

    first = asyncio.run(ask())
    paths = ["/api/v1/namespaces/team/secrets/hub", "/api/v1/namespaces/team/configmaps/app"]
    assert server.asked == paths
    server.objects["hub"] = secret(token="changed")
    clock.now = 29
    assert asyncio.run(ask()) == first
    assert server.asked == paths
    clock.now = 30
    again = asyncio.run(ask())
    assert (again[0] != first[0], again[1] == first[1]) == (True, True)


def test_switched_off_nothing_is_read() -> None:
    server = Server(hub=secret(token="a"))
    found = references(server, enabled=False)
    assert asyncio.run(found.digest("team", "Secret", "hub", None)) == ""
    assert asyncio.run(found.of_service("team", spec(engine=ENGINE))) is None, "pods stay as they are"
    assert asyncio.run(found.of_service("team", spec())) == ""
    assert server.asked == []


def test_what_may_not_be_read_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    server, clock = Server(hub=RefusedError("secrets is forbidden"), app={"data": {"mode": "fast"}}), Clock()
    found = references(server, clock)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(found.digest("team", "Secret", "hub", None)) == ""
        clock.now = 100
        assert asyncio.run(found.digest("team", "Secret", "hub", None)) == ""
    assert len(caplog.messages) == 1
    assert "rollOnConfigChange" in caplog.messages[0]
    assert asyncio.run(found.of_service("team", spec(engine=ENGINE))) is None, "pods stay as they are"


def test_a_failure_that_may_pass_is_none_of_an_answer() -> None:
    with pytest.raises(UnavailableError):
        digest(Server(hub=UnavailableError("away")))


ENGINE: Json = {
    "env": [
        {"name": "PLAIN", "value": "1"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "mode"}}},
    ]
}


def spec(**fields: Any) -> Any:
    found = service(spec=fields).spec
    assert found is not None
    return found


def test_everything_that_pods_take_values_from() -> None:
    sidecar = {
        "name": "proxy",
        "image": "proxy:1",
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "other"}}}],
    }
    volumes = [
        {"name": "certs", "secret": {"secretName": "certs"}},
        {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "a"}]}},
        {"name": "all", "configMap": {"name": "app"}},
        {"name": "work", "emptyDir": {}},
    ]
    assert named(spec(engine=ENGINE, pod={"sidecars": [sidecar], "volumes": volumes})) == {
        ("Secret", "hub"): {"token", "other"},
        ("ConfigMap", "app"): None,
        ("Secret", "certs"): None,
        ("ConfigMap", "conf"): {"a"},
    }
    assert named(spec()) == {}


def test_of_a_service_everything_counts_and_what_is_missing_makes_it_unknown() -> None:
    def answer(**objects: Json | Exception) -> str | None:
        return asyncio.run(references(Server(**objects)).of_service("team", spec(engine=ENGINE)))

    one = answer(hub=secret(token="a"), app={"data": {"mode": "fast"}})
    assert one
    assert answer(hub=secret(token="b"), app={"data": {"mode": "fast"}}) != one
    assert answer(hub=secret(token="a"), app={"data": {"mode": "slow"}}) != one
    assert answer(hub=secret(token="a")) is None
    assert answer(hub=secret(other="a"), app={"data": {"mode": "fast"}}) is None
    nothing = references(Server())
    assert asyncio.run(nothing.of_service("team", spec())) == ""
