"""Carries out plans. No decisions but one: never to take over what somebody else made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiservice_operator import names
from aiservice_operator.compare import differs, ousted
from aiservice_operator.errors import (
    ConflictError,
    KubeError,
    NotFoundError,
    RefusedError,
    ThrottledError,
    UnreachableError,
)
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.kube import Kube
from aiservice_operator.observed import Meta, parse_meta
from aiservice_operator.plan.actions import Action, Apply, Delete, Refusal, Scale, belongs
from aiservice_operator.store import Store

log = logging.getLogger(__name__)

_DISOWN_TRIES = 5
_BLIP_SECONDS = 3.0
"""So long, and once at least, a failure may pass by itself before anybody is told."""


@dataclass(frozen=True, slots=True)
class Executed:
    """How the actions of a plan went."""

    changed: bool
    refusals: tuple[Refusal, ...]


class Executor:
    """Writes to the API server, and the answers into the store.

    Args:
        store: Learns what every write answered.
        kube: The API server.
        notify: Takes the keys that a write concerns.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        kube: Kube,
        notify: Callable[[frozenset[Key]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._kube = kube
        self._notify = notify
        self._clock = clock
        self._contested: dict[ObjectId, tuple[str, int]] = {}
        self._failing: dict[Key, dict[ObjectId, float]] = {}
        """Since when what is written for a key has failed at each try."""

    def forget(self, key: Key) -> None:
        """Notes that a key went well, or is no more: its next failure is a first one."""
        self._failing.pop(key, None)

    async def run(self, key: Key, actions: Sequence[Action]) -> Executed:
        """Carries out the actions of one plan, side by side.

        Args:
            key: Whose plan it is; it goes on planning itself and is not notified.
            actions: What to do.

        Raises:
            KubeError: one failed in a way that another try may mend, and has not failed for long.
        """
        results = await asyncio.gather(*(self._one(key, action) for action in actions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        done = [result for result in results if not isinstance(result, BaseException)]
        return Executed(
            changed=any(result is True for result in done),
            refusals=tuple(result for result in done if isinstance(result, Refusal)),
        )

    async def _one(self, key: Key, action: Action) -> bool | Refusal:
        """Returns whether something changed, or why it was refused."""
        began = self._clock()
        try:
            keys = await self._carry_out(action)
            self._failing.get(key, {}).pop(action.identity, None)
        except RefusedError as error:
            log.warning("%s: %s is refused: %s", key, action.identity, error.message)
            return Refusal(action.identity, error.message)
        except NotFoundError as error:
            if action.identity.kind is not Kind.POD_MONITOR:
                return self._failed(key, action.identity, error, began)
            # Its API was there when the process looked, and is no more. Nothing else depends on it.
            log.info("%s: %s is not written: %s", key, action.identity, error.message)
            return False
        except (UnreachableError, ThrottledError):
            raise  # about the API server, not about this object
        except KubeError as error:
            return self._failed(key, action.identity, error, began)
        if keys is None:
            return False
        self._notify(keys - {key})
        return True

    def _failed(self, key: Key, identity: ObjectId, error: KubeError, began: float) -> Refusal:
        """What fails for long is told like a refusal: it must not hide what there is to say of everything else.

        Raises:
            KubeError: the error, where it may pass in a moment.
        """
        since = self._failing.setdefault(key, {}).setdefault(identity, began)
        if since == began or self._clock() - since < _BLIP_SECONDS:
            raise error
        log.warning("%s: %s still fails: %s", key, identity, error.message)
        return Refusal(identity, error.message)

    async def _carry_out(self, action: Action) -> frozenset[Key] | None:
        if isinstance(action, Delete):
            return await self._delete(action)
        return await (self._scale(action) if isinstance(action, Scale) else self._apply(action))

    async def _scale(self, action: Scale) -> frozenset[Key]:
        live = await self._kube.hand_over(action.identity, action.uid, action.replicas)
        log.info("scaled %s: %s", action.identity, action.reason)
        return self._store.put(action.identity.kind, live)

    async def _delete(self, action: Delete) -> frozenset[Key]:
        remaining = await self._kube.delete(action.identity, action.uid, action.version)
        log.info("deleted %s: %s", action.identity, action.reason)
        if remaining is None:
            known = self._store.get(action.identity)
            return self._store.forget(action.identity, action.uid, known.meta.version) if known else frozenset()
        return self._store.put(action.identity.kind, remaining)

    async def _apply(self, action: Apply) -> frozenset[Key] | None:
        digest = _digest(action.body)
        known = self._store.get(action.identity)
        if known is not None and self._contested.get(action.identity) == (digest, _marker(known.meta)):
            return None
        if action.owner is not None:
            await self._make_sure(action.identity, action.owner)
        elif known is None and self._kube.scope:
            await self._make_sure_unseen(action.identity)
        if action.hand_over is not None:
            await self._kube.hand_over(action.identity, action.hand_over.uid, action.hand_over.replicas)
        try:
            live = await self._kube.apply(action.identity, action.body)
        except RefusedError:
            if action.identity.kind is Kind.MODEL_CACHE or not await self._oust(action):
                raise
            live = await self._disown_rest(action.identity, await self._kube.apply(action.identity, action.body))
        log.info("applied %s: %s", action.identity, action.reason)
        released = action.body["metadata"].get("finalizers") == []
        if released and names.FINALIZER in live["metadata"].get("finalizers", []):
            # Restored from a backup or applied from a file, it is another manager's too, and apply leaves it.
            live = await self._kube.drop_finalizer(action.identity, live)
        self._note_contest(action, digest, live)
        return self._store.put(action.identity.kind, live)

    async def _oust(self, action: Apply) -> bool:
        """Takes away what someone put in the place of our list items, which apply alone cannot; false: nothing is."""
        existing = await self._kube.get(action.identity)
        mended = ousted(action.body, existing) if existing is not None else None
        if mended is None:
            return False
        await self._kube.overwrite(action.identity, mended)
        return True

    async def _disown_rest(self, identity: ObjectId, live: Json) -> Json:
        """After an overwrite; others write the object's status meanwhile, which is no reason to leave it half done."""
        for _ in range(_DISOWN_TRIES):
            try:
                return await self._kube.disown_rest(identity, live)
            except ConflictError:
                live = await self._kube.get(identity) or live
        return await self._kube.disown_rest(identity, live)

    async def _make_sure(self, identity: ObjectId, owner: Meta) -> None:
        """Looks before the first apply: it would merge into whatever has this name.

        Raises:
            ConflictError: what has it is about to go.
            RefusedError: it is somebody else's.
        """
        existing = await self._kube.get(identity)
        if existing is None:
            return
        meta = parse_meta(existing["metadata"])
        if belongs(meta, owner) and not meta.deleting:
            return
        controller = meta.controller
        left_over = controller is not None and controller.kind in (Kind.AISERVICE, Kind.MODEL_CACHE)
        if meta.deleting or left_over:
            raise ConflictError(f"the {identity.kind} {identity.name} of before is still being deleted")
        raise RefusedError(
            f"there is a {identity.kind} {identity.name} that the operator did not make: delete or rename it, or give "
            f"{owner.name} another name"
        )

    async def _make_sure_unseen(self, identity: ObjectId) -> None:
        """Looks before a ModelCache is made: outside of the labels that are watched there may be one.

        Raises:
            ConflictError: it is about to go.
            RefusedError: it is another operator's.
        """
        existing = await self._kube.get(identity)
        if existing is None:
            return
        if "deletionTimestamp" in existing["metadata"]:
            raise ConflictError(f"the {identity.kind} {identity.name} of before is still being deleted")
        raise RefusedError(
            f"there is a {identity.kind} {identity.name} for the same model, but without the labels {self._kube.scope} "
            "that this operator serves: it is another operator's. Give the AIService that operator's labels, or refer "
            "to a ModelCache of its own with spec.modelCacheRef"
        )

    def _note_contest(self, action: Apply, digest: str, live: Json) -> None:
        """Someone who changes our fields as we write them would otherwise be answered for ever."""
        where = differs(action.body, live)
        if where is None:
            self._contested.pop(action.identity, None)
            return
        known = {identity: seen for identity, seen in self._contested.items() if self._store.get(identity) is not None}
        self._contested = {**known, action.identity: (digest, _marker(parse_meta(live["metadata"])))}
        log.warning(
            "%s: %s was changed as it was applied, by a webhook or another controller: left so until one side changes",
            action.identity,
            where,
        )


def _digest(body: Json) -> str:
    return str(body["metadata"].get("annotations", {}).get(names.APPLIED_ANNOTATION, ""))


def _marker(meta: Meta) -> int:
    """A number that changes with the spec: the generation, and for kinds without one any change at all."""
    return meta.generation or meta.version
