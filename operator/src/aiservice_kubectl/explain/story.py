"""Why an AIService is not ready, or what it runs on: pure, from evidence to sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiservice_api.v1alpha1 import Condition, ConditionStatus
from aiservice_kubectl.explain.advice import advice
from aiservice_kubectl.explain.evidence import Evidence
from aiservice_kubectl.explain.pods import node, ready
from aiservice_kubectl.lookup import condition
from aiservice_kubectl.text import count, plain, sentence, since
from aiservice_operator import failures
from aiservice_operator.failures import Failure
from aiservice_operator.kinds import Json, Kind
from aiservice_operator.observed import Child
from aiservice_operator.states import conditions

_LATE = timedelta(minutes=1)
"""After this long without a word from the operator something is wrong."""
_SHOWN_EVENTS = 3
_OURS = (Kind.AISERVICE, Kind.MODEL_CACHE)


@dataclass(frozen=True, slots=True)
class Story:
    """An account for people, and the word for programs."""

    ready: str
    reason: str
    account: str
    """One paragraph."""
    todo: tuple[str, ...]
    events: tuple[str, ...]
    """The latest warnings, in the cluster's words."""


def tell(evidence: Evidence, now: datetime) -> Story:
    """Returns why an AIService is as it is."""
    service = evidence.service
    state = condition(service.status.conditions, "Ready")
    if state is None:
        return _unseen(evidence, now)
    behind = service.status.observed_generation < service.meta.generation
    lead = _serving(evidence, state, now) if state.status is ConditionStatus.TRUE else _waiting(evidence, state, now)
    cause = _cause(evidence, now) if state.status is not ConditionStatus.TRUE else None
    sentences = [
        lead,
        _behind() if behind else "",
        *_new_words(lead, _deeper(evidence, cause)),
        _scaling(evidence),
        _deleting(evidence),
    ]
    reason = cause.reason if cause is not None else state.reason
    return Story(
        state.status.value,
        reason,
        " ".join(text for text in sentences if text),
        _todo(evidence, ["Outdated"] if behind else [], [reason, state.reason]),
        () if state.status is ConditionStatus.TRUE else _warnings(evidence.events, lead),
    )


def _unseen(evidence: Evidence, now: datetime) -> Story:
    name, created = evidence.service.meta.name, evidence.service.meta.created
    if now - created < _LATE:
        ago = since(now, created).removeprefix("for ")
        account = f"{name} was made {ago} ago, and the operator has not looked at it yet."
        return Story("Unknown", "NotSeenYet", account, ("Wait a few seconds and ask again",), ())
    account = (
        f"{name} has been there {since(now, created)}, and the operator has said nothing about it: it does not run, "
        "or does not serve this namespace."
    )
    return Story("Unknown", "NotSeenYet", account, _todo(evidence, [], ["NotSeenYet"]), ())


def _serving(evidence: Evidence, state: Condition, now: datetime) -> str:
    service = evidence.service
    name, long = service.meta.name, since(now, state.last_transition_time)
    if state.reason != "Serving":
        return f"{name} is ready, and no pod of it runs ({state.reason}), {long}: {sentence(state.message)}"
    serving = [pod for pod in evidence.pods if ready(pod) and not pod.meta.deleting]
    nodes = sorted({node(pod) for pod in serving} - {""})
    spec, status = service.spec, service.status
    tasks = " and ".join(task.value for task in spec.tasks) if spec else "its tasks"
    where = f" on {', '.join(nodes)}" if nodes else ""
    profile = f" (profile {spec.profile})" if spec and spec.profile else ""
    precision = f" in {status.precision}" if status.precision else ""
    number = len(serving) or status.ready_replicas
    pods = f"{count(number, 'pod')} {'serves' if number == 1 else 'serve'}"
    facts = [
        f"{name} is ready, and has been {long}: {pods} {tasks}{where}{profile}.",
        f"The model is {plain(status.model)}{precision}, from the cache {status.model_cache}." if status.model else "",
        f"Requests go to {status.url}." if status.url else "",
        _timings(evidence),
    ]
    return " ".join(fact for fact in facts if fact)


def _timings(evidence: Evidence) -> str:
    timings = evidence.service.status.timings
    if timings is None:
        return ""
    parts = [
        f"{seconds:.0f} s {what}"
        for seconds, what in (
            (timings.cache_seconds, "until the model was cached"),
            (timings.schedule_seconds, "until a node was found"),
            (timings.load_seconds, "to load the model"),
        )
        if seconds is not None and seconds >= 1
    ]
    return f"Its last start took {', '.join(parts)}." if parts else ""


def _waiting(evidence: Evidence, state: Condition, now: datetime) -> str:
    service = evidence.service
    available = condition(service.status.conditions, "Available")
    serves = (
        " Meanwhile pods of before serve requests."
        if available is not None and available.status is ConditionStatus.TRUE
        else ""
    )
    word = "is not ready" if state.status is ConditionStatus.FALSE else "is not ready yet, and is being worked on"
    long = since(now, state.last_transition_time)
    return f"{service.meta.name} {word} {long} ({state.reason}): {sentence(state.message)}{serves}"


