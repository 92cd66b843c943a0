"""Lists the objects of a bucket, at AWS or a server that speaks its protocol, and signs the requests for them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError
from botocore.parsers import ResponseParserError
from botocore.session import Session

from aiservice_downloader.client import may_pass
from aiservice_downloader.digests import Digest
from aiservice_downloader.errors import DownloadError, Reason, download_error_in
from aiservice_downloader.files import Address, Plan, RemoteFile
from aiservice_downloader.guard import Guard
from aiservice_downloader.paths import check_distinct, check_relative_path, wanted
from aiservice_downloader.retry import Patience, TransientError, parse_retry_after
from aiservice_downloader.settings import S3Keys
from aiservice_downloader.source import S3Source

T = TypeVar("T")

DEFAULT_REGION = "us-east-1"
_URL_SECONDS = 3600  # each request has an address of its own; what it began goes on after that
_PARALLEL_HEADS = 8
_MD5 = re.compile(r'^"([0-9a-f]{32})"$')
_REFUSED = frozenset({"ExpiredToken", "InvalidToken"})  # with the status 400
_BUSY = frozenset({"RequestTimeout", "SlowDown", "Throttling", "TooManyRequests"})  # whatever the status


@dataclass(frozen=True)
class _Object:
    """An object as the list has it."""

    key: str
    path: str


def plan_bucket(source: S3Source, *, keys: S3Keys | None, patience: Patience, guard: Guard) -> Plan:
    """Lists the wanted objects, each with its size and what its content can be verified by.

    Raises:
        DownloadError: If the bucket or the wanted objects are not to be had.
        StopRequested: If the download is to end.
    """
    bucket = _Bucket(source, keys, patience, guard)
    listed = list(bucket.objects())
    chosen = [item for item in listed if wanted(item.path, source.include, source.exclude)]
    if not chosen:
        raise DownloadError(
            Reason.NOT_FOUND,
            f"{bucket.where} holds {len(listed)} objects, and none is wanted by include {list(source.include)} and "
            f"exclude {list(source.exclude)}: correct endpoint, prefix or globs in the model's spec.",
        )
    try:
        check_distinct(check_relative_path(item.path) for item in chosen)
    except ValueError as error:
        raise DownloadError(Reason.BAD_SOURCE, f"{bucket.where} holds an object that is refused: {error}.") from error
    with ThreadPoolExecutor(_PARALLEL_HEADS, thread_name_prefix="head") as pool:
        return Plan(tuple(pool.map(bucket.remote_file, chosen)))


class _Bucket:
    """The objects below the prefix, with S3's failures put into our words."""

    def __init__(self, source: S3Source, keys: S3Keys | None, patience: Patience, guard: Guard) -> None:
        self._source = source
        self._keys = keys
        self._patience = patience
        self._guard = guard
        self._client: Any = self._connect(source.region or DEFAULT_REGION)
        self._prefix = f"{source.prefix}/" if source.prefix else ""
        self.where = f"s3://{source.bucket}/{self._prefix}"

    def objects(self) -> Iterator[_Object]:
        """The objects below the prefix, in all pages of the list."""
        token: dict[str, str] = {}
        while True:
            page = self._ask(partial(self._list, token))
            for item in page.get("Contents", []):
                path = item["Key"].removeprefix(self._prefix)
                if path and not path.endswith("/"):  # consoles make objects that stand for folders
                    yield _Object(item["Key"], path)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def remote_file(self, item: _Object) -> RemoteFile:
        """One object, with its size and digest."""
        asked = {"Bucket": self._source.bucket, "Key": item.key}
        head = self._ask(lambda: self._client.head_object(**asked, ChecksumMode="ENABLED"))
        return RemoteFile(
            path=item.path,
            url=self._sign(asked).url.partition("?")[0],
            digest=digest_of(head),
            access_hint=self._access_hint(),
            size=head["ContentLength"],
            sign=lambda: self._sign(asked),
            etag=head.get("ETag"),
        )

    def _connect(self, region: str) -> Any:  # the library makes the client's methods when it runs
        keys = self._keys
        config = Config(
            signature_version=UNSIGNED if keys is None else "s3v4",
            s3={"addressing_style": "path" if self._source.path_style else "virtual"},
            retries={"total_max_attempts": 1},  # patience is ours, and tells what it waits for
            connect_timeout=15,
            read_timeout=60,
            user_agent_extra="aiservice-model-downloader",
        )
        try:
            client = Session().create_client(
                "s3",
                region_name=region,
                endpoint_url=self._source.endpoint,
                aws_access_key_id=keys.access_key if keys else None,
                aws_secret_access_key=keys.secret_key if keys else None,
                aws_session_token=keys.session_token if keys else None,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise DownloadError(
                Reason.BAD_SOURCE, f"{error} Correct endpoint and region in the model's spec."
            ) from error
        client.meta.events.register("before-send.s3", self._look)
        return client

    def _look(self, request: Any, **_: Any) -> None:
        self._guard.check_target(urlsplit(request.url).hostname or "")

    def _list(self, token: dict[str, str]) -> Any:
        page = self._client.list_objects_v2(Bucket=self._source.bucket, Prefix=self._prefix, **token)
        region = page["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if region not in {None, self._client.meta.region_name}:
            # The library asked again in the bucket's own region; the objects' addresses have to be of that one too.
            self._client = self._connect(region)
        return page

    def _sign(self, asked: dict[str, str]) -> Address:
        return Address(self._client.generate_presigned_url("get_object", Params=asked, ExpiresIn=_URL_SECONDS))

    def _ask(self, call: Callable[[], T]) -> T:
        def attempt() -> T:
            try:
                return call()
            except ClientError as error:
                raise self._failure(error) from error
            except (HTTPClientError, UnreachableError) as error:
                if (ours := download_error_in(error)) is not None:
                    raise ours from error
                raise TransientError(f"The connection for {self.where} failed: {str(error).rstrip('.')}") from error
            except (BotoCoreError, ResponseParserError) as error:
                raise DownloadError(Reason.BAD_SOURCE, f"{self.where} cannot be asked for: {error}") from error

        return self._patience.run(attempt)

    def _failure(self, error: ClientError) -> Exception:
        code = error.response["Error"].get("Code", "")
        answer = error.response["ResponseMetadata"]
        status = answer.get("HTTPStatusCode", 0)
        said = f"{status} {code}" if code != str(status) else code
        if code in _BUSY or may_pass(status):
            wait = parse_retry_after(answer.get("HTTPHeaders", {}).get("retry-after"), datetime.now(UTC))
            return TransientError(f"{self.where} answered {said}", retry_after=wait)
        if code in _REFUSED or status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return DownloadError(Reason.UNAUTHORIZED, f"{self.where} answered {said}: {self._access_hint()}.")
        if status == HTTPStatus.NOT_FOUND:
            return DownloadError(
                Reason.NOT_FOUND,
                f"{self.where} answered {said}: correct bucket, prefix or endpoint in the model's spec.",
            )
        return DownloadError(
            Reason.BAD_SOURCE,
            f"{self.where} answered {said}: check endpoint, region and pathStyle in the model's spec.",
        )

    def _access_hint(self) -> str:
        if self._keys is None:
            return (
                "the bucket is not open to everyone, or does not exist; check its name, and name a Secret with "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the model's spec"
            )
        return (
            "the keys of the Secret are wrong or expired, or may not list and read this bucket (they need "
            "s3:ListBucket and s3:GetObject)"
        )


def digest_of(head: dict[str, Any]) -> Digest:
    """The best of what S3 tells of an object's content.

    An ETag is an MD5 only without parts and without keys of one's own, and most checksums of an object that was
    uploaded in parts are of the parts' checksums. With nothing else, the ETag keeps the content from changing while
    it is fetched, and only the size is verified.
    """
    if (sha256 := _whole_checksum(head.get("ChecksumSHA256"))) is not None:
        return Digest("sha256", sha256)
    etag = head.get("ETag", "")
    own_keys = head.get("ServerSideEncryption") not in {None, "AES256"} or "SSECustomerAlgorithm" in head
    if (match := _MD5.match(etag)) is not None and not own_keys:
        return Digest("md5", match[1])
    if (crc := _whole_checksum(head.get("ChecksumCRC64NVME"))) is not None:
        return Digest("crc64nvme", crc)
    if (crc := _whole_checksum(head.get("ChecksumCRC32C"))) is not None:
        return Digest("crc32c", crc)
    if (crc := _whole_checksum(head.get("ChecksumCRC32"))) is not None:
        return Digest("crc32", crc)
    return Digest("etag", etag)


def _whole_checksum(text: str | None) -> str | None:
    """A checksum in hex, if it is of the whole object: one of parts ends with their number."""
    try:
        return base64.b64decode(text, validate=True).hex() if text else None
    except binascii.Error:
        return None
