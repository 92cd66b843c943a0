"""Lets go of every ModelCache that is served, for when the operator is uninstalled.

A ModelCache in use carries a finalizer, which only an operator removes: without one, it and its namespace could never
be deleted. The Lease is held meanwhile, so an operator that has not quite stopped cannot put the finalizer back.
"""

from __future__ import annotations

import asyncio
import logging

from aiservice_operator import names
from aiservice_operator.errors import ConflictError, NotFoundError, OperatorError
from aiservice_operator.kinds import Json, Kind, ObjectId
from aiservice_operator.kube import SERVICE_ACCOUNT_TOKEN, Kube, connect
from aiservice_operator.leader import Leadership
from aiservice_operator.settings import Identity, Settings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
"""Before it is looked again whether any finalizer is left: what an operator was just writing has arrived by then."""


class StillActiveError(OperatorError):
    """An operator goes on working."""


async def run(settings: Settings, identity: Identity | None, patience: float) -> int:
    """Removes the operator's finalizer, and nothing else, from the ModelCaches that the configuration covers.

    Args:
        settings: The operator's configuration.
        identity: Who takes the Lease; None where leader election is off.
        patience: Seconds to wait for the operator to let go of the Lease.

    Returns:
        How many ModelCaches had it.

    Raises:
        StillActiveError: an operator kept the Lease.
        OperatorError: the API server refused, or did not answer.
    """
    client = await connect(in_cluster=SERVICE_ACCOUNT_TOKEN.exists())
    try:
        if identity is None:
            kube = Kube(client, lambda: True, scope=settings.watch.selector)
            return await _let_go(kube, settings.watch.namespaces)
        leadership = Leadership(client, identity, settings.leader_election)
        kube = Kube(client, leadership.held, scope=settings.watch.selector)
        return await _as_leader(leadership, kube, settings, patience)
    finally:
        await client.close()  # type: ignore[no-untyped-call] # has no types


async def _as_leader(leadership: Leadership, kube: Kube, settings: Settings, patience: float) -> int:
    given_up = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(patience, given_up.set)
    released: list[int] = []

    async def work() -> None:
        timer.cancel()
        released.append(await _let_go(kube, settings.watch.namespaces))

    try:
        await leadership.run(work, given_up)
    finally:
        timer.cancel()
    if not released:
        raise StillActiveError(
            f"an operator still held the Lease {settings.leader_election.name} after {patience:.0f} s, and would put "
            "every finalizer back: uninstall it or scale it to zero first"
        )
    return released[0]


async def _let_go(kube: Kube, namespaces: list[str]) -> int:
    released: set[str] = set()
    while held := await _held(kube, namespaces):
        for body in held:
            metadata = body["metadata"]
            identity = ObjectId(Kind.MODEL_CACHE, metadata["namespace"], metadata["name"])
            try:
                await kube.drop_finalizer(identity, body)
            except (ConflictError, NotFoundError):  # it has changed: looked at again
                continue
            log.info("released %s", identity)
            released.add(metadata["uid"])
        await asyncio.sleep(_PAUSE_SECONDS)
    return len(released)


async def _held(kube: Kube, namespaces: list[str]) -> list[Json]:
    everywhere: list[str | None] = [None]
    found: list[Json] = []
    try:
        for namespace in namespaces or everywhere:
            async for page in kube.pages(Kind.MODEL_CACHE, namespace):
                found += [body for body in page.bodies if names.FINALIZER in body["metadata"].get("finalizers", [])]
    except NotFoundError:  # the CustomResourceDefinition has gone, and every ModelCache with it
        return []
    return found
