"""Addresses that are not public are refused by the real process, whichever client connects to them."""

from __future__ import annotations

from typing import Any

import pytest

from support.downloads import Job, assert_published, http_source
from support.file_server import FileServer, Redirect
from support.hub_server import HubServer
from support.registry_server import RegistryServer
from support.s3_server import S3Server


def refused(job: Job, source: dict[str, Any]) -> str:
    outcome = job.run(source)
    assert outcome.failure == (2, "ForbiddenAddress", False)
    message: str = outcome.message["message"]
    assert "download.allowedHosts" in message
    return message


@pytest.fixture
def job(job: Job) -> Job:
    job.environ["AISERVICE_ALLOWED_HOSTS"] = '["mirror.corp"]'
    return job


def test_http(job: Job, server: FileServer) -> None:
    assert refused(job, http_source(server, {"a": b"1"})).startswith("127.0.0.1 is not")
    assert server.requests == []


def test_a_name_that_leads_to_the_machine_itself(job: Job, server: FileServer) -> None:
    source = http_source(server, {"a": b"1"})
    source["http"]["files"][0]["url"] = f"http://localhost:{server.port}/a"
    assert "localhost is at " in refused(job, source)
    assert server.requests == []


def test_what_is_denied(job: Job, server: FileServer) -> None:
    """A public address, so that nothing but the denial is in the way; nothing is sent there."""
    source = http_source(server, {"a": b"1"})
    job.environ |= {"AISERVICE_DENIED_NETWORKS": '["18.164.0.0/16"]', "KUBERNETES_SERVICE_HOST": "18.165.0.1"}
    for address, what in [
        ("18.164.174.23", "in 18.164.0.0/16, one of download.deniedNetworks"),
        ("18.165.0.1", "the API server of this cluster"),
        ("168.63.129.16", "where Azure serves its machines"),
    ]:
        source["http"]["files"][0]["url"] = f"http://{address}/a"
        assert refused(job, source).startswith(f"{address} is {what}, and downloads do not go there.")
    job.environ["AISERVICE_DENIED_NETWORKS"] = '["127.0.0.0/8"]'
    job.environ["AISERVICE_ALLOWED_HOSTS"] = '["127.0.0.1"]'
    assert job.run(http_source(server, {"a": b"1"})).code == 0


def test_a_redirect(job: Job, server: FileServer) -> None:
    job.environ["AISERVICE_ALLOWED_HOSTS"] = '["127.0.0.1"]'
    source = http_source(server, {"a": b"1"})
    server.faults["/a"] = [Redirect("http://169.254.169.254/latest/meta-data/")]
    assert refused(job, source).startswith("169.254.169.254 is not")


def test_s3(job: Job, s3: S3Server) -> None:
    source = {"s3": {"bucket": "models", "endpoint": f"http://127.0.0.1:{s3.port}", "pathStyle": True}}
    assert refused(job, source).startswith("127.0.0.1 is not")


def test_oci(job: Job, registry: RegistryServer) -> None:
    assert refused(job, {"oci": {"image": f"{registry.host}/team/model:v1"}}).startswith("127.0.0.1 is not")


def test_the_hub(job: Job, hub: HubServer) -> None:
    hub.repository("a/b").commit({"config.json": b"{}"})
    assert refused(job, {"huggingFace": {"repo": "a/b", "endpoint": hub.url}}).startswith("127.0.0.1 is not")
    assert hub.requests == []


def test_measuring(job: Job, server: FileServer) -> None:
    job.environ["AISERVICE_MODE"] = "measure"
    refused(job, http_source(server, {"a": b"1"}))
    assert server.requests == []


def test_targets_behind_a_proxy(job: Job, server: FileServer) -> None:
    job.environ["HTTP_PROXY"] = server.url  # the proxy itself may be reached, wherever it is
    source = http_source(server, {"a": b"1"})
    source["http"]["files"][0]["url"] = "http://10.0.0.7/a"
    assert refused(job, source).startswith("10.0.0.7 is not")
    assert server.requests == []
    source["http"]["files"][0]["url"] = "http://models.invalid/a"  # only the proxy can know where that is
    server.files["http://models.invalid/a"] = b"1"
    server.files["/a"] = b"1"
    assert job.run(source).code == 0
    assert server.requests[-1].target == "http://models.invalid/a"
    assert_published(job, {"a": b"1"})
