"""What a pod's status means in words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiservice_operator.failures import (
    SETTLE,
    UNREADY,
    Words,
    late_after,
    of_pod,
    of_pods,
    of_replaced,
    settles_after,
    starts_late,
)
from aiservice_operator.kinds import Json
from aiservice_operator.observed import Child
from support.operator_objects import NOW, condition, container_status, pod, timestamp

ENDED: Json = {"exitCode": 1, "reason": "Error", "message": "no weights\n", "finishedAt": timestamp(NOW)}
LOOPING: Json = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=engine"}
CRASHED = ("CrashLoopBackOff", "container engine exited with code 1: no weights")


def unschedulable(age: timedelta, message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") -> Child:
    scheduled = condition("PodScheduled", "False", "Unschedulable", message)
    status = {"phase": "Pending", "conditions": [{**scheduled, "lastTransitionTime": timestamp(NOW - age)}]}
    return pod("waiting", status)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Pending"}, None),
        (container_status(waiting={"reason": "ContainerCreating"}), None),
        (container_status(running={}, ready=True), None),
        (container_status(running={}), None),
        (container_status(running={}, ready=True, last=ENDED), None),
        (container_status(terminated=ENDED), CRASHED),
        (container_status(waiting=LOOPING, last=ENDED), CRASHED),
        (container_status(running={}, last=ENDED), CRASHED),
        (container_status(terminated={"exitCode": 0, "reason": "Completed"}), None),
        (
            container_status(terminated={"exitCode": 3, "finishedAt": timestamp(NOW)}),
            (
                "CrashLoopBackOff",
                (
                    "container engine exited with code 3: it left no message; `kubectl logs p --previous` shows what "
                    "it printed"
                ),
            ),
        ),
        (
            container_status(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            (
                "OOMKilled",
                "container engine was killed for using more memory than its limit of 8Gi",
            ),
        ),
        (
            container_status(waiting={"reason": "ErrImagePull", "message": "not found"}),
            ("ImagePullBackOff", "image example.test/speech:1 cannot be pulled: not found"),
        ),
        (
            container_status(
                waiting={
                    "reason": "ImagePullBackOff",
                    "message": 'Back-off pulling image "x:1": ErrImagePull: not found',
                }
            ),
            ("ImagePullBackOff", "image example.test/speech:1 cannot be pulled: not found"),
        ),
        (
            container_status(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}),
            ("ImagePullBackOff", "image example.test/speech:1 cannot be pulled"),
        ),
        (
            container_status(waiting={"reason": "InvalidImageName", "message": "cannot parse"}),
            ("InvalidImageName", "image example.test/speech:1 cannot be used: cannot parse"),
        ),
        (
            container_status(waiting={"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}),
            ("CreateContainerConfigError", 'the container cannot be started: secret "hub" not found'),
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            ("Evicted", "the pod was stopped: The node was low on resource: memory."),
        ),
    ],
)
def test_what_keeps_a_pod_from_running(status: Json, expected: tuple[str, str] | None) -> None:
    failure = of_pod(pod("p", status))
    assert (failure and (failure.reason, failure.message)) == expected


def test_a_crash_reads_the_same_all_the_way_round() -> None:
    """Between two tries the pod is terminated, waiting and running; a status that followed would flicker."""
    states = (
        container_status(terminated=ENDED),
        container_status(waiting=LOOPING, last=ENDED),
        container_status(running={}, last=ENDED),
    )
    assert len({of_pod(pod("p", state)) for state in states}) == 1


def test_any_container_that_a_pod_needs_may_fail() -> None:
    mesh: Json = {"name": "mesh", "image": "mesh:1", "ready": False, "state": {"terminated": ENDED}}
    beside = container_status(running={}, ready=True)
    beside["containerStatuses"].insert(0, mesh)
    failure = of_pod(pod("p", beside))
    assert failure is not None
    assert failure.message == "container mesh exited with code 1: no weights"
    before = container_status(waiting={"reason": "PodInitializing"})
    before["initContainerStatuses"] = [mesh]
    failure = of_pod(pod("p", before))
    assert failure is not None
    assert failure.message == "container mesh exited with code 1: no weights"


def test_the_engines_failure_is_told_before_that_of_a_sidecar() -> None:
    status = container_status(terminated=ENDED)
    mesh = {"name": "mesh", "image": "mesh:1", "ready": False, "state": {"waiting": {"reason": "ErrImagePull"}}}
    status["containerStatuses"].insert(0, mesh)
    failure = of_pod(pod("p", status))
    assert failure is not None
    assert failure.message.startswith("container engine")


def test_what_was_injected_beside_a_download_does_not_count() -> None:
    status = container_status("downloader", terminated={"exitCode": 0, "reason": "Completed"})
    status["containerStatuses"].insert(0, {"name": "mesh", "ready": False, "state": {"terminated": ENDED}})
    assert of_pod(pod("p", status, container="downloader")) is None


def ended(name: str, age: timedelta) -> Child:
    """A pod that was evicted, made some time ago."""
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    return pod(name, status, creationTimestamp=timestamp(NOW - age))


def test_a_pod_that_ended_and_was_replaced_is_over() -> None:
    old = ended("old", timedelta(hours=2))
    young = pod("young", container_status(running={}), creationTimestamp=timestamp(NOW - timedelta(hours=1)))
    assert of_pods([old, young], NOW) is None
    over = of_replaced([old, young])
    assert over is not None
    assert (over.reason, over.object) == ("Evicted", "Pod/old")
    # Without a successor it is what there is to say.
    failure = of_pods([old, ended("older", timedelta(hours=3))], NOW)
    assert failure is not None
    assert failure.object == "Pod/old"
    assert of_replaced([old]) is None


@pytest.mark.parametrize(("running", "deleting"), [(True, False), (True, True), (False, True)])
def test_a_successor_of_the_same_second_is_one_also_while_it_goes(running: bool, deleting: bool) -> None:
    """Between the pods of two rollouts, the oldest of which was evicted."""
    made = {"creationTimestamp": timestamp(NOW), **({"deletionTimestamp": timestamp(NOW)} if deleting else {})}
    going = pod("going", container_status(running={}) if running else {"phase": "Failed", "reason": "Evicted"}, **made)
    assert of_pods([ended("old", timedelta()), going], NOW) is None


def placed(age: timedelta, status: Json) -> Child:
    """A pod that has had a node for some time."""
    scheduled = {**condition("PodScheduled", "True"), "lastTransitionTime": timestamp(NOW - age)}
    return pod("slow", {"phase": "Pending", "conditions": [scheduled], **status})


MOUNT = Words("FailedMount", "MountVolume.SetUp failed: no such device", NOW)


def test_what_events_say_of_a_pod_that_does_not_start() -> None:
    creating = placed(timedelta(minutes=1), container_status(waiting={"reason": "ContainerCreating"}))
    assert starts_late(creating, NOW)
    failure = of_pods([creating], NOW, {"uid-slow": MOUNT})
    assert failure is not None
    assert (failure.reason, failure.object) == ("FailedMount", "Pod/slow")
    assert failure.message == "the pod cannot be started: MountVolume.SetUp failed: no such device"
    assert of_pods([creating], NOW) is None, "nothing was said"
    # Its node has not even taken notice of it.
    assert starts_late(placed(timedelta(minutes=1), {}), NOW)


def test_events_are_looked_at_only_where_nothing_starts() -> None:
    young = placed(timedelta(seconds=10), container_status(waiting={"reason": "ContainerCreating"}))
    assert not starts_late(young, NOW)
    assert late_after([young], NOW) == 20
    started = placed(timedelta(minutes=1), {**container_status(running={}), "phase": "Running"})
    assert not starts_late(started, NOW)
    assert of_pods([started], NOW, {"uid-slow": MOUNT}) is None, "what was said is over"
    assert late_after([started], NOW) is None
    pulling = placed(timedelta(minutes=1), container_status(waiting={"reason": "ErrImagePull", "message": "no"}))
    assert not starts_late(pulling, NOW), "its status says why"


def test_a_pod_that_has_just_begun_to_wait_for_a_node_has_not_failed_yet() -> None:
    young, old = unschedulable(timedelta(seconds=1)), unschedulable(SETTLE)
    assert of_pods([young], NOW) is None
    assert settles_after([young], NOW) == 2
    failure = of_pods([old], NOW)
    assert failure is not None
    assert failure.message == "no node can take the pod: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    assert settles_after([old], NOW) is None


def test_a_pod_that_waits_for_another_to_make_room_has_not_failed() -> None:
    """A pod that drains holds its GPU until it is gone, or has to be."""
    waits = unschedulable(timedelta(minutes=1))
    drains = pod("old", container_status(running={}), deletionTimestamp=timestamp(NOW + timedelta(seconds=20)))
    assert of_pods([waits, drains], NOW) is None
    assert settles_after([waits, drains], NOW) == 20 + SETTLE.total_seconds()
    stuck = pod("old", container_status(running={}), deletionTimestamp=timestamp(NOW - timedelta(minutes=1)))
    assert of_pods([waits, stuck], NOW) is not None


def test_the_cause_is_told_and_not_its_consequence() -> None:
    before = {**ENDED, "finishedAt": timestamp(NOW - timedelta(hours=1))}
    crashed = pod("crashed", container_status(waiting=LOOPING, last=before))
    failure = of_pods([unschedulable(timedelta(minutes=1)), crashed], NOW)
    assert failure is not None
    assert failure.object == "Pod/crashed"


def test_a_pod_that_goes_has_no_failure() -> None:
    assert of_pods([pod("p", container_status(terminated=ENDED), deletionTimestamp=timestamp(NOW))], NOW) is None


def not_ready(age: timedelta, *, began: timedelta = timedelta(hours=1), reason: str = "", **container: Any) -> Child:
    """A pod that has not been ready for some time; its container began longer ago, and has loaded."""
    ready = {**condition("Ready", "False", reason), "lastTransitionTime": timestamp(NOW - age)}
    state = {"running": {"startedAt": timestamp(NOW - began)}, "started": True, **container}
    return pod("p", {**container_status(**state), "conditions": [ready]})


def test_a_pod_that_hangs_has_failed_after_a_while() -> None:
    hangs = not_ready(UNREADY)
    failure = of_pods([hangs], NOW)
    assert failure is not None
    assert (failure.reason, failure.object, failure.time) == ("NotReady", "Pod/p", NOW - UNREADY)
    assert failure.message == (
        "container engine of pod p on node node was ready, and does not answer its readiness probe any more"
    )
    assert settles_after([hangs], NOW) is None
    busy = not_ready(UNREADY - timedelta(seconds=12))
    assert of_pods([busy], NOW) is None, "it may be busy"
    assert settles_after([busy], NOW) == 12


def test_a_pod_that_misses_a_probe_does_not_fail_by_a_crash_of_long_ago() -> None:
    crashed = {**ENDED, "finishedAt": timestamp(NOW - timedelta(days=3))}
    assert of_pods([not_ready(timedelta(seconds=5), last=crashed)], NOW) is None
    hangs = of_pods([not_ready(UNREADY, last=crashed)], NOW)
    assert hangs is not None
    assert hangs.reason == "NotReady"
    loops = of_pods([not_ready(timedelta(hours=1), began=timedelta(seconds=9), started=False, last=crashed)], NOW)
    assert loops is not None
    assert loops.reason == "CrashLoopBackOff"


@pytest.mark.parametrize(
    "loads",
    [
        not_ready(timedelta(hours=1), started=False),
        not_ready(timedelta(hours=1)),
        not_ready(timedelta(hours=1), began=timedelta(minutes=59)),
        not_ready(timedelta(minutes=1), began=timedelta(seconds=30), started=False),
    ],
)
def test_a_pod_that_was_not_ready_yet_loads(loads: Child) -> None:
    """Also in the moment between the passing of its startup probe and that of its readiness probe."""
    assert of_pods([loads], NOW) is None
    assert settles_after([loads], NOW) is None


def test_a_pod_whose_node_is_lost() -> None:
    """The containers are as the kubelet saw them last; that the pod is not ready says the node controller."""
    lost = not_ready(SETTLE, ready=True)
    failure = of_pods([lost], NOW)
    assert failure is not None
    assert failure.reason == "NodeNotReady"
    assert failure.message == "pod p on node node cannot be reached: the node does not answer"
    assert settles_after([not_ready(timedelta(), ready=True)], NOW) == SETTLE.total_seconds()
    gated = not_ready(timedelta(hours=1), ready=True, reason="ReadinessGatesNotReady")
    assert of_pods([gated], NOW) is None, "its node answers"


def test_a_pod_that_drains_is_not_told_as_unready() -> None:
    for status in (not_ready(UNREADY).body["status"], not_ready(UNREADY, ready=True).body["status"]):
        assert of_pods([pod("p", status, deletionTimestamp=timestamp(NOW))], NOW) is None


def test_a_download_on_a_lost_node_is_its_jobs_matter() -> None:
    status = not_ready(UNREADY, ready=True).body["status"]
    status["containerStatuses"][0]["name"] = "downloader"
    assert of_pods([pod("p", status, container="downloader")], NOW) is None
