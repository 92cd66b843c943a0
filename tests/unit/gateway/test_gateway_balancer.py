"""Which pod a request goes to, and which pods are left out."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.errors import UnavailableError
from aiservice_gateway.metrics import Metrics
from aiservice_gateway.models import Service
from aiservice_gateway.services.backends import Backends
from aiservice_gateway.services.balancer import FAILURES_IN_A_ROW, Address, Balancer, Choice, Pod

TASK = Task.TEXT_TO_IMAGE
NAMES = ("a", "b", "c", "d")


def balancer(*names: str) -> Balancer:
    made = Balancer(lambda: None)
    made.update({TASK: [Address(name, f"http://{name}") for name in names]}, 0.0)
    return made


def pods(of: Balancer) -> dict[str, Pod]:
    return {choice.pod.name: choice.pod for choice in of._choices[TASK]}


def used(of: Balancer, now: float, times: int = 100) -> Counter[str]:
    """How often each pod is chosen when each request ends before the next."""
    names: Counter[str] = Counter()
    for _ in range(times):
        choice = of.choose(TASK, now)
        names[choice.pod.name] += 1
        of.release(choice.pod)
    return names


def fail(of: Balancer, pod: Pod, now: float, times: int = FAILURES_IN_A_ROW) -> None:
    for _ in range(times):
        of.failed(pod, now)


def probe(of: Balancer, pod: Pod, now: float) -> None:
    """A request that finds out, as the chosen pod's."""
    chosen = {of.choose(TASK, now).pod for _ in NAMES}
    assert pod in chosen
    assert pod.probing


def test_requests_that_end_at_once_are_spread_evenly() -> None:
    assert used(balancer(*NAMES), 0.0) == Counter(dict.fromkeys(NAMES, 25))


def test_requests_that_last_go_where_the_fewest_are() -> None:
    made = balancer(*NAMES)
    for _ in range(8):
        made.choose(TASK, 0.0)
    assert {pod.outstanding for pod in pods(made).values()} == {2}
    made.release(pods(made)["c"])
    assert made.choose(TASK, 0.0).pod.name == "c"


def test_a_slow_pod_gets_less() -> None:
    """Each pod takes a time for a request, one of them five times as long: by requests alone it would get a quarter."""
    made, seconds = balancer(*NAMES), {"a": 5.0, "b": 1.0, "c": 1.0, "d": 1.0}
    under_way: list[tuple[float, Choice]] = []
    counts: Counter[str] = Counter()
    for tick in range(2000):
        now = tick / 10
        for ends, choice in [item for item in under_way if item[0] <= now]:
            made.release(choice.pod)
            under_way.remove((ends, choice))
        choice = made.choose(TASK, now)
        counts[choice.pod.name] += 1
        under_way.append((now + seconds[choice.pod.name], choice))
    assert counts["a"] < 0.4 * counts["b"]
    assert max(counts[name] for name in "bcd") < 1.2 * min(counts[name] for name in "bcd")


def test_a_pod_that_fails_in_a_row_is_left_out_for_a_time_and_then_tried_by_one_request() -> None:
    made = balancer(*NAMES)
    bad = pods(made)["a"]
    fail(made, bad, 10.0, FAILURES_IN_A_ROW - 1)
    assert used(made, 10.0)["a"] == 25
    fail(made, bad, 10.0, 1)
    assert made.ejected() == 1
    assert used(made, 14.9)["a"] == 0
    probe(made, bad, 15.0)
    assert [made.choose(TASK, 15.0).pod.name == "a" for _ in range(20)] == [False] * 20  # while it is being tried
    made.succeeded(bad, 15.5)
    made.release(bad)
    assert made.ejected() == 0
    assert used(made, 15.5)["a"] > 0


def test_a_pod_that_fails_again_is_left_out_longer_each_time_up_to_a_bound() -> None:
    made = balancer(*NAMES)
    bad, now, times = pods(made)["a"], 0.0, []
    fail(made, bad, now)
    for _ in range(9):
        assert bad.ejected_until is not None
        times.append(bad.ejected_until - now)
        now = bad.ejected_until
        probe(made, bad, now)
        made.failed(bad, now)
        for pod in pods(made).values():
            while pod.outstanding:
                made.release(pod)
    assert times == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_pod_that_was_well_for_long_starts_over() -> None:
    made = balancer(*NAMES)
    bad = pods(made)["a"]
    fail(made, bad, 0.0)
    probe(made, bad, 5.0)
    made.succeeded(bad, 5.0)
    fail(made, bad, 100.0)
    assert bad.ejected_until == 110.0
    made.succeeded(bad, 110.0)
    fail(made, bad, 500.0)
    assert bad.ejected_until == 505.0


def test_a_success_between_failures_is_a_new_row() -> None:
    made = balancer(*NAMES)
    bad = pods(made)["a"]
    for _ in range(10):
        fail(made, bad, 0.0, FAILURES_IN_A_ROW - 1)
        made.succeeded(bad, 0.0)
    assert made.ejected() == 0


