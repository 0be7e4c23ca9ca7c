"""
An S3 server in this process: moto, behind a layer that counts requests and misbehaves.

moto keeps ``If-None-Match``, object lock, versions and multipart uploads. It believes every checksum, key and clock. The
layer compares each checksum as Amazon's server does; its refusals of keys and clocks are answers with the words that Amazon
documents.
"""

from __future__ import annotations

import base64
import io
import os
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

os.environ["S3_UPLOAD_PART_MIN_SIZE"] = str(256 * 2**10)  # read when moto is imported

import boto3
import google_crc32c
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from etcdkeep.adapters.stores.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART_BYTES = 256 * 2**10
COPY_PART_BYTES = 2**20
ATTEMPTS = 3
WORDS = {
    400: "InvalidRequest",
    403: "AccessDenied",
    408: "RequestTimeout",
    409: "ConditionalRequestConflict",
    429: "SlowDown",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass
class Fault:
    """
    One misbehaviour, the next `times` times a request matches.

    :param what: ``status``: answer with `status` and `code`, do nothing. ``drop``: hang up, do nothing. ``lose``: do it, then hang
        up without an answer. ``flip``: change a byte of an upload on its way. ``cut``: hang up after `after` bytes of a download. ``short``: end a download properly after `after` bytes.
    """

    what: Literal["status", "drop", "lose", "flip", "cut", "short"]
    request: str = ""
    status: int = 503
    code: str = ""
    after: int = 0
    times: int = 1


class S3Server:
    """The server, as tests see it."""

    def __init__(self) -> None:
        self.url = ""
        self.bucket = f"vault-{uuid.uuid4().hex[:12]}"
        self.faults: list[Fault] = []
        self.ignores_conditions = False
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []

    @property
    def client(self) -> Any:
        """A plain client, to look behind the adapter's back."""
        return client(self.url)

    def store(self, prefix: str = "", bucket: str = "") -> S3Store:
        return s3_store(self.url, bucket or self.bucket, prefix)

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket)
        return [each["Key"] for each in found.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def uploads(self) -> list[str]:
        """Return the keys of unfinished uploads."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    def asked(self, pattern: str) -> int:
        """Count the requests so far that match."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)


def client(url: str, attempts: int = ATTEMPTS) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="writer",
        aws_secret_access_key="secret",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=2,
            read_timeout=60,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def s3_store(url: str, bucket: str, prefix: str = "") -> S3Store:
    """Return a store with small parts and little patience."""
    return S3Store(
        client(url), bucket, prefix, part_bytes=PART_BYTES, copy_part_bytes=COPY_PART_BYTES, attempts=ATTEMPTS
    )


@contextmanager
def s3_server(*, lock: bool = False) -> Iterator[S3Server]:
    """
    Serve on loopback, with one empty bucket, until the block ends.

    :param lock: Whether the bucket is made with object lock, and so keeps versions.
    """
    running = S3Server()
    inner = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, _misbehaving(running, inner), True, request_handler=_Handler)
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        running.client.create_bucket(Bucket=running.bucket, ObjectLockEnabledForBucket=lock)
        running.requests.clear()
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Hang up: else the client would wait for its time-out."""
        self.close_connection = True


class _HungUp(ConnectionError):
    """Ends a connection: the server takes it for its client's doing."""


def _misbehaving(running: S3Server, inner: Any) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}"
        running.requests.append(request)
        running.headers.append({key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")})
        fault = next((each for each in running.faults if each.times and re.search(each.request, request)), None)
        if running.ignores_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if fault is not None:
            fault.times -= 1
        if "HTTP_X_AMZ_CHECKSUM_CRC32C" in environ and environ["REQUEST_METHOD"] == "PUT":
            body = bytearray(_body(environ))
            if fault is not None and fault.what == "flip" and body:
                body[0] ^= 1
            environ["wsgi.input"] = io.BytesIO(body)
            told = base64.b64decode(environ["HTTP_X_AMZ_CHECKSUM_CRC32C"])
            if int.from_bytes(told, "big") != google_crc32c.value(bytes(body)):
                return _answer(start, 400, "BadDigest")
        if fault is None or fault.what == "flip":
            return inner(environ, start)
        if fault.what == "drop":
            raise _HungUp
        if fault.what == "status":
            _body(environ)
            empty = environ["REQUEST_METHOD"] == "HEAD"
            return _answer(start, fault.status, fault.code or WORDS.get(fault.status, "Error"), empty=empty)
        if fault.what == "lose":
            list(inner(environ, lambda *_: lambda _: None))
            raise _HungUp
        return _spoiled(inner, environ, start, fault)

    return app


def _body(environ: dict[str, Any]) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _answer(start: Callable[..., Any], status: int, code: str, *, empty: bool = False) -> list[bytes]:
    body = b"" if empty else f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
    start(f"{status} Told", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _spoiled(inner: Any, environ: dict[str, Any], start: Callable[..., Any], fault: Fault) -> Iterator[bytes]:
    answer: list[Any] = []
    body = b"".join(inner(environ, lambda status, headers, *_: answer.extend((status, headers))))
    status, headers = answer
    if fault.what == "short":
        headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
        headers.append(("Content-Length", str(min(len(body), fault.after))))
    start(status, headers)
    yield body[: fault.after]
    if fault.what == "cut":
        raise _HungUp
