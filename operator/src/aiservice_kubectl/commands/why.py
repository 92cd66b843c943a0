"""`kubectl ais why NAME`: in plain English, why a service is not ready and what to do, or what it runs on."""

from __future__ import annotations

from dataclasses import asdict

from aiservice_kubectl.errors import Exit
from aiservice_kubectl.explain.evidence import gather
from aiservice_kubectl.explain.story import Story, tell
from aiservice_kubectl.lookup import find_service
from aiservice_kubectl.request import Request
from aiservice_kubectl.text import Colour, paragraph


def run(request: Request) -> int:
    """Explains one AIService."""
    service = find_service(request.cluster, request.namespace, request.options.name)
    evidence = gather(request.cluster, service)
    story = tell(evidence, request.now)
    if request.as_json:
        request.say_json({"namespace": service.meta.namespace, "name": service.meta.name, **asdict(story)})
    else:
        request.say(render(request, story))
    for missing in evidence.left_out:
        request.note(f"Left out: {missing}")
    return Exit.OK


def render(request: Request, story: Story) -> str:
    """Returns the account, what to do, and the latest warnings."""
    parts = [paragraph(story.account, request.width)]
    if story.todo:
        parts.append("\n".join([request.paint("What to do", Colour.STRONG), *(f"  - {line}" for line in story.todo)]))
    if story.events:
        head = request.paint("Latest warnings", Colour.STRONG)
        parts.append("\n".join([head, *(paragraph(line, request.width, "  ") for line in story.events)]))
    return "\n\n".join(parts)
