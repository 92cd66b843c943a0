"""The store: what it believes when watches, lists and writes are out of step, and whom it tells."""

from __future__ import annotations

from typing import Any

import pytest

from aiservice_operator import names
from aiservice_operator.kinds import Json, Key, Kind, ObjectId
from aiservice_operator.store import Store
from support.operator_objects import MODEL, NAMESPACE, metadata

SERVICE = Key(Kind.AISERVICE, NAMESPACE, "whisper")
MINE = Key(Kind.MODEL_CACHE, NAMESPACE, "mine")


def ais(name: str = "whisper", version: int = 1, **spec: Any) -> Json:
    fields = {"tasks": ["speech-to-text"], "profile": "cpu", "modelCacheRef": {"name": "mine"}, **spec}
    return {"metadata": metadata(name, resourceVersion=str(version)), "spec": fields}


def mc(version: int = 1) -> Json:
    return {"metadata": metadata("mine", resourceVersion=str(version)), "spec": MODEL}


def deployment(cache: str = "mine", version: int = 1, uid: str = "uid-d", owner: str = "whisper") -> Json:
    owners = [{"kind": "AIService", "name": owner, "uid": f"uid-{owner}", "controller": True}]
    template = {"metadata": {"annotations": {names.CACHE_ANNOTATION: cache}}}
    return {
        "metadata": metadata(owner, uid=uid, resourceVersion=str(version), ownerReferences=owners),
        "spec": {"template": template},
    }


def pod(cache: str = "mine", version: int = 1, phase: str = "Running", **fields: Any) -> Json:
    labels = {**names.service_labels("whisper"), names.CACHE_LABEL: cache}
    return {
        "metadata": metadata(fields.pop("name", "whisper-x"), labels=labels, resourceVersion=str(version), **fields),
        "spec": {"containers": [{"name": "engine", "image": "i"}]},
        "status": {"phase": phase},
    }


def key(cache: str) -> Key:
    return Key(Kind.MODEL_CACHE, NAMESPACE, cache)


def test_a_service_concerns_itself_and_its_cache() -> None:
    assert Store().put(Kind.AISERVICE, ais()) == {SERVICE, MINE}


def test_an_edit_concerns_the_cache_of_before_as_well() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais())
    assert store.put(Kind.AISERVICE, ais(version=2, modelCacheRef={"name": "other"})) == {SERVICE, MINE, key("other")}
    assert store.users(MINE) == ()


def test_a_cache_concerns_its_users() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais())
    assert store.put(Kind.MODEL_CACHE, mc()) == {SERVICE, MINE}


def test_a_service_uses_a_cache_for_as_long_as_its_deployment_mounts_it() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais())
    store.put(Kind.DEPLOYMENT, deployment())
    store.put(Kind.AISERVICE, ais(version=2, modelCacheRef={"name": "other"}))
    assert [user.meta.name for user in store.users(MINE)] == ["whisper"]
    assert store.put(Kind.DEPLOYMENT, deployment("other", version=2)) == {SERVICE, MINE, key("other")}
    assert store.users(MINE) == ()
    assert [user.meta.name for user in store.users(key("other"))] == ["whisper"]


def moved() -> Store:
    """A service that was given another model: its Deployment has moved, a pod of before serves on."""
    store = Store()
    store.put(Kind.AISERVICE, ais(modelCacheRef={"name": "other"}))
    store.put(Kind.DEPLOYMENT, deployment("other"))
    assert store.put(Kind.POD, pod()) == {SERVICE, MINE}
    return store


def test_a_service_uses_a_cache_for_as_long_as_a_pod_serves_from_it() -> None:
    store = moved()
    store.put(Kind.POD, pod("other", name="whisper-y"))
    assert [user.meta.name for user in store.users(MINE)] == ["whisper"]
    assert SERVICE in store.put(Kind.MODEL_CACHE, mc()), "what becomes of the cache concerns it"
    assert store.remove(Kind.POD, pod(version=3)) == {SERVICE, MINE}
    assert store.users(MINE) == ()
    assert len(store.users(key("other"))) == 1


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_holds_no_cache(phase: str) -> None:
    """One that was evicted stays until somebody deletes it."""
    store = moved()
    assert store.put(Kind.POD, pod(version=2, phase=phase)) == {SERVICE, MINE}
    assert store.users(MINE) == ()
    assert store.remove(Kind.POD, pod(version=3, phase=phase)) == {SERVICE}