def _behind() -> str:
    return "The spec has changed since, and the operator has not looked at the change yet."


def _cause(evidence: Evidence, now: datetime) -> Failure | None:
    """What is nearest to the cause: a spec or a model comes before pods, which wait for both."""
    accepted = condition(evidence.service.status.conditions, "Accepted")
    if accepted is not None and accepted.status is ConditionStatus.FALSE:
        return None  # the condition says all
    if not _cached(evidence):
        return _of_cache(evidence, now)
    return failures.of_pods(evidence.pods, now) or _refused(evidence.deployments) or _last(evidence)


def _of_cache(evidence: Evidence, now: datetime) -> Failure | None:
    cache = evidence.cache
    if cache is None:
        return None
    found = failures.of_pods(evidence.download_pods, now)
    said = cache.status.last_failure
    bad = next((item for item in cache.status.conditions if item.status is ConditionStatus.FALSE), None)
    # The download's own words were read by the operator; those of a pod are of its kubelet.
    if bad is not None and said is not None and said.reason == bad.reason:
        return Failure(said.reason, said.message, said.object, said.time)
    if found is not None:
        return found
    if bad is not None:
        return Failure(bad.reason, bad.message, f"ModelCache/{cache.meta.name}", bad.last_transition_time)
    return None


def _refused(deployments: Sequence[Child]) -> Failure | None:
    """A quota or a policy that lets no pod be made."""
    for deployment in deployments:
        failed = conditions(deployment.body).get("ReplicaFailure", {})
        if failed.get("status") == "True":
            words = str(failed.get("message", ""))
            return Failure("PodsRefused", words, f"Deployment/{deployment.meta.name}", deployment.meta.created)
    return None


def _last(evidence: Evidence) -> Failure | None:
    """What the operator noted, where it is what the service suffers from now."""
    said, state = evidence.service.status.last_failure, condition(evidence.service.status.conditions, "Ready")
    if said is None or state is None or said.reason != state.reason:
        return None
    return Failure(said.reason, said.message, said.object, said.time)


def _deeper(evidence: Evidence, cause: Failure | None) -> list[str]:
    """The cause in a sentence, and how far a download is."""
    told = [f"The cause is at {cause.object} ({cause.reason}): {sentence(cause.message)}"] if cause is not None else []
    download = evidence.cache.status.download if evidence.cache is not None else None
    model = condition(evidence.service.status.conditions, "ModelReady")
    loading = model is not None and model.status is ConditionStatus.UNKNOWN
    if loading and download is not None and download.progress:
        left = f", about {download.eta_seconds // 60 + 1} minutes left" if download.eta_seconds is not None else ""
        told.append(f"The download is at {plain(download.progress)}{left}.")
    return told


def _new_words(said: str, told: Sequence[str]) -> list[str]:
    """Sentences that say something new: conditions quote what is below them."""
    return [text for text in told if text.split(": ", 1)[-1].rstrip(".").lower() not in said.lower()]


def _scaling(evidence: Evidence) -> str:
    """What keeps an autoscaler from working, which is no reason not to be ready."""
    for autoscaler in evidence.autoscalers:
        active = conditions(autoscaler.body).get("ScalingActive", {})
        if active.get("status") == "False":
            return (
                f"The autoscaler does not work, so the number of pods stays as it is ({active.get('reason', '')}): "
                f"{sentence(str(active.get('message', '')))}"
            )
    return ""


def _deleting(evidence: Evidence) -> str:
    return "It is being deleted." if evidence.service.meta.deleting else ""


def _todo(evidence: Evidence, first: list[str], reasons: list[str]) -> tuple[str, ...]:
    service = evidence.service
    lines: list[str] = []
    # The cause alone, where there is something to do about it; what is above it goes with it.
    known = [*first, *reasons]
    for reason in known:
        found = advice(
            reason,
            name=service.meta.name,
            namespace=service.meta.namespace,
            cache=service.cache_name or "?",
            download=not _cached(evidence),
        )
        lines += [line for line in found if line not in lines]
        if found and reason not in first:
            break
    return tuple(lines)


def _cached(evidence: Evidence) -> bool:
    model = condition(evidence.service.status.conditions, "ModelReady")
    return model is not None and model.status is ConditionStatus.TRUE


def _warnings(events: Sequence[Json], said: str) -> tuple[str, ...]:
    """The latest warnings that have not been quoted, newest first."""
    told: list[str] = []
    for event in reversed(events):
        words = plain(str(event.get("message", ""))).strip()
        about = event.get("involvedObject", {})
        # The operator's own Events say what the conditions say.
        if event.get("type") != "Warning" or not words or words in said or about.get("kind") in _OURS:
            continue
        line = f"{about.get('kind')}/{about.get('name')} {event.get('reason')}: {words}"
        if line not in told:
            told.append(line)
    return tuple(told[:_SHOWN_EVENTS])