@pytest.mark.parametrize(("names", "most"), [("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2), ("abcdefg", 3)])
def test_at_most_half_of_the_pods_are_left_out(names: str, most: int) -> None:
    made = balancer(*names)
    for pod in pods(made).values():
        fail(made, pod, 0.0, 50)
    assert made.ejected() == most


def test_when_pods_go_no_more_than_half_stay_left_out() -> None:
    made = balancer(*NAMES)
    for name, at in (("a", 0.0), ("b", 1.0)):
        fail(made, pods(made)[name], at)
    made.update({TASK: [Address(name, f"http://{name}") for name in "abc"]}, 2.0)
    assert made.ejected() == 1
    assert used(made, 2.0)["b"] == 0  # it was the later one
    made.update({TASK: [Address("b", "http://b")]}, 2.0)
    assert made.ejected() == 0


def test_a_busy_pod_is_passed_over_for_as_long_as_it_asked() -> None:
    made = balancer("a", "b")
    made.busy(pods(made)["a"], 0.0, 7)
    assert used(made, 6.9) == {"b": 100}
    assert used(made, 7.0) == {"a": 50, "b": 50}


def test_where_all_are_busy_they_are_asked_all_the_same_and_the_first_to_be_free_is_told() -> None:
    made = balancer("a", "b")
    made.busy(pods(made)["a"], 0.0, 7)
    made.busy(pods(made)["b"], 0.0, 3)
    assert used(made, 1.0) == {"a": 50, "b": 50}
    assert made.retry_after(TASK, 1.0) == 2
    assert not made.another(TASK, 1.0, ())


def test_pods_that_had_a_request_come_last() -> None:
    made = balancer("a", "b", "c")
    a, b, c = pods(made).values()
    made.busy(b, 0.0, 9)
    assert made.another(TASK, 0.0, [a])
    assert made.choose(TASK, 0.0, [a]).pod is c
    assert not made.another(TASK, 0.0, [a, c])
    assert made.choose(TASK, 0.0, [a, c]).pod is b
    assert made.choose(TASK, 0.0, [a, b, c]).pod in (a, b, c)


def test_a_service_without_pods_is_unavailable() -> None:
    made = balancer()
    with pytest.raises(UnavailableError):
        made.choose(TASK, 0.0)
    with pytest.raises(UnavailableError):
        balancer("a").choose(Task.SPEECH_TO_TEXT, 0.0)


def test_a_pod_that_does_two_tasks_is_one_pod() -> None:
    made = Balancer(lambda: None)
    other = Task.IMAGE_TO_IMAGE
    made.update({task: [Address(name, f"http://{name}/{task}") for name in "ab"] for task in (TASK, other)}, 0.0)
    first = made.choose(TASK, 0.0)
    second = made.choose(other, 0.0)
    assert {first.pod.name, second.pod.name} == {"a", "b"}
    assert second.url == f"http://{second.pod.name}/{other}"


def test_whatever_happens_nothing_is_counted_that_is_not_there() -> None:
    """A thousand random events: outstanding requests are exact, half of the pods stay, and a choice is always found."""
    draw = random.Random(7)
    made, now = balancer(*NAMES), 0.0
    under_way: list[Choice] = []
    for _ in range(5000):
        now += draw.random()
        if draw.random() < 0.5 or not under_way:
            under_way.append(
                made.choose(TASK, now, [choice.pod for choice in draw.sample(under_way, min(2, len(under_way)))])
            )
        else:
            choice = under_way.pop(draw.randrange(len(under_way)))
            kind = draw.random()
            if kind < 0.5:
                made.failed(choice.pod, now)
            elif kind < 0.7:
                made.succeeded(choice.pod, now)
            elif kind < 0.9:
                made.busy(choice.pod, now, draw.random() * 10)
            made.release(choice.pod)
        if draw.random() < 0.02:
            names = draw.sample(NAMES, draw.randint(1, 4))
            made.update({TASK: [Address(name, f"http://{name}") for name in names]}, now)
            under_way = [choice for choice in under_way if choice.pod in pods(made).values()]
        assert made.ejected() <= made.known // 2
        counts = Counter(choice.pod.name for choice in under_way)
        assert all(pod.outstanding == counts[pod.name] for pod in pods(made).values())


def service(name: str, **more: object) -> Service:
    return Service(name=name, namespace="", tasks=(TASK,), endpoints={TASK: f"http://{name}"}, **more)  # type: ignore[arg-type] # the fields of Service


def test_backends_follow_their_services_and_pods_and_are_forgotten_with_them() -> None:
    known = {"a", "b"}
    backends = Backends(Metrics(), known.__contains__)
    first = service("a")
    backend = backends.of(first)
    assert backend.balancer.choose(TASK, 0.0).url == "http://a"
    backends.put_pods("a", {TASK: (Address("p", "http://1.2.3.4:7860"),)})
    assert backends.of(first) is backend
    assert backend.balancer.choose(TASK, 0.0).url == "http://1.2.3.4:7860"
    backends.put_pods("a", {})
    with pytest.raises(UnavailableError):
        backends.of(first).balancer.choose(TASK, 0.0)
    backends.put_pods("a", None)
    several = service("a", replicas={TASK: ("http://x", "http://y")})
    assert {backends.of(several).balancer.choose(TASK, 0.0).url for _ in "xy"} == {"http://x", "http://y"}
    assert backends.of(several) is backend
    known.remove("a")
    backends.note()
    assert backends.of(several) is not backend
