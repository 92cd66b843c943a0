"""The operator's own picture of the cluster: what watches, lists and its own writes have told it.

One store, filled from three sides that are not in step: so an older version of an object never replaces a newer one,
and a deleted object never comes back. Every change answers with the keys to reconcile.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator

from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.observed import Cache, Child, Observed, Service, links, parse

_REMEMBERED_DELETIONS = 20_000
"""How many uids of deleted objects are kept to tell a late echo of one from a new object."""


class Store:
    """Observed objects by id, and by the key that they belong to."""

    def __init__(self) -> None:
        self._objects: dict[ObjectId, Observed] = {}
        self._linked: defaultdict[Key, set[ObjectId]] = defaultdict(set)
        self._defaults: set[ObjectId] = set()
        self._gone: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, kind: Kind, body: Json) -> frozenset[Key]:
        """Notes an object as the API server sent it.

        Returns:
            What to reconcile; nothing where the store knew as much or more.
        """
        metadata = body["metadata"]
        identity = ObjectId(kind, metadata.get("namespace", ""), metadata["name"])
        known = self._objects.get(identity)
        version = int(metadata["resourceVersion"])
        if version <= self._gone.get(metadata["uid"], -1) or (known is not None and version <= known.meta.version):
            return frozenset()
        observed = parse(kind, body)
        affected = links(observed) | self._reverse(observed) | self._rivals(observed)
        if known is not None:
            affected |= self._unlink(known)
        self._objects[identity] = observed
        for key in links(observed):
            self._linked[key].add(identity)
        if isinstance(observed, Service) and observed.spec is not None and observed.spec.gateway.default:
            self._defaults.add(identity)
        return affected | self._rivals(observed)

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
        self._gone[uid] = version
        while len(self._gone) > _REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)
        known = self._objects.get(identity)
        if known is None or known.meta.uid != uid or known.meta.version > version:
            return frozenset()
        return self._drop(identity, known)

    def replace(self, kind: Kind, namespace: str | None, bodies: Iterable[Json], version: int) -> frozenset[Key]:
        """Compares with a complete list, which tells what a broken watch did not.

        Args:
            kind: What was listed.
            namespace: Where; None: in all namespaces.
            bodies: The objects of the list.
            version: The list's own resourceVersion: what is newer than it is not missing, only younger.

        Returns:
            What to reconcile.
        """
        affected: frozenset[Key] = frozenset()
        listed: set[ObjectId] = set()
        for body in bodies:
            metadata = body["metadata"]
            listed.add(ObjectId(kind, metadata.get("namespace", ""), metadata["name"]))
            affected |= self.put(kind, body)
        for identity in [known for known in self._objects if known.kind is kind and known not in listed]:
            observed = self._objects[identity]
            if namespace in (None, identity.namespace) and observed.meta.version <= version:
                affected |= self._drop(identity, observed)
        return affected

    def _drop(self, identity: ObjectId, known: Observed) -> frozenset[Key]:
        affected = self._unlink(known) | self._reverse(known) | self._rivals(known)
        del self._objects[identity]
        return affected

    def _unlink(self, known: Observed) -> frozenset[Key]:
        keys = links(known)
        identity = known.id
        for key in keys:
            self._linked[key].discard(identity)
            if not self._linked[key]:
                del self._linked[key]
        self._defaults.discard(identity)
        return keys

    def _reverse(self, observed: Observed) -> frozenset[Key]:
        """A change of a cache concerns the services that use it."""
        if not isinstance(observed, Cache):
            return frozenset()
        return frozenset(key for identity in self._linked.get(observed.id, ()) for key in self._service_key(identity))

    def _service_key(self, identity: ObjectId) -> Iterator[Key]:
        if identity.kind is Kind.AISERVICE:
            yield identity
        elif identity.kind is Kind.DEPLOYMENT:
            yield from (key for key in links(self._objects[identity]) if key.kind is Kind.AISERVICE)

    def _rivals(self, observed: Observed) -> frozenset[Key]:
        """A default for a task concerns the other defaults."""
        if not isinstance(observed, Service) or not (self._defaults):
            return frozenset()
        was_default = observed.id in self._defaults
        is_default = observed.spec is not None and observed.spec.gateway.default
        return frozenset(self._defaults) if was_default or is_default else frozenset()

    def keys(self) -> list[Key]:
        """Returns everything that can be reconciled."""
        known = {identity for identity in self._objects if identity.kind in (Kind.AISERVICE, Kind.MODEL_CACHE)}
        return list(known | set(self._linked))

    def service(self, key: Key) -> Service | None:
        """Returns an AIService."""
        observed = self._objects.get(key)
        return observed if isinstance(observed, Service) else None

    def cache(self, key: Key) -> Cache | None:
        """Returns a ModelCache."""
        observed = self._objects.get(key)
        return observed if isinstance(observed, Cache) else None

    def get(self, identity: ObjectId) -> Observed | None:
        """Returns an object of any kind."""
        return self._objects.get(identity)

    def child(self, identity: ObjectId) -> Child | None:
        """Returns one child."""
        observed = self._objects.get(identity)
        return observed if isinstance(observed, Child) else None

    def children(self, key: Key, kind: Kind) -> tuple[Child, ...]:
        """Returns what belongs to a key, oldest first."""
        found = (self._objects[identity] for identity in self._linked.get(key, ()) if identity.kind is kind)
        return tuple(sorted((item for item in found if isinstance(item, Child)), key=lambda item: item.meta.created))

    def users(self, cache: Key) -> tuple[Service, ...]:
        """Returns the AIServices that use a cache, by name.

        One that was given another model still uses the old one until its Deployment has moved.
        """
        found: dict[Key, Service] = {}
        for identity in self._linked.get(cache, ()):
            for key in self._service_key(identity):
                service = self.service(key)
                if service is not None and not service.meta.deleting:
                    found[key] = service
        return tuple(found[key] for key in sorted(found))

    def defaults(self) -> tuple[Service, ...]:
        """Returns the AIServices that want to be the default of their tasks."""
        services = (self.service(identity) for identity in self._defaults)
        return tuple(service for service in services if service is not None and not service.meta.deleting)
