"""`kubectl ais plan`: what a manifest would make, whether it would be accepted, whether it fits, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from aiservice_api.v1alpha1 import ModelCache, ModelCacheSpec
from aiservice_kubectl.cluster import together
from aiservice_kubectl.errors import ClusterError, Exit, RefusedError, UsageError
from aiservice_kubectl.planning.configuration import Configuration, from_cluster, from_file, serving, unserved
from aiservice_kubectl.planning.examine import examine_cache, examine_service
from aiservice_kubectl.planning.manifests import Document, read_all
from aiservice_kubectl.planning.render import render
from aiservice_kubectl.planning.report import Report, Summary
from aiservice_kubectl.planning.survey import Survey, survey
from aiservice_kubectl.planning.validity import by_models, by_server
from aiservice_kubectl.request import Request
from aiservice_operator.settings import Settings

_UNASKED = (
    "no cluster was asked: types, ranges and names of fields were checked; the rules between fields, and the nodes, "
    "were not"
)


def run(request: Request) -> int:
    """Examines manifests; exits with 1 where something would not be accepted, with 3 where it does not fit now."""
    options = request.options
    if options.offline and options.config is None:
        raise UsageError("--offline needs the operator's configuration: give it with --config FILE")
    namespace = (options.namespace or "default") if options.offline else _namespace(request)
    documents, others = read_all(options.filename, namespace, enforced=options.namespace is not None)
    if not documents:
        found = f"; it holds {', '.join(others)}" if others else ""
        raise UsageError(f"there is no AIService and no ModelCache in {', '.join(options.filename)}{found}")
    around, configurations, notes = _around(request, documents)
    refusals = _refusals(request, documents, around)
    chosen = [
        None if refused else serving(document, configurations)
        for document, refused in zip(documents, refusals, strict=True)
    ]
    if others:
        notes.append(f"left out, being of other kinds: {', '.join(others)}")
    planned = _planned(documents, refusals)
    reports = [
        Report(document.title, document.namespace, None, tuple(refused or [unserved(document, configurations)]))
        if configuration is None
        else _examine(document, configuration.settings, around, planned)
        for document, refused, configuration in zip(documents, refusals, chosen, strict=True)
    ]
    summary = Summary(tuple(reports), (*_sources(chosen), *notes, *around.notes))
    if request.as_json:
        request.say_json(_as_json(summary))
    else:
        request.say(render(summary, request.paint, request.width))
    if not summary.accepted:
        return Exit.NO
    return Exit.OK if summary.fits else Exit.DOES_NOT_FIT


def _namespace(request: Request) -> str:
    """The namespace of documents that name none; where there is no kubeconfig that can only be the default."""
    try:
        return request.namespace
    except ClusterError:
        return "default"


def _sources(chosen: Sequence[Configuration | None]) -> list[str]:
    """The note that says whose profiles and images were taken."""
    sources = dict.fromkeys(configuration.source for configuration in chosen if configuration is not None)
    return [f"profiles and images are those of {' and '.join(sources)}"] if sources else []


def _around(request: Request, documents: Sequence[Document]) -> tuple[Survey, tuple[Configuration, ...], list[str]]:
    """The cluster and the operators' configurations; without a cluster only with --config."""
    options = request.options
    if options.offline:
        return Survey(False), (from_file(options.config),), [_UNASKED]
    namespaces = {document.namespace for document in documents}
    planned = {(document.namespace, document.name) for document in documents if document.kind == "AIService"}
    try:
        around = survey(request.cluster, namespaces, planned)
    except RefusedError:
        raise
    except ClusterError as error:
        if options.config is None:
            raise ClusterError(
                f"{error}\nTo plan without a cluster give the operator's configuration: --offline --config FILE"
            ) from error
        return Survey(False), (from_file(options.config),), [str(error), _UNASKED]
    if options.config is not None:
        return around, (from_file(options.config),), []
    return around, from_cluster(request.cluster, options.operator_namespace), []


def _refusals(request: Request, documents: Sequence[Document], around: Survey) -> list[list[str]]:
    """Why the API server would refuse each document; empty where it would not."""
    if not around.reached:
        return [by_models(document) for document in documents]
    return together(*(partial(by_server, request.cluster, document) for document in documents))


def _planned(documents: Sequence[Document], refusals: Sequence[Sequence[str]]) -> dict[tuple[str, str], ModelCacheSpec]:
    """The ModelCaches of the manifest, by namespace and name."""
    return {
        (document.namespace, document.name): ModelCache.model_validate(document.body).spec
        for document, refused in zip(documents, refusals, strict=True)
        if document.kind == "ModelCache" and not refused
    }


def _examine(
    document: Document, settings: Settings, around: Survey, planned: Mapping[tuple[str, str], ModelCacheSpec]
) -> Report:
    if document.kind == "ModelCache":
        return examine_cache(document, settings, around)
    return examine_service(document, settings, around, planned)


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "accepted": summary.accepted,
        "fits": summary.fits,
        "monthlyCost": [asdict(cost) for cost in summary.costs],
        "documents": [asdict(report) for report in summary.reports],
        "notes": list(summary.notes),
    }