def test_a_pod_that_is_being_stopped_holds_its_cache_until_it_has_ended() -> None:
    store = moved()
    store.put(Kind.POD, pod(version=2, deletionTimestamp="2026-11-23T12:00:00Z"))
    assert len(store.users(MINE)) == 1


def test_a_pod_concerns_its_cache_only_when_it_comes_and_ends() -> None:
    """Its status changes many times, and the cache is none the wiser."""
    store = moved()
    assert store.put(Kind.POD, {**pod(version=2), "status": {"phase": "Running", "podIP": "10.0.0.1"}}) == {SERVICE}
    scaled = deployment("other", version=2)
    scaled["spec"]["replicas"] = 2
    assert store.put(Kind.DEPLOYMENT, scaled) == {SERVICE}


def test_the_pod_of_a_download_makes_nobody_a_user() -> None:
    store = moved()
    labels = {**names.cache_labels("other"), names.CACHE_LABEL: "other"}
    assert store.put(Kind.POD, {**pod(name="try"), "metadata": metadata("try", labels=labels)}) == {key("other")}
    assert [child.meta.name for child in store.children(key("other"), Kind.POD)] == ["try"], "and none that serves"
    store.remove(Kind.AISERVICE, ais(version=9))
    assert store.users(key("other")) == ()


@pytest.mark.parametrize("gone", [False, True])
def test_a_service_that_goes_uses_nothing(gone: bool) -> None:
    """Whatever is left of it is stopped, and its caches do not wait for that."""
    store = moved()
    body = ais(version=2, modelCacheRef={"name": "other"})
    body["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert store.put(Kind.AISERVICE, body) == {SERVICE, MINE, key("other")}
    if gone:
        assert store.remove(Kind.AISERVICE, ais(version=3)) == {SERVICE, MINE, key("other")}
    assert store.users(MINE) == store.users(key("other")) == ()


def test_what_is_older_is_not_believed() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais(version=5))
    assert store.put(Kind.AISERVICE, ais(version=5)) == frozenset()
    assert store.put(Kind.AISERVICE, ais(version=4, modelCacheRef={"name": "old"})) == frozenset()
    assert store.users(MINE)


def test_a_late_echo_of_a_deleted_object_does_not_bring_it_back() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=3))
    assert store.remove(Kind.DEPLOYMENT, deployment(version=5)) == {SERVICE, MINE}
    assert store.put(Kind.DEPLOYMENT, deployment(version=4)) == frozenset()
    assert len(store) == 0
    assert store.put(Kind.DEPLOYMENT, deployment(version=6, uid="another")) == {SERVICE, MINE}


def test_an_object_whose_label_was_taken_away_and_given_back_is_there_again() -> None:
    """A watch with a selector says DELETED of what no longer matches; the object lives on, and so does its uid."""
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=3))
    store.remove(Kind.DEPLOYMENT, deployment(version=5))
    assert store.put(Kind.DEPLOYMENT, deployment(version=6)) == {SERVICE, MINE}
    assert store.remove(Kind.DEPLOYMENT, deployment(version=5)) == frozenset(), "told late of what is mended already"
    assert len(store) == 1


def test_the_end_of_an_object_of_before_is_not_that_of_its_successor() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=9, uid="new"))
    assert store.remove(Kind.DEPLOYMENT, deployment(version=8, uid="old")) == frozenset()
    assert len(store) == 1


def test_a_list_tells_what_a_broken_watch_did_not() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=3))
    store.put(Kind.DEPLOYMENT, deployment(version=20, uid="uid-young", owner="young"))
    store.put(Kind.AISERVICE, ais(version=3))
    young = Key(Kind.AISERVICE, NAMESPACE, "young")
    affected = store.forget_missing(Kind.DEPLOYMENT, None, [], version=10)
    assert affected == {SERVICE, MINE}
    assert store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "young")) is not None, "made after the list"
    assert store.service(SERVICE) is not None, "another kind"
    assert store.forget_missing(Kind.DEPLOYMENT, "elsewhere", [], version=99) == frozenset()
    assert (
        store.forget_missing(Kind.DEPLOYMENT, NAMESPACE, {ObjectId(Kind.DEPLOYMENT, NAMESPACE, "young")}, 99) == set()
    )
    assert young in store.forget_missing(Kind.DEPLOYMENT, NAMESPACE, [], version=99)


