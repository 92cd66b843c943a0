"""A real S3 server (the Versity gateway on a folder), and a client to fill it. For environments with botocore."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.session import Session

from support.cluster import tool
from support.databases import Server, free_port

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"


def answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class S3Server:
    """The server, and a client with all rights."""

    port: int
    folder: Path
    """Where the server keeps the objects, as files."""
    client: Any

    def bucket(self, name: str, objects: dict[str, bytes]) -> str:
        """Makes a bucket with objects; returns its name."""
        self.client.create_bucket(Bucket=name)
        for key, data in objects.items():
            self.client.put_object(Bucket=name, Key=key, Body=data)
        return name

    def put_in_parts(self, bucket: str, key: str, parts: list[bytes]) -> None:
        """Uploads an object as large ones are: in parts, so that its ETag is no MD5."""
        upload = self.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        asked = {"Bucket": bucket, "Key": key, "UploadId": upload}
        done = [
            {"PartNumber": number, "ETag": self.client.upload_part(**asked, PartNumber=number, Body=part)["ETag"]}
            for number, part in enumerate(parts, start=1)
        ]
        self.client.complete_multipart_upload(**asked, MultipartUpload={"Parts": done})


@contextmanager
def s3_serving(folder: Path) -> Iterator[S3Server]:
    """Runs the server on a folder."""
    port = free_port()
    data = folder / "data"
    data.mkdir(parents=True)
    command = [str(tool("versitygw")), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", f"127.0.0.1:{port}"]
    server = Server("versitygw", folder, [*command, "posix", str(data)], lambda: answers(port))
    server.start()
    try:
        yield S3Server(port, data, _client(port))
    finally:
        server.stop(signal.SIGTERM)


def _client(port: int) -> Any:
    return Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )
