"""`kubectl ais plan`: what a manifest would make, whether it would be accepted, whether it fits, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from aiservice_api.v1alpha1 import ModelCache
from aiservice_kubectl.cluster import together
from aiservice_kubectl.errors import ClusterError, Exit, RefusedError, UsageError
from aiservice_kubectl.planning.configuration import Configuration, from_cluster, from_file
from aiservice_kubectl.planning.examine import examine_cache, examine_service, unserved
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
    around, configuration, notes = _around(request, documents)
    if others:
        notes.append(f"left out, being of other kinds: {', '.join(others)}")
    reports = _examine(request, documents, configuration.settings, around)
    summary = Summary(
        tuple(reports), (f"profiles and images are those of {configuration.source}", *notes, *around.notes)
    )
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


def _around(request: Request, documents: Sequence[Document]) -> tuple[Survey, Configuration, list[str]]:
    """The cluster and the operator's configuration; without a cluster only with --config."""
    options = request.options
    if options.offline:
        return Survey(False), from_file(options.config), [_UNASKED]
    planned = {(document.namespace, document.name) for document in documents}
    try:
        around = survey(request.cluster, planned)
    except RefusedError:
        raise
    except ClusterError as error:
        if options.config is None:
            raise ClusterError(
                f"{error}\nTo plan without a cluster give the operator's configuration: --offline --config FILE"
            ) from error
        return Survey(False), from_file(options.config), [str(error), _UNASKED]
    if options.config is not None:
        return around, from_file(options.config), []
    return around, from_cluster(request.cluster, documents[0].namespace, options.operator_namespace), []


def _examine(request: Request, documents: Sequence[Document], settings: Settings, around: Survey) -> list[Report]:
    refusals = (
        together(*(partial(by_server, request.cluster, document) for document in documents))
        if around.reached
        else [by_models(document) for document in documents]
    )
    good = [document for document, refused in zip(documents, refusals, strict=True) if not refused]
    planned = {
        (document.namespace, document.name): ModelCache.model_validate(document.body).spec
        for document in good
        if document.kind == "ModelCache"
    }
    reports = []
    for document, refused in zip(documents, refusals, strict=True):
        reasons = refused or [words for words in [unserved(document, settings)] if words]
        if reasons:
            reports.append(Report(document.title, document.namespace, None, tuple(reasons)))
        elif document.kind == "ModelCache":
            reports.append(examine_cache(document, settings, around))
        else:
            reports.append(examine_service(document, settings, around, planned))
    return reports


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "accepted": summary.accepted,
        "fits": summary.fits,
        "monthlyCost": [asdict(cost) for cost in summary.costs],
        "documents": [asdict(report) for report in summary.reports],
        "notes": list(summary.notes),
    }
