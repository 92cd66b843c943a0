"""`kubectl ais logs`: what the engine, or the download, printed."""

from __future__ import annotations

from collections.abc import Sequence

from aiservice_kubectl.errors import NotFoundError
from aiservice_kubectl.kubectl import INTERRUPTED
from aiservice_kubectl.lookup import find_service
from aiservice_kubectl.request import Request
from aiservice_operator import names
from aiservice_operator.kinds import Kind
from aiservice_operator.observed import Child, Service
from aiservice_operator.states import pod_container

_FOLLOWED = 50
"""Pods that are followed at once at the most; kubectl's own bound is 5."""


def run(request: Request) -> int:
    """Prints the logs, by way of kubectl, so that they stream and end as kubectl's do."""
    options = request.options
    service = find_service(request.cluster, request.namespace, options.name)
    app, instance, container = _what(service, download=options.download)
    selector = f"{names.NAME_LABEL}={app},{names.INSTANCE_LABEL}={instance}"
    pods = request.cluster.children(Kind.POD, service.meta.namespace, selector)
    if not pods:
        raise NotFoundError(_nothing(service, download=options.download))
    common = ["logs", f"--namespace={service.meta.namespace}", f"--container={container}", "--prefix"]
    common += [f"--tail={options.tail}"]
    if options.follow:
        # With one pod alone its failure is the whole answer.
        tolerant = ["--ignore-errors"] if len(pods) > 1 else []
        follow = ["--follow", f"--max-log-requests={_FOLLOWED}", *tolerant, f"--selector={selector}"]
        return request.cluster.kubectl.pass_through([*common, *follow])
    if options.previous:
        return _each(request, _restarted(service, pods), [*common, "--previous"])
    return _each(request, pods, common)


def _each(request: Request, pods: Sequence[Child], command: Sequence[str]) -> int:
    """Pod after pod: with a selector kubectl stops at the first that has no logs, or says nothing by its exit code."""
    worst = 0
    for pod in pods:
        code = request.cluster.kubectl.pass_through([*command, pod.meta.name])
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    return worst


def _restarted(service: Service, pods: Sequence[Child]) -> list[Child]:
    """The pods whose container was started a second time."""
    restarted = [pod for pod in pods if pod_container(pod).get("restartCount", 0) > 0]
    if not restarted:
        raise NotFoundError(
            f"no container of {service.meta.name} has been started a second time, so there is nothing before the "
            f"present logs: leave out --previous"
        )
    return restarted


def _what(service: Service, *, download: bool) -> tuple[str, str, str]:
    """The labels of the pods that are meant, and which of their containers."""
    if not download:
        return names.SERVICE_APP, service.meta.name, names.ENGINE_CONTAINER
    if service.cache_name is None:
        raise NotFoundError(f"{service.meta.name} names no model that could be downloaded: correct its spec")
    return names.CACHE_APP, service.cache_name, names.DOWNLOAD_CONTAINER


def _nothing(service: Service, *, download: bool) -> str:
    name = service.meta.name
    if download:
        return (
            f"no pod downloads {service.cache_name} now, and those that did are gone: "
            f"`kubectl ais cache ls -n {service.meta.namespace}` shows whether it is cached, "
            f"`kubectl ais why {name} -n {service.meta.namespace}` why not"
        )
    return (
        f"{name} has no pod, so there are no logs: `kubectl ais why {name} -n {service.meta.namespace}` says why, "
        f"and --download shows those of the download of its model"
    )