def test_what_a_list_told_to_be_gone_is_not_brought_back_by_what_was_on_its_way() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=3))
    store.forget_missing(Kind.DEPLOYMENT, None, [], version=10)
    assert store.put(Kind.DEPLOYMENT, deployment(version=4)) == frozenset()
    assert store.remove(Kind.DEPLOYMENT, deployment(version=5)) == frozenset()
    assert store.put(Kind.DEPLOYMENT, deployment(version=6)) == frozenset(), "the list is still what is known"
    assert len(store) == 0
    assert store.put(Kind.DEPLOYMENT, deployment(version=11)) == {SERVICE, MINE}, "its labels came back"


def test_what_nobody_reads_concerns_nobody() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=3))
    touched = {**deployment(version=4), "kind": "Deployment"}
    touched["metadata"]["managedFields"] = [{"manager": "somebody"}]
    assert store.put(Kind.DEPLOYMENT, touched) == frozenset()
    live = store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "whisper"))
    assert live is not None
    assert live.meta.version == 4
    assert store.put(Kind.DEPLOYMENT, deployment(version=3)) == frozenset(), "older than what was noted"


def test_who_uses_a_cache_does_not_concern_its_users() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais())
    store.put(Kind.MODEL_CACHE, mc())
    owned = mc(version=2)
    owned["metadata"]["ownerReferences"] = [{"kind": "AIService", "name": "whisper", "uid": "uid-whisper"}]
    owned["status"] = {"usedBy": ["whisper"]}
    assert store.put(Kind.MODEL_CACHE, owned) == {MINE}
    assert store.put(Kind.MODEL_CACHE, {**mc(version=3), "status": {"revision": "c0ffee"}}) == {SERVICE, MINE}


def test_more_objects_than_are_kept_unpacked() -> None:
    store = Store()
    for number in range(600):
        store.put(Kind.DEPLOYMENT, deployment(uid=f"uid-{number}", owner=f"s{number}", version=number + 1))
    for number in (0, 599):
        live = store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, f"s{number}"))
        assert live is not None
        assert (live.meta.uid, live.meta.version) == (f"uid-{number}", number + 1)
        assert live.body["metadata"]["resourceVersion"] == str(number + 1)


def test_everything_with_a_key_is_known_at_the_start() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais())
    store.put(Kind.DEPLOYMENT, deployment(owner="orphaned"))
    assert set(store.keys()) == {SERVICE, MINE, Key(Kind.AISERVICE, NAMESPACE, "orphaned")}


def test_children_of_one_second_come_in_the_order_of_their_names() -> None:
    """However they arrived: a restart, which lists them, must not come to another status."""
    for order in (("b", "a", "old"), ("old", "a", "b")):
        store = Store()
        for name in order:
            created = "2026-01-01T00:00:00Z" if name == "old" else "2026-01-01T00:00:05Z"
            store.put(Kind.POD, pod(name=name, uid=f"uid-{name}", creationTimestamp=created))
        assert [child.meta.name for child in store.children(SERVICE, Kind.POD)] == ["old", "a", "b"]


def test_pods_belong_by_their_labels() -> None:
    store = Store()
    pod = {
        "metadata": metadata("whisper-x", labels=names.service_labels("whisper"), managedFields=[{"manager": "x"}]),
        "spec": {"containers": [{"name": "engine", "image": "i", "env": [{"name": "A"}]}]},
    }
    assert store.put(Kind.POD, pod) == {SERVICE}
    (kept,) = store.children(SERVICE, Kind.POD)
    assert kept.body["spec"] == {"nodeName": "", "containers": [{"name": "engine", "image": "i"}]}
    assert "managedFields" not in kept.body["metadata"]
    stranger = {**pod, "metadata": metadata("stranger")}
    assert store.put(Kind.POD, stranger) == frozenset()


def test_a_default_concerns_the_younger_defaults() -> None:
    store = Store()
    younger = Key(Kind.AISERVICE, NAMESPACE, "younger")
    store.put(Kind.AISERVICE, ais("older", gateway={"default": True}))
    assert store.put(Kind.AISERVICE, ais("younger", gateway={"default": True})) == {younger, MINE}, "the older wins"
    assert store.put(Kind.AISERVICE, ais("bystander")) == {Key(Kind.AISERVICE, NAMESPACE, "bystander"), MINE}
    assert younger in store.put(Kind.AISERVICE, ais("older", version=2))
    assert [service.meta.name for service in store.defaults()] == ["younger"]


