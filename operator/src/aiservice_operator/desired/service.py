"""The address of an AIService inside the cluster: one named port for each task."""

from __future__ import annotations

from kubernetes.aio import client

from aiservice_api.tasks import PORTS, Task
from aiservice_operator import names
from aiservice_operator.desired.common import controlled_by, metadata
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Meta


def service(owner: Meta, tasks: list[Task]) -> client.V1Service:
    """Builds the Service of an AIService."""
    return client.V1Service(
        metadata=metadata(
            owner.name, owner.namespace, names.service_labels(owner.name), [controlled_by(Kind.AISERVICE, owner)]
        ),
        spec=client.V1ServiceSpec(
            selector=names.workload_selector(owner.name),
            ports=[
                client.V1ServicePort(
                    name=task.value, port=PORTS[task], target_port=task.value, protocol="TCP", app_protocol="http"
                )
                for task in tasks
            ],
        ),
    )


def endpoints(owner: Meta, tasks: list[Task]) -> dict[str, str]:
    """Returns the base URL inside the cluster, by task."""
    return {task.value: f"http://{owner.name}.{owner.namespace}.svc:{PORTS[task]}" for task in tasks}
