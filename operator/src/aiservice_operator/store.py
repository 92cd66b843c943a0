"""The operator's own picture of the cluster: what watches, lists and its own writes have told it.

One store, filled from three sides that are not in step: so an older version of an object never replaces a newer one,
and a deleted object never comes back. Every change answers with the keys to reconcile.

Objects are kept packed, as bytes: JSON as Python objects takes several times the memory, and the garbage collector's
time. What was looked at last is also kept unpacked.
"""

from __future__ import annotations

import logging
import marshal
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from aiservice_api.tasks import Task
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.observed import Cache, Child, Observed, Seniority, Service, lean, links, parse
from aiservice_operator.states import used_cache

log = logging.getLogger(__name__)

_REMEMBERED_DELETIONS = 20_000
"""How many uids of deleted objects are kept to tell a late echo of one from a new object."""
_FORMAT = 2
"""Of marshal. Later ones mark what is referred to more than once, and so give equal objects different bytes."""
_UNPACKED = 512
"""How many objects are kept unpacked, too: those of the reconciles under way."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store holds of one object."""

    uid: str
    version: int
    generation: int
    links: tuple[Key, ...]
    uses: Key | None
    """The ModelCache that is in use because of it, by the AIService that it is or belongs to."""
    packed: bytes
    """All but its version, so that equal bytes mean that nothing changed; empty for an AIService."""
    service: Service | None
    """An AIService is kept parsed, since its ModelCache looks at all of its users."""


