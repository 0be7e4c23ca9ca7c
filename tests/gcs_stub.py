"""
A bucket server in this process, as strict as Google's about preconditions and checksums, and able to misbehave.

The stock emulator ignores ``ifGenerationMatch`` on resumable uploads and rewrites, so it cannot show that nothing is
ever replaced. Objects live in memory; one :class:`Fault` is one misbehaviour.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "vault"
PAGE = 3
"""Few objects a page and few bytes a rewrite call, so that every test meets page and rewrite tokens."""
REWRITE_BYTES = 2**20


@dataclass
class Stored:
    name: str
    data: bytes
    generation: int
    content_type: str
    retention: dict[str, str] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))

    def resource(self) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "crc32c": crc32c(self.data),
            "timeCreated": self.created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "updated": self.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "retention": self.retention,
        }


@dataclass
class Session:
    name: str
    content_type: str
    create_only: bool
    data: bytearray = field(default_factory=bytearray)
    finished: Stored | None = None


@dataclass
class Fault:
    """
    One misbehaviour, the next `times` times a request matches.

    :param what: ``status``: answer with `status` and `words`, do nothing. ``drop``: hang up, do nothing. ``lose``: do it, then hang up without an answer. ``cut``: hang up
        after `after` bytes of a download. ``short``: end a download properly after `after` bytes. ``flip``: change a byte of an
        upload before storing it. ``partial``: keep only the first 256 KiB of a chunk.
    """

    what: Literal["status", "drop", "lose", "cut", "short", "flip", "partial"]
    method: str = ""
    path: str = ""
    status: int = 503
    after: int = 0
    times: int = 1
    words: str = "told to fail"


class GcsStub:
    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.sessions: dict[str, Session] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.tokens: list[dict[str, Any]] = []
        self.object_retention = True
        self.generations = count(1_700_000_000_000_000)
        self.lock = Lock()
        self.url = ""

    def put(self, name: str, data: bytes, content_type: str = "application/octet-stream") -> Stored:
        """Store an object, or change one behind the adapter's back."""
        self.objects[name] = Stored(name, data, next(self.generations), content_type)
        return self.objects[name]

    def fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method in ("", method) and fault.path in path:
                fault.times -= 1
                return fault
        return None

    def asked(self, pattern: str) -> int:
        """Count the requests so far that match."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)


@contextmanager
def gcs_stub() -> Iterator[GcsStub]:
    """Serve on loopback until the block ends."""
    stub = GcsStub()
    handler = type("BoundHandler", (Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


class Handler(BaseHTTPRequestHandler):
    stub: GcsStub
    protocol_version = "HTTP/1.1"
    wbufsize = 2**20  # one packet an answer: two would wait for each other's acknowledgement

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.stub.requests.append(f"{self.command} {self.path}")
        self.stub.authorizations.append(self.headers.get("Authorization", ""))
        self.fault = self.stub.fault_for(self.command, self.path)
        if self.fault and self.fault.what == "status":
            self.answer(self.fault.status, {"error": {"code": self.fault.status, "message": self.fault.words}})
            return
        if self.fault and self.fault.what == "drop":
            self.close_connection = True
            return
        try:
            with self.stub.lock:
                status, document, headers = self.route(parts.path)
        except Refused as err:
            status, document, headers = err.status, {"error": {"code": err.status, "message": err.message}}, {}
        if self.fault and self.fault.what == "lose":
            self.close_connection = True
            return
        self.answer(status, document, headers)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def answer(
        self, status: int, document: dict[str, Any] | bytes | None, headers: dict[str, str] | None = None
    ) -> None:
        payload = (
            document if isinstance(document, bytes) else b"" if document is None else json.dumps(document).encode()
        )
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if self.fault and isinstance(document, bytes):
            if self.fault.what == "short":
                payload = payload[: self.fault.after]
            if self.fault.what == "cut":
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload[: self.fault.after])
                self.close_connection = True
                return
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def route(self, path: str) -> tuple[int, dict[str, Any] | bytes | None, dict[str, str]]:
        if path == "/token":
            return 200, self.token(dict(parse_qsl(self.body.decode()))), {}
        if acting := re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken", path):
            return 200, self.acting_token(unquote(acting[1]), json.loads(self.body)), {}
        if path == f"/upload/storage/v1/b/{BUCKET}/o":
            return self.upload()
        if path == f"/storage/v1/b/{BUCKET}/o":
            return 200, self.listing(), {}
        rewrite = re.fullmatch(rf"/storage/v1/b/{BUCKET}/o/([^/]+)/rewriteTo/b/{BUCKET}/o/([^/]+)", path)
        if rewrite:
            return 200, self.rewrite(unquote(rewrite[1]), unquote(rewrite[2])), {}
        one = re.fullmatch(rf"(/download)?/storage/v1/b/{BUCKET}/o/([^/]+)", path)
        if not one:
            raise Refused(404, "The specified bucket does not exist.")
        found = self.find(unquote(one[2]))
        if self.command == "GET":
            return self.download(found) if one[1] else (200, found.resource(), {})
        if self.command == "DELETE":
            if found.retention:
                raise Refused(403, "Object is subject to an active retention.")
            self.precondition(found.name)
            del self.stub.objects[found.name]
            return 204, None, {}
        if not self.stub.object_retention:
            raise Refused(400, "The bucket does not have object retention enabled.")
        found.retention = json.loads(self.body)["retention"]
        found.updated = datetime.now(UTC)
        return 200, found.resource(), {}

    def token(self, grant: dict[str, str]) -> dict[str, Any]:
        """Give a token for a service account's signed claim, as Google's token endpoint does."""
        claim = grant["assertion"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claim + "=" * (-len(claim) % 4)))
        self.stub.tokens.append(claims)
        return {"access_token": f"token-of-{claims['iss']}", "expires_in": 3600, "token_type": "Bearer"}

    def acting_token(self, account: str, body: dict[str, Any]) -> dict[str, Any]:
        """Give a token to act as an account, as Google's IAM credentials service does."""
        self.stub.tokens.append({"account": account, "by": self.headers["Authorization"], **body})
        return {"accessToken": f"token-of-{account}", "expireTime": "2099-01-01T00:00:00Z"}

    def find(self, name: str) -> Stored:
        found = self.stub.objects.get(name)
        if found is None or str(found.generation) != self.query.get("generation", str(found.generation)):
            raise Refused(404, f"No such object: {BUCKET}/{name}")
        return found

    def precondition(self, name: str) -> None:
        wanted = self.query.get("ifGenerationMatch")
        found = self.stub.objects.get(name)
        if wanted is not None and int(wanted) != (found.generation if found else 0):
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")

    def listing(self) -> dict[str, Any]:
        prefix, after = self.query.get("prefix", ""), self.query.get("pageToken", "")
        names = sorted(name for name in self.stub.objects if name.startswith(prefix) and name > after)
        page = {"items": [self.stub.objects[name].resource() for name in names[:PAGE]]}
        return page | ({"nextPageToken": names[PAGE - 1]} if len(names) > PAGE else {})

    def rewrite(self, source: str, target: str) -> dict[str, Any]:
        found = self.find(source)
        self.precondition(target)
        done = min(int(self.query.get("rewriteToken", "0")) + REWRITE_BYTES, len(found.data))
        progress = {"totalBytesRewritten": str(done), "objectSize": str(len(found.data))}
        if done < len(found.data):
            return progress | {"done": False, "rewriteToken": str(done)}
        return progress | {"done": True, "resource": self.stub.put(target, found.data, found.content_type).resource()}

    def download(self, found: Stored) -> tuple[int, bytes, dict[str, str]]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return 200, found.data, {}
        start, end = int(match[1]), int(match[2] or len(found.data) - 1)
        if start >= len(found.data):
            raise Refused(416, "The requested range cannot be satisfied.")
        data = found.data[start : end + 1]
        return 206, data, {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{len(found.data)}"}

    def upload(self) -> tuple[int, dict[str, Any] | None, dict[str, str]]:
        if self.command == "POST":
            name = json.loads(self.body)["name"]
            self.precondition(name)
            session = Session(name, self.headers["X-Upload-Content-Type"], self.query.get("ifGenerationMatch") == "0")
            key = str(len(self.stub.sessions))
            self.stub.sessions[key] = session
            return 200, None, {"Location": f"{self.stub.url}{urlsplit(self.path).path}?upload_id={key}"}
        key = self.query["upload_id"]
        if key not in self.stub.sessions:
            raise Refused(410, "The upload session is gone.")
        if self.command == "DELETE":
            del self.stub.sessions[key]
            return 499, None, {}
        return self.chunk(self.stub.sessions[key])

    def chunk(self, session: Session) -> tuple[int, dict[str, Any] | None, dict[str, str]]:
        """Take one chunk; what was persisted already is skipped, as a client may send a chunk again."""
        if session.finished:
            return 200, session.finished.resource(), {}
        match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
        if not match:
            raise Refused(400, "Invalid Content-Range.")
        block = self.body
        if self.fault and self.fault.what == "flip":
            block = bytes([block[0] ^ 1]) + block[1:]
        if self.fault and self.fault.what == "partial":
            block = block[: 256 * 2**10]
        start = int(match[1]) if match[1] else len(session.data)
        if start > len(session.data):
            raise Refused(400, "The chunk leaves a gap.")
        session.data += block[len(session.data) - start :]
        if match[2] == "*" or len(session.data) < int(match[2]):
            return 308, None, {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        stated = re.search(r"crc32c=([^,]+)", self.headers.get("x-goog-hash", ""))
        if stated and stated[1] != crc32c(session.data) and not (self.fault and self.fault.what == "flip"):
            raise Refused(400, "Provided CRC32C does not match the calculated one.")
        if session.create_only and session.name in self.stub.objects:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
        session.finished = self.stub.put(session.name, bytes(session.data), session.content_type)
        return 200, session.finished.resource(), {}


def crc32c(data: bytes | bytearray) -> str:
    return base64.b64encode(google_crc32c.value(bytes(data)).to_bytes(4, "big")).decode()
