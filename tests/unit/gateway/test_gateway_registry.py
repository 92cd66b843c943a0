"""Which service a request goes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import NotFoundError, UnavailableError
from aiservice_gateway.models import Service
from aiservice_gateway.services.registry import Registry

STT, TTI = Task.SPEECH_TO_TEXT, Task.TEXT_TO_IMAGE


def service(
    name: str, age: int = 0, *, namespace: str = "team-a", tasks: tuple[Task, ...] = (STT,), **more: object
) -> Service:
    """A ready service; a larger age is older."""
    made = Service(
        name=name,
        namespace=namespace,
        tasks=tasks,
        endpoints=dict.fromkeys(tasks, f"http://{name}.{namespace}"),
        created=datetime(2026, 1, 31 - age, tzinfo=UTC),
    )
    return replace(made, **more)  # type: ignore[arg-type] # the fields of Service


def registry(*services: Service) -> Registry:
    made = Registry()
    made.replace("cluster", services)
    return made


def test_a_task_that_nobody_serves() -> None:
    with pytest.raises(NotFoundError, match="No service here does text-to-image"):
        registry(service("a")).resolve(TTI, None)


def test_without_a_name_the_default_answers() -> None:
    found = registry(service("old", 5), service("chosen", 1, default=True)).resolve(STT, None)
    assert (found.name, found.endpoints[STT]) == ("chosen", "http://chosen.team-a")


def test_of_two_defaults_the_older_answers() -> None:
    services = [service("young", 1, default=True), service("older", 2, default=True), service("oldest", 9)]
    assert registry(*services).resolve(STT, None).name == "older"


def test_without_a_default_the_oldest_answers() -> None:
    assert registry(service("b", 1), service("a", 1), service("old", 2)).resolve(STT, None).name == "old"


def test_equally_old_services_are_ordered_by_name() -> None:
    assert registry(service("b"), service("a")).resolve(STT, None).name == "a"


@pytest.mark.parametrize("name", ["tiny", "fast", "team-a/tiny"])
def test_a_service_is_found_by_its_names(name: str) -> None:
    services = registry(service("big", 5, default=True), service("tiny", aliases=("fast",)))
    assert services.resolve(STT, name).name == "tiny"


def test_a_name_of_its_own_wins_over_an_alias() -> None:
    services = registry(service("old", 9, aliases=("tiny",)), service("tiny"))
    assert services.resolve(STT, "tiny").name == "tiny"


def test_of_two_namesakes_the_older_answers_and_the_namespace_tells_them_apart() -> None:
    services = registry(service("w", 1, namespace="a"), service("w", 2, namespace="b"))
    assert services.resolve(STT, "w").namespace == "b"
    assert services.resolve(STT, "a/w").namespace == "a"


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(NotFoundError, match=r"No service of that name does speech-to-text\. There are: a, b\."):
        registry(service("b"), service("a"), service("c", tasks=(TTI,))).resolve(STT, "c")


@pytest.mark.parametrize("change", [{"ready": False, "reason": "Loading: node-7 pulls"}, {"endpoints": {}}])
def test_a_service_that_is_not_ready_is_not_asked_and_does_not_tell_why(change: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError, match="not ready") as caught:
        registry(service("a", **change)).resolve(STT, None)
    assert caught.value.headers == {"Retry-After": "10"}
    assert "node-7" not in caught.value.message


def test_what_one_may_not_use_is_as_if_it_were_not_there() -> None:
    services = registry(service("secret", 9, default=True, aliases=("s",)), service("old", 5), service("young", 1))

    def may_use(found: Service) -> bool:
        return found.name != "secret"

    assert services.resolve(STT, None, may_use).name == "old", "of what is left the oldest is the default"
    absent = [refused(services, name, may_use) for name in ("secret", "s", "team-a/secret", "never-was")]
    assert len(set(absent)) == 1
    assert absent[0] == "No service of that name does speech-to-text. There are: old, young."
    nobody = refused(services, "secret", lambda _: False)
    assert nobody == refused(services, None, lambda _: False)
    assert nobody == refused(registry(), None, lambda _: True)
    hidden = registry(service("young", 1, aliases=("s",)), service("secret", 9, aliases=("s",)))
    assert hidden.resolve(STT, "s", may_use).name == "young"


def test_a_service_that_one_may_not_use_does_not_show_by_being_unready() -> None:
    services = registry(service("secret", ready=False))
    assert refused(services, "secret", lambda _: False) == refused(registry(), "secret", lambda _: True)


def refused(services: Registry, name: str | None, may_use: Callable[[Service], bool]) -> str:
    """The words with which a service is not found."""
    with pytest.raises(NotFoundError) as caught:
        services.resolve(STT, name, may_use)
    return caught.value.message


def test_changes_take_effect() -> None:
    services = registry(service("a", 2))
    services.put("cluster", service("b", 3))
    assert services.resolve(STT, None).name == "b"
    services.put("cluster", service("a", 2, default=True))
    assert services.resolve(STT, None).name == "a"
    services.remove("cluster", "team-a/a")
    services.remove("cluster", "team-a/never-was")
    assert services.defaults()[STT].name == "b"
    services.replace("cluster", [])
    assert services.defaults() == {}


def test_sources_do_not_touch_each_other() -> None:
    services = registry(service("a", namespace="x"))
    services.replace("namespace y", [service("b", namespace="y")])
    services.replace("cluster", [])
    assert [known.key for known in services.services()] == ["y/b"]
