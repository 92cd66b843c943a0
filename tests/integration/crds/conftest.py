"""The CRDs, in a real API server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from support.cluster import REPOSITORY, ControlPlane
from support.kube_api import KubeApi

CRDS = ("aiservices.aiservice.dev", "modelcaches.aiservice.dev", "aitenants.aiservice.dev")


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the CRDs as the repository has them, established."""
    for name in CRDS:
        control_plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / f"crds/{name}.yaml")
        )
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in CRDS))
    return control_plane


@pytest.fixture(scope="module")
def room(api: ControlPlane) -> Iterator[str]:
    """A namespace that the tests of a module share; they give their objects names of their own."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    api.kubectl("create", "namespace", name)
    yield name
    api.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def server(api: ControlPlane) -> Iterator[KubeApi]:
    """The API server without kubectl between: for what is tried a hundred times and never stored."""
    client = KubeApi(api.kubeconfig, "default")
    yield client
    client.close()