class Store:
    """Observed objects by id, and by the key that they belong to."""

    def __init__(self) -> None:
        self._objects: dict[ObjectId, _Kept] = {}
        self._unpacked: OrderedDict[ObjectId, Observed] = OrderedDict()
        self._linked: defaultdict[Key, set[ObjectId]] = defaultdict(set)
        self._using: defaultdict[Key, set[ObjectId]] = defaultdict(set)
        """By ModelCache: because of what it is in use."""
        self._defaults: set[ObjectId] = set()
        self._gone: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, kind: Kind, body: Json) -> frozenset[Key]:
        """Notes an object as the API server sent it.

        Returns:
            What to reconcile; nothing where the store knew as much or more, or nothing that is read has changed.
        """
        metadata = body["metadata"]
        identity = ObjectId(kind, metadata.get("namespace", ""), metadata["name"])
        known = self._objects.get(identity)
        version = int(metadata["resourceVersion"])
        if version <= self._gone.get(metadata["uid"], -1) or (known is not None and version <= known.version):
            return frozenset()
        try:
            body = lean(kind, body)
            observed = parse(kind, body)
        except Exception:  # one object that no version of the operator foresaw must not hide the others
            log.exception("%s cannot be read, and is left out", identity)
            return frozenset()
        before = self.get(identity) if kind is Kind.MODEL_CACHE else None
        service = observed if isinstance(observed, Service) else None
        packed = _pack(body) if service is None else b""
        found, uses = tuple(links(observed)), used_cache(observed)
        kept = _Kept(metadata["uid"], version, observed.meta.generation, found, uses, packed, service)
        self._objects[identity] = kept
        self._remember(identity, observed)
        if known is not None and service is None and known.packed == packed:
            return frozenset()
        affected = frozenset(found) | _caches_concerned(known, kept)
        if isinstance(observed, Cache) and not (isinstance(before, Cache) and before.same_for_users(observed)):
            affected |= self._users(identity)
        if known is not None:
            affected |= self._unlink(identity, known)
        self._link(identity, kept)
        affected |= self._used_by(identity)
        if service is not None and _wants_default(service):
            self._defaults.add(identity)
        return affected | self._rivals(known.service if known is not None else None, service)

    def remove(self, kind: Kind, body: Json) -> frozenset[Key]:
        """Notes that an object is gone, or that its labels no longer say that it is the operator's.

        In the second case it comes back, newer, when its labels do.

        Args:
            kind: Its kind.
            body: The object as it was last, with the version of its end.

        Returns:
            What to reconcile.
        """
        metadata = body["metadata"]
        identity = ObjectId(kind, metadata.get("namespace", ""), metadata["name"])
        return self.forget(identity, metadata["uid"], int(metadata["resourceVersion"]))

    def forget(self, identity: ObjectId, uid: str, version: int) -> frozenset[Key]:
        """Notes that this very object is gone, as of a version.

        Returns:
            What to reconcile.
        """
        self._remember_end(uid, version)
        known = self._objects.get(identity)
        if known is None or known.uid != uid or known.version > version:
            return frozenset()
        return self._drop(identity, known)

    def forget_missing(
        self, kind: Kind, namespace: str | None, listed: Collection[ObjectId], version: int
    ) -> frozenset[Key]:
        """Forgets what a complete list does not hold, which a broken watch did not tell.

        What a watch told before it broke may still be on its way: it does not bring back what is forgotten here.

        Args:
            kind: What was listed.
            namespace: Where; None: in all namespaces.
            listed: What the list held.
            version: The list's own resourceVersion: what is newer than it is not missing, only younger.

        Returns:
            What to reconcile.
        """
        affected: frozenset[Key] = frozenset()
        for identity, known in list(self._of(kind, namespace)):
            if identity not in listed and known.version <= version:
                self._remember_end(known.uid, version)
                affected |= self._drop(identity, known)
        return affected

    def _remember_end(self, uid: str, version: int) -> None:
        self._gone[uid] = max(version, self._gone.get(uid, version))
        while len(self._gone) > _REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)

    def newest(self, kind: Kind, namespace: str | None) -> int:
        """Returns the highest version that is held of a kind, in one namespace or in all; 0 where none is."""
        return max((known.version for _, known in self._of(kind, namespace)), default=0)

    def _of(self, kind: Kind, namespace: str | None) -> Iterator[tuple[ObjectId, _Kept]]:
        for identity, known in self._objects.items():
            if identity.kind is kind and namespace in (None, identity.namespace):
                yield identity, known

    def replace(self, kind: Kind, namespace: str | None, bodies: Iterable[Json]) -> frozenset[Key]:
        """Takes a complete list as the truth whatever its versions: they went back, as after a restore of etcd.

        What is remembered of deletions is about versions that are no more, so it goes too.

        Returns:
            What to reconcile.
        """
        self._gone.clear()
        affected: frozenset[Key] = frozenset()
        for identity, known in list(self._of(kind, namespace)):
            affected |= self._drop(identity, known)
        for body in bodies:
            affected |= self.put(kind, body)
        return affected

    def _drop(self, identity: ObjectId, known: _Kept) -> frozenset[Key]:
        affected = self._used_by(identity) | _caches_concerned(known, None)
        affected |= self._unlink(identity, known) | self._rivals(known.service, None)
        if identity.kind is Kind.MODEL_CACHE:
            affected |= self._users(identity)
        del self._objects[identity]
        self._unpacked.pop(identity, None)
        return affected

    def _link(self, identity: ObjectId, kept: _Kept) -> None:
        for key in kept.links:
            self._linked[key].add(identity)
        if kept.uses is not None:
            self._using[kept.uses].add(identity)

    def _unlink(self, identity: ObjectId, known: _Kept) -> frozenset[Key]:
        for key in known.links:
            _discard(self._linked, key, identity)
        if known.uses is not None:
            _discard(self._using, known.uses, identity)
        self._defaults.discard(identity)
        return frozenset(known.links)

    def _users(self, cache: Key) -> frozenset[Key]:
        """The services that use a cache, which a change of it concerns."""
        using = (self._objects[identity].links for identity in self._using.get(cache, ()))
        return frozenset(key for found in using for key in found if key.kind is Kind.AISERVICE)

    def _used_by(self, service: Key) -> frozenset[Key]:
        """The caches that a service uses, be it by its pods only: all that it says may concern them."""
        if service.kind is not Kind.AISERVICE:
            return frozenset()
        used = (self._objects[identity].uses for identity in self._linked.get(service, ()))
        return frozenset(cache for cache in used if cache is not None)

    def _rivals(self, before: Service | None, after: Service | None) -> frozenset[Key]:
        """A default that comes, goes or changes concerns the younger ones for its tasks: of two the older wins."""
        was, now = _claim(before), _claim(after)
        if was == now:
            return frozenset()
        tasks = frozenset(task for claim in (was, now) if claim is not None for task in claim.tasks)
        oldest = min(claim.seniority for claim in (was, now) if claim is not None)
        others = ((identity, _claim(self.service(identity))) for identity in self._defaults)
        return frozenset(
            identity
            for identity, other in others
            if other is not None and other.seniority > oldest and not tasks.isdisjoint(other.tasks)
        )

    def keys(self) -> list[Key]:
        """Returns everything that can be reconciled."""
        known = {identity for identity in self._objects if identity.kind in (Kind.AISERVICE, Kind.MODEL_CACHE)}
        return list(known | set(self._linked) | set(self._using))

    def service(self, key: Key) -> Service | None:
        """Returns an AIService."""
        known = self._objects.get(key)
        return known.service if known is not None else None

    def cache(self, key: Key) -> Cache | None:
        """Returns a ModelCache."""
        observed = self.get(key)
        return observed if isinstance(observed, Cache) else None

    def cache_claims(self, namespace: str, claims: Iterable[str]) -> frozenset[str]:
        """Returns those of some claims that are ModelCaches' own."""
        found = {name: self.cache(Key(Kind.MODEL_CACHE, namespace, name)) for name in claims}
        return frozenset(name for name, cache in found.items() if cache is not None and cache.has_own_claim)

    def child(self, identity: ObjectId) -> Child | None:
        """Returns one child."""
        observed = self.get(identity)
        return observed if isinstance(observed, Child) else None

    def generation(self, identity: ObjectId) -> int | None:
        """Returns the generation of an object, or None where it is not known."""
        known = self._objects.get(identity)
        return known.generation if known is not None else None

    def get(self, identity: ObjectId) -> Observed | None:
        """Returns an object of any kind."""
        known = self._objects.get(identity)
        if known is None or known.service is not None:
            return known.service if known is not None else None
        observed = self._unpacked.get(identity)
        if observed is None:
            observed = parse(identity.kind, _unpack(known))
        self._remember(identity, observed)
        return observed

    def _remember(self, identity: ObjectId, observed: Observed) -> None:
        if isinstance(observed, Service):
            return
        self._unpacked[identity] = observed
        self._unpacked.move_to_end(identity)
        if len(self._unpacked) > _UNPACKED:
            self._unpacked.popitem(last=False)

    def children(self, key: Key, kind: Kind) -> tuple[Child, ...]:
        """Returns what belongs to a key, oldest first; times are whole seconds, and within one the names decide."""
        found = (self.child(identity) for identity in self._linked.get(key, ()) if identity.kind is kind)
        return tuple(
            sorted((item for item in found if item is not None), key=lambda item: (item.meta.created, item.meta.name))
        )

    def users(self, cache: Key) -> tuple[Service, ...]:
        """Returns the AIServices that use a cache, by name.

        One that was given another model still uses the old one until its Deployment has moved, and its last pod that
        serves the old one has ended. One that is being deleted uses nothing.
        """
        found = (self.service(key) for key in sorted(self._users(cache)))
        return tuple(service for service in found if service is not None and not service.meta.deleting)

    def defaults(self) -> tuple[Service, ...]:
        """Returns the AIServices that want to be the default of their tasks."""
        services = (self.service(identity) for identity in self._defaults)
        return tuple(service for service in services if service is not None and not service.meta.deleting)


