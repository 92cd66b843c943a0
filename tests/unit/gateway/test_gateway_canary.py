"""How services share the requests for one name."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from aiservice_api.tasks import Task
from aiservice_gateway.models import Service
from aiservice_gateway.services.registry import Registry

TASK = Task.TEXT_TO_IMAGE


def service(name: str, namespace: str = "team", **more: Any) -> Service:
    return Service(name=name, namespace=namespace, tasks=(TASK,), endpoints={TASK: f"http://{name}"}, **more)


def shares(*services: Service, name: str | None, requests: int = 2000) -> dict[str, float]:
    """The part of the requests for a name that each service gets."""
    draw = random.Random(5)
    registry = Registry(draw.random)
    registry.replace("cluster", services)
    counts = Counter(registry.resolve(TASK, name).key for _ in range(requests))
    return {key: round(count / requests, 1) for key, count in counts.items()}


STABLE = service("sdxl", weight=80)
CANARY = service("sdxl-next", weight=20, aliases=("sdxl",))


def test_services_that_have_a_name_share_it_by_weight() -> None:
    assert shares(STABLE, CANARY, name="sdxl") == {"team/sdxl": 0.8, "team/sdxl-next": 0.2}


def test_its_own_name_and_the_full_one_mean_one_service() -> None:
    assert shares(STABLE, CANARY, name="sdxl-next") == {"team/sdxl-next": 1.0}
    assert shares(STABLE, CANARY, name="team/sdxl") == {"team/sdxl": 1.0}


def test_an_alias_of_both_is_shared() -> None:
    both = [service("one", weight=1, aliases=("images",)), service("two", weight=1, aliases=("images",))]
    assert shares(*both, name="images") == {"team/one": 0.5, "team/two": 0.5}


def test_defaults_share_and_what_is_no_default_does_not() -> None:
    old = service("old", weight=4, default=True)
    new = service("new", weight=1, default=True)
    other = service("other", weight=9)
    assert shares(old, new, other, name=None) == {"team/old": 0.8, "team/new": 0.2}


def test_a_service_that_states_no_weight_shares_with_nobody() -> None:
    assert shares(service("sdxl"), CANARY, name="sdxl") == {"team/sdxl": 1.0}
    assert shares(STABLE, service("b", aliases=("sdxl",)), name="sdxl") == {"team/sdxl": 1.0}


def test_another_team_cannot_take_requests() -> None:
    thief = service("thief", "elsewhere", weight=1000, aliases=("sdxl",))
    assert shares(STABLE, thief, name="sdxl") == {"team/sdxl": 1.0}


def test_a_weight_of_zero_gets_nothing_and_may_be_the_first_one() -> None:
    assert shares(service("sdxl", weight=0), CANARY, name="sdxl") == {"team/sdxl-next": 1.0}
    assert shares(STABLE, service("b", weight=0, aliases=("sdxl",)), name="sdxl") == {"team/sdxl": 1.0}
    assert shares(service("sdxl", weight=0), service("b", weight=0, aliases=("sdxl",)), name="sdxl") == {
        "team/sdxl": 1.0
    }


def test_the_part_of_a_service_that_is_not_ready_goes_to_the_others() -> None:
    waiting = service("sdxl-next", weight=20, aliases=("sdxl",), ready=False)
    assert shares(STABLE, waiting, name="sdxl") == {"team/sdxl": 1.0}
    assert shares(service("sdxl", weight=80, ready=False), CANARY, name="sdxl") == {"team/sdxl-next": 1.0}
