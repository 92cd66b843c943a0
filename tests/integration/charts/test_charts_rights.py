"""Who may do what once the charts are installed, asked of the real authorizer."""

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from support.cluster import ControlPlane, eventually
from support.rights import Rights, rights

Helm = Callable[..., str]
AS_JSON = ("--validate=false", "-f", "-", "-o", "json")
"""Without validation: kubectl would read the CustomResourceDefinitions for it, which not everyone may."""
APPLIED = ("get", "list", "watch", "create", "patch")
OPERATOR: Rights = {
    (resource, verb)
    for resource, verbs in {
        "aiservices.aiservice.dev": ("list", "watch"),
        "aiservices.aiservice.dev/status": ("patch",),
        "aiservices.aiservice.dev/finalizers": ("update",),
        "modelcaches.aiservice.dev": ("get", "list", "watch", "create", "patch", "delete"),
        "modelcaches.aiservice.dev/status": ("patch",),
        "modelcaches.aiservice.dev/finalizers": ("update",),
        "jobs.batch": (*APPLIED, "delete"),
        "deployments.apps": APPLIED,
        "horizontalpodautoscalers.autoscaling": (*APPLIED, "delete"),
        "poddisruptionbudgets.policy": (*APPLIED, "delete"),
        "networkpolicies.networking.k8s.io": (*APPLIED, "delete"),
        "podmonitors.monitoring.coreos.com": (*APPLIED, "delete"),
        "services": APPLIED,
        "serviceaccounts": APPLIED,
        "persistentvolumeclaims": APPLIED,
        "pods": ("list", "watch"),
        "pods/log": ("get",),
        "events.events.k8s.io": ("create",),
        "events": ("list",),
        "secrets": ("get",),
        "configmaps": ("get",),
    }.items()
    for verb in verbs
}
NODES: Rights = {("nodes", "get"), ("nodes", "list"), ("pods", "list")}
"""What is granted in the whole cluster, whatever the namespaces."""
SERVICES: Rights = {("aiservices.aiservice.dev", verb) for verb in ("list", "watch")}
GATEWAY: Rights = SERVICES | {("endpointslices.discovery.k8s.io", verb) for verb in ("list", "watch")}
TENANTS: Rights = {
    ("aitenants.aiservice.dev", "list"),
    ("aitenants.aiservice.dev", "watch"),
    ("aitenants.aiservice.dev/status", "patch"),
}
"""What is granted in the gateway's own namespace, wherever its services are."""


@pytest.fixture
def elsewhere(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """A second namespace."""
    name = f"{namespace}-b"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def test_the_operator_may_do_what_it_does_and_no_more(
    control_plane: ControlPlane, restricted: str, elsewhere: str, helm: Helm
) -> None:
    name = f"{restricted}-aiservice-operator"
    helm("install", restricted, "operator")
    lease = f"leases.coordination.k8s.io:{name}"
    own = {("leases.coordination.k8s.io", "create"), (lease, "get"), (lease, "update")}
    account = f"{restricted}:{name}"
    eventually(lambda: rights(control_plane, account, restricted) == OPERATOR | NODES | own)
    assert rights(control_plane, account, elsewhere) == OPERATOR | NODES


def test_an_operator_of_some_namespaces_may_do_nothing_in_others(
    control_plane: ControlPlane, restricted: str, elsewhere: str, helm: Helm
) -> None:
    helm("install", restricted, "operator", {"watch": {"namespaces": [elsewhere]}})
    account = f"{restricted}:{restricted}-aiservice-operator"
    eventually(lambda: rights(control_plane, account, elsewhere) == OPERATOR | NODES)
    assert {resource.split(":")[0] for resource, _ in rights(control_plane, account, restricted) - NODES} == {
        "leases.coordination.k8s.io"
    }
    assert rights(control_plane, account, "default") == NODES

    few = {"watch": {"namespaces": [elsewhere]}, "rbac": {"readNodes": False}, "rollOnConfigChange": False}
    helm("upgrade", restricted, "operator", few)
    eventually(lambda: rights(control_plane, account, "default") == set())
    assert rights(control_plane, account, elsewhere) == OPERATOR - {("secrets", "get"), ("configmaps", "get")}


def test_the_gateway_may_only_read_services_their_pods_addresses_and_its_own_tenants(
    control_plane: ControlPlane, restricted: str, elsewhere: str, helm: Helm
) -> None:
    values = {"auth": {"jwtSecret": "f0rChartTests-Wc7kQz2nVb9xLd4mT8"}, "embedded": {"enabled": True}, "replicas": 1}
    helm("install", restricted, "gateway", values)
    account = f"{restricted}:{restricted}-aiservice-gateway"
    eventually(lambda: rights(control_plane, account, elsewhere) == GATEWAY)
    assert rights(control_plane, account, restricted) == GATEWAY | TENANTS
    helm("upgrade", restricted, "gateway", values | {"namespaces": [elsewhere]})
    eventually(lambda: rights(control_plane, account, restricted) == TENANTS)
    assert rights(control_plane, account, elsewhere) == GATEWAY
    helm("upgrade", restricted, "gateway", values | {"namespaces": [restricted]})
    eventually(lambda: rights(control_plane, account, elsewhere) == set())
    assert rights(control_plane, account, restricted) == GATEWAY | TENANTS
    helm("upgrade", restricted, "gateway", values | {"namespaces": [restricted], "followPods": False})
    eventually(lambda: rights(control_plane, account, restricted) == SERVICES | TENANTS)


USERS = {
    "view": (
        ["get aiservices", "list modelcaches", "get aiservices/status", "list aitenants"],
        ["create aiservices", "patch aiservices/scale", "create aitenants"],
    ),
    "edit": (
        ["create aiservices", "delete modelcaches", "patch aiservices/scale", "patch aitenants"],
        ["patch aiservices/status", "update modelcaches/finalizers", "patch aitenants/status"],
    ),
    "admin": (["create aiservices", "watch modelcaches"], ["update modelcaches/status"]),
}
"""By role of the cluster: what its holder may do, and what not."""


def test_users_get_their_rights_through_the_cluster_roles(
    control_plane: ControlPlane, restricted: str, helm: Helm
) -> None:
    helm("install", restricted, "operator")
    for role, (allowed, refused) in USERS.items():
        user = f"holder-of-{role}"
        binding = ("rolebinding", role, f"--clusterrole={role}", f"--user={user}")
        control_plane.kubectl("create", *binding, "-n", restricted)
        # The controller manager joins the roles together in its own time.
        eventually(partial(may_all, control_plane, user, allowed, restricted))
        assert not [action for action in refused if may(control_plane, user, action, restricted)]


def may_all(control_plane: ControlPlane, user: str, actions: list[str], namespace: str) -> bool:
    return all(may(control_plane, user, action, namespace) for action in actions)


def may(control_plane: ControlPlane, user: str, action: str, namespace: str) -> bool:
    """Whether a user may do, in a namespace, something written like "patch aiservices/scale"."""
    verb, resource = action.split()
    kind, _, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": "aiservice.dev",
        "resource": kind,
        "subresource": subresource,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = json.loads(control_plane.kubectl("create", *AS_JSON, stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])
