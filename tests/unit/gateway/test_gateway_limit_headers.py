"""The headers that tell of limits, and the plans that they are made from."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.models import Limit, Measure
from aiservice_gateway.plans import Code, Plan, Verdict, make_plan, moment, month_of
from aiservice_gateway.services.limit_headers import limit_headers

TASK = Task.SPEECH_TO_TEXT
NOW = 1_764_000_000_000_000
LIMITS = (
    Limit(Measure.REQUESTS, Decimal(100), TASK, 3600),
    Limit(Measure.REQUESTS, Decimal(500), None, 86400),
    Limit(Measure.UNITS, Decimal("1000.5"), TASK, 60),
    Limit(Measure.CONCURRENCY, Decimal(4)),
    Limit(Measure.SPEND, Decimal("12.5")),
)


def plan_of(*limits: Limit, tenant: str = "acme", units: str = "60", task: Task = TASK) -> Plan:
    return make_plan(
        tenant,
        limits,
        reserved_units=dict.fromkeys(Task, Decimal(units)),
        price=Decimal("0.00004"),
        task=task,
        month=month_of(NOW),
    )


def test_headers_are_those_of_the_draft() -> None:
    headers = limit_headers(plan_of(*LIMITS), b"secret")
    states = [1, 3_411_000_001, 498, 5, 60_000, 9, 1, 0, 2400, 9]
    answer = headers.admitted(Verdict(Code.ADMITTED, NOW, states=states))
    keys = re.findall(r";pk=(:[A-Za-z0-9+/]{12}:)", answer["ratelimit"])
    assert len(keys) == 3
    assert re.sub(";pk=:[^:]*:", "", answer["ratelimit-policy"]) == (
        '"speech-to-text-requests-3600s";q=100;qu="requests";w=3600, '
        '"all-requests-86400s";q=500;qu="requests";w=86400, "all-concurrency";q=4;qu="concurrent-requests"'
    )
    assert re.sub(";pk=:[^:]*:", "", answer["ratelimit"]) == (
        '"speech-to-text-requests-3600s";r=99;t=3412, "all-requests-86400s";r=2;t=1, "all-concurrency";r=3'
    )
    # The older headers are of the limit of requests that is used up first.
    older = {name: value for name, value in answer.items() if name.startswith("x-")}
    assert older == {"x-ratelimit-limit": "500", "x-ratelimit-remaining": "2", "x-ratelimit-reset": "1"}


def test_a_refusal_names_the_limit_that_refused_and_when_it_ends() -> None:
    headers = limit_headers(plan_of(*LIMITS), b"secret")
    answer = headers.refused(Verdict(Code.REFUSED, NOW, 0, 1_000_001))
    assert re.sub(";pk=:[^:]*:", "", answer["ratelimit"]) == '"speech-to-text-requests-3600s";r=0;t=2'
    answer = headers.refused(Verdict(Code.REFUSED, NOW, 4, 3_600_000_000))
    assert answer == {"x-ratelimit-limit": "12.5", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3600"}


def test_partition_keys_tell_tenants_apart_and_nobody_who_they_are() -> None:
    def keys(tenant: str, secret: bytes = b"secret", task: Task = TASK) -> list[str]:
        return re.findall(";pk=(:[^:]*:)", limit_headers(plan_of(*LIMITS, tenant=tenant, task=task), secret).policy)

    assert keys("acme") == keys("acme")
    assert not set(keys("acme")) & set(keys("other"))
    assert not set(keys("acme")) & set(keys("acme", b"another installation"))
    assert keys("acme")[0] != keys("acme")[1], "a service of its own, all together"
    assert keys("acme")[1:] == keys("acme", task=Task.IMAGE_TO_TEXT)


def test_a_tenant_without_limits_gets_no_headers() -> None:
    assert limit_headers(plan_of(), b"secret").admitted(Verdict(Code.ADMITTED, NOW)) == {}


def test_a_plan_holds_estimates_in_whole_amounts() -> None:
    plan = plan_of(*LIMITS)
    assert plan.maxima == (100, 500, 1_000_500, 4, 12_500_000)
    assert [hold.amount for hold in plan.holds] == [1, 1, 60_000, 1, 2400]
    assert [hold.window for hold in plan.holds] == [3_600_000_000, 86_400_000_000, 60_000_000, 0, 0]
    assert plan.holds[4].key == "aiservice:limit:spend:*:2025-11:acme"


def test_limits_of_other_services_do_not_apply_and_of_two_alike_the_smaller_does() -> None:
    twice = (Limit(Measure.REQUESTS, Decimal(9), TASK, 60), Limit(Measure.REQUESTS, Decimal(5), TASK, 60))
    assert plan_of(*twice).maxima == plan_of(*reversed(twice)).maxima == (5,)
    assert plan_of(*twice, task=Task.IMAGE_TO_TEXT).limits == ()


@pytest.mark.parametrize(
    ("maximum", "held"), [(Decimal("0.5"), 500), (Decimal(0), 1), (Decimal(60), 60_000), (Decimal(61), 60_000)]
)
def test_no_request_holds_more_than_the_limit(maximum: Decimal, held: int) -> None:
    assert plan_of(Limit(Measure.UNITS, maximum, TASK, 60)).holds[0].amount == held


def test_months_are_those_of_utc() -> None:
    month = month_of(NOW)
    assert (month.name, moment(month.start).isoformat(), moment(month.end).isoformat()) == (
        "2025-11",
        "2025-11-01T00:00:00+00:00",
        "2025-12-01T00:00:00+00:00",
    )
    assert month_of(month.end).name == "2025-12"
    assert month_of(month.end - 1).name == "2025-11"
    assert month_of(month_of(month.end).end).name == "2026-01"