def test_a_default_concerns_no_other_unless_what_makes_it_one_changes() -> None:
    """With a thousand of them, each status would otherwise wake a thousand."""
    store = Store()
    first, second, elsewhere = (Key(Kind.AISERVICE, NAMESPACE, name) for name in ("a", "b", "c"))
    by_default: Json = {"gateway": {"default": True}}
    for name, tasks in (("a", "speech-to-text"), ("b", "speech-to-text"), ("c", "text-to-speech")):
        store.put(Kind.AISERVICE, ais(name, tasks=[tasks], **by_default))
    assert store.put(Kind.AISERVICE, {**ais("a", 2, **by_default), "status": {"url": "x"}}) == {first, MINE}
    assert store.put(Kind.AISERVICE, ais("a", 3, engine={"args": ["--new"]}, **by_default)) == {first, MINE}
    assert store.put(Kind.AISERVICE, ais("a", 4, tasks=["text-to-speech"], **by_default)) == {
        first,
        second,
        elsewhere,
        MINE,
    }, "of before and of now"
    going = ais("a", 5, tasks=["text-to-speech"], **by_default)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert store.put(Kind.AISERVICE, going) == {first, elsewhere, MINE}
    assert store.remove(Kind.AISERVICE, {**going, "metadata": {**going["metadata"], "resourceVersion": "6"}}) == {
        first,
        MINE,
    }, "it has made room already"
    assert elsewhere not in store.put(Kind.AISERVICE, ais("d", tasks=["text-to-speech"], **by_default))
    again = ais("a", 7, tasks=["text-to-speech"], **by_default)
    again["metadata"]["uid"] = "another"
    assert store.put(Kind.AISERVICE, again) == {first, elsewhere, Key(Kind.AISERVICE, NAMESPACE, "d"), MINE}


def test_a_list_of_a_restored_etcd_is_the_truth() -> None:
    store = Store()
    store.put(Kind.DEPLOYMENT, deployment(version=50, cache="later"))
    store.put(Kind.DEPLOYMENT, deployment(version=60, owner="made-later", uid="uid-later"))
    store.put(Kind.DEPLOYMENT, deployment(version=10, owner="deleted", uid="uid-deleted"))
    store.remove(Kind.DEPLOYMENT, deployment(version=70, owner="deleted", uid="uid-deleted"))
    store.put(Kind.AISERVICE, ais(version=55))
    assert (store.newest(Kind.DEPLOYMENT, None), store.newest(Kind.DEPLOYMENT, "elsewhere")) == (60, 0)
    listed = [deployment(version=20), deployment(version=10, owner="deleted", uid="uid-deleted")]
    affected = store.replace(Kind.DEPLOYMENT, NAMESPACE, listed)
    names_of = {key.name for key in affected}
    assert names_of == {"whisper", "mine", "later", "made-later", "deleted"}
    live = store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "whisper"))
    assert live is not None
    assert live.meta.version == 20
    assert store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "made-later")) is None
    assert store.child(ObjectId(Kind.DEPLOYMENT, NAMESPACE, "deleted")) is not None
    assert store.newest(Kind.AISERVICE, None) == 55, "another kind"
    assert store.put(Kind.DEPLOYMENT, deployment(version=21, cache="newer")), "and what follows is believed"


def test_what_this_version_cannot_read_is_kept_with_the_reason() -> None:
    store = Store()
    store.put(Kind.AISERVICE, ais(tasks=["telepathy"]))
    service = store.service(SERVICE)
    assert service is not None
    assert service.spec is None
    assert "spec.tasks.0" in service.invalid


def test_which_claims_hold_a_cache() -> None:
    store = Store()
    store.put(Kind.MODEL_CACHE, mc())
    provided = {"metadata": metadata("provided"), "spec": {"pvc": {"claimName": "disk"}}}
    store.put(Kind.MODEL_CACHE, provided)
    assert store.cache_claims(NAMESPACE, ["mine", "provided", "other"]) == {"mine"}
    assert store.cache_claims("elsewhere", ["mine"]) == frozenset()