def _caches_concerned(before: _Kept | None, after: _Kept | None) -> frozenset[Key]:
    """The caches whose users change with an object."""
    was, now = ((kept.uses, kept.links) if kept is not None else (None, ()) for kept in (before, after))
    return frozenset(cache for cache, _ in (was, now) if cache is not None) if was != now else frozenset()


def _discard(index: defaultdict[Key, set[ObjectId]], key: Key, identity: ObjectId) -> None:
    index[key].discard(identity)
    if not index[key]:
        del index[key]


class _Claim(NamedTuple):
    """That a service wants to be the default of its tasks."""

    uid: str
    seniority: Seniority
    tasks: frozenset[Task]
    weighs: bool


def _claim(service: Service | None) -> _Claim | None:
    """Returns all that other defaults depend on; None where the service is none."""
    if service is None or service.spec is None or service.meta.deleting or not service.spec.gateway.default:
        return None
    weighs = service.spec.gateway.weight is not None
    return _Claim(service.meta.uid, service.seniority, frozenset(service.spec.tasks), weighs)


def _wants_default(service: Service) -> bool:
    return service.spec is not None and service.spec.gateway.default


def _pack(body: Json) -> bytes:
    metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    return marshal.dumps({**body, "metadata": metadata}, _FORMAT)


def _unpack(known: _Kept) -> Json:
    body: Json = marshal.loads(known.packed)  # noqa: S302 - bytes of this very process
    body["metadata"]["resourceVersion"] = str(known.version)
    return body
