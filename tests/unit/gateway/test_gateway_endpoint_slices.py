"""What the gateway makes of EndpointSlices."""

from __future__ import annotations

from typing import Any

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.discovery.pods import PodObjects
from aiservice_gateway.services.balancer import Addresses

TTI, ITI = Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE
READY, STARTING = {"ready": True, "serving": True, "terminating": False}, {"ready": False, "serving": False}
ENDING = {"ready": False, "serving": True, "terminating": True}
ENDED = {"ready": False, "serving": False, "terminating": True}


def endpoint(address: str, conditions: dict[str, bool] | None = None, uid: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [address], "conditions": READY if conditions is None else conditions}
    return made | ({"targetRef": {"kind": "Pod", "name": "p", "uid": uid}} if uid else {})


def slice_(
    name: str, *endpoints: dict[str, Any], service: str | None = "sdxl", family: str = "IPv4", ports: Any = None
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": {"kubernetes.io/service-name": service} if service else {},
        },
        "addressType": family,
        "ports": [{"name": "text-to-image", "port": 7860, "protocol": "TCP"}] if ports is None else ports,
        "endpoints": list(endpoints),
    }


class World:
    """What was told last of each service."""

    def __init__(self) -> None:
        self.known: dict[str, Addresses | None] = {}
        self.pods = PodObjects(self.known.__setitem__)

    def urls(self, task: Task = TTI, service: str = "team/sdxl") -> list[str]:
        of = self.known[service]
        assert of is not None
        return [address.url for address in of.get(task, ())]


@pytest.mark.parametrize(
    ("endpoints", "urls"),
    [
        ([], []),
        ([endpoint("10.0.0.1")], ["http://10.0.0.1:7860"]),
        ([endpoint("10.0.0.1", {})], ["http://10.0.0.1:7860"]),  # unknown counts as ready
        ([endpoint("10.0.0.1", STARTING)], []),
        ([endpoint("10.0.0.1", STARTING), endpoint("10.0.0.2")], ["http://10.0.0.2:7860"]),
        ([endpoint("10.0.0.1", ENDING), endpoint("10.0.0.2")], ["http://10.0.0.2:7860"]),
        ([endpoint("10.0.0.1", ENDING), endpoint("10.0.0.2", STARTING)], ["http://10.0.0.1:7860"]),
        ([endpoint("10.0.0.1", ENDED), endpoint("10.0.0.2", STARTING)], []),
    ],
)
def test_conditions_say_which_pods_are_used(endpoints: list[dict[str, Any]], urls: list[str]) -> None:
    world = World()
    world.pods.put(slice_("a", *endpoints))
    assert world.urls() == urls


def test_ports_are_found_by_the_names_of_tasks() -> None:
    world = World()
    ports = [
        {"name": "image-to-image", "port": 7863},
        {"name": "text-to-image", "port": 7860},
        {"name": "metrics", "port": 9000},
        {"name": "text-to-speech", "port": None},
    ]
    world.pods.put(slice_("a", endpoint("10.0.0.1", uid="u1"), ports=ports))
    known = world.known["team/sdxl"]
    assert known is not None
    assert {task: [(one.pod, one.url) for one in several] for task, several in known.items()} == {
        TTI: [("u1", "http://10.0.0.1:7860")],
        ITI: [("u1", "http://10.0.0.1:7863")],
    }


def test_a_pod_with_two_addresses_is_one_pod() -> None:
    world = World()
    world.pods.replace(
        [slice_("six", endpoint("fd00::1", uid="u1"), family="IPv6"), slice_("four", endpoint("10.0.0.1", uid="u1"))]
    )
    assert world.urls() == ["http://10.0.0.1:7860"]
    world.pods.remove("team/four")
    assert world.urls() == ["http://[fd00::1]:7860"]


def test_slices_of_a_service_are_put_together_and_followed() -> None:
    world = World()
    world.pods.replace([slice_("a", endpoint("10.0.0.1")), slice_("b", endpoint("10.0.0.2"))])
    assert world.urls() == ["http://10.0.0.1:7860", "http://10.0.0.2:7860"]
    world.pods.put(slice_("b", endpoint("10.0.0.3")))
    assert world.urls() == ["http://10.0.0.1:7860", "http://10.0.0.3:7860"]
    world.pods.put(slice_("other", endpoint("10.0.0.9"), service="other"))
    assert world.urls(service="team/other") == ["http://10.0.0.9:7860"]
    world.pods.remove("team/a")
    world.pods.remove("team/never-was")
    assert world.urls() == ["http://10.0.0.3:7860"]
    world.pods.remove("team/b")
    assert world.known == {"team/sdxl": None, "team/other": world.known["team/other"]}


def test_a_new_list_forgets_what_is_not_in_it() -> None:
    world = World()
    world.pods.replace([slice_("a", endpoint("10.0.0.1")), slice_("c", endpoint("10.0.0.9"), service="other")])
    world.pods.replace([slice_("a", endpoint("10.0.0.2"))])
    assert world.urls() == ["http://10.0.0.2:7860"]
    assert world.known["team/other"] is None
    world.pods.refused()
    assert world.known["team/sdxl"] is None


def test_slices_of_no_service_and_of_names_are_passed_over() -> None:
    world = World()
    world.pods.put(slice_("a", endpoint("10.0.0.1"), service=None))
    world.pods.put(slice_("b", endpoint("host.example.com"), family="FQDN"))
    empty = slice_("c", endpoint("10.0.0.1"))
    world.pods.put({"metadata": empty["metadata"], "addressType": "IPv4", "ports": None, "endpoints": None})
    assert world.known == {"team/sdxl": {}}


def test_a_slice_that_changes_its_service_leaves_the_first() -> None:
    world = World()
    world.pods.put(slice_("a", endpoint("10.0.0.1")))
    world.pods.put(slice_("a", endpoint("10.0.0.1"), service="other"))
    assert world.urls(service="team/other") == ["http://10.0.0.1:7860"]
    assert world.known["team/sdxl"] is None
