"""
The object store: the GCS emulator, behind a proxy that keeps the promises the emulator only accepts.

``python -m lab.gcs DIR``. The emulator ignores ``ifGenerationMatch`` on resumable uploads, copies, rewrites, composes,
reads and deletes; the proxy asks it for the object's generation first and answers 412 itself. It is also where the
store's faults are.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import urllib.parse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yarl
from aiohttp import web

from lab.faults import Fault, FaultFile
from lab.layout import BUCKET, LOOPBACK, Layout
from lab.tools import gcs_emulator

CHUNK_BYTES = 256 * 1024
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "host"}
_OBJECT = r"/b/(?P<bucket>[^/]+)/o/(?P<object>[^/]+)"
_COPY = re.compile(rf"{_OBJECT}/(?:rewriteTo|copyTo)/b/(?P<to_bucket>[^/]+)/o/(?P<to_object>[^/]+)$")
_COMPOSE = re.compile(rf"{_OBJECT}/compose$")
_ONE = re.compile(rf"{_OBJECT}$")
_UPLOAD = re.compile(r"^/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o")


@dataclass(frozen=True)
class Condition:
    """What a request demands of one object's generation; None for no demand, generation 0 for "does not exist"."""

    name: str
    match: int | None
    not_match: int | None


class Proxy:
    """One store."""

    def __init__(self, layout: Layout) -> None:
        self._backend = f"http://{LOOPBACK}:{layout.ports['gcs_backend']}"
        self._public = layout.gcs_url
        self._faults = FaultFile(layout.root)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._uploads: dict[str, Condition] = {}

    async def close(self) -> None:
        await self._session.close()

    async def prepare(self) -> None:
        """Wait for the emulator and make the bucket."""
        while True:
            try:
                async with self._session.post(
                    f"{self._backend}/storage/v1/b?project=lab", json={"name": BUCKET}
                ) as response:
                    if response.status in (200, 409):
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._faults.take("gcs", "", f"{request.method} {urllib.parse.unquote(request.path_qs)}")
        if fault is not None and fault.action == "slow":
            await asyncio.sleep(fault.value)
        if fault is not None and fault.action == "status":
            return _error(fault.value, "the lab was told to fail")
        conditions = self._conditions(request, await self._new_name(request))
        if not conditions:
            return await self._forward(request, fault)
        async with self._locks[conditions[0].name]:
            for condition in conditions:
                problem = await self._violated(condition)
                if problem:
                    return problem
            return await self._forward(request, fault, conditions)

    async def _new_name(self, request: web.Request) -> str:
        """Return the name of a resumable upload that begins; it is in the query or in the body."""
        if request.query.get("uploadType") != "resumable" or "upload_id" in request.query:
            return ""
        try:
            return request.query.get("name") or str((await request.json())["name"])
        except (ValueError, KeyError):
            return ""

    def _conditions(self, request: web.Request, new_name: str) -> list[Condition]:
        """Return the demands of a request; a resumable upload's are remembered and hold for each of its parts."""
        raw, query = request.rel_url.raw_path, request.query
        upload = _UPLOAD.match(raw)
        if upload:
            if "upload_id" in query:
                kept = self._uploads.get(query["upload_id"])
                return [kept] if kept else []
            name = new_name or query.get("name")
            return _demands(f"{upload['bucket']}/{name}", query) if name else []
        copy = _COPY.search(raw)
        if copy:
            source, target = f"{copy['bucket']}/{copy['object']}", f"{copy['to_bucket']}/{copy['to_object']}"
            return _demands(_plain(target), query) + _demands(_plain(source), query, "Source")
        one = _COMPOSE.search(raw) or _ONE.search(raw)
        return _demands(_plain(f"{one['bucket']}/{one['object']}"), query) if one else []

    async def _violated(self, condition: Condition) -> web.Response | None:
        generation = await self._generation(condition.name)
        if condition.match is not None and generation != condition.match:
            return _error(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")
        if condition.not_match is not None and generation == condition.not_match:
            return web.Response(status=304)
        return None

    async def _generation(self, name: str) -> int:
        bucket, _, key = name.partition("/")
        url = f"{self._backend}/storage/v1/b/{bucket}/o/{urllib.parse.quote(key, safe='')}"
        async with self._session.get(yarl_raw(url)) as response:
            return int((await response.json())["generation"]) if response.status == 200 else 0

    async def _forward(
        self, request: web.Request, fault: Fault | None, conditions: list[Condition] | None = None
    ) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_HEADERS}
        if request.content_length is not None:
            headers["Content-Length"] = str(request.content_length)
        body = self._request_body(request, fault) if request.body_exists else None
        url = yarl_raw(self._backend + request.raw_path)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                if conditions and "upload_id" not in request.query:
                    self._remember(answer, conditions[0])
                return await self._reply(request, answer, fault)
        except (aiohttp.ClientError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)

    async def _request_body(self, request: web.Request, fault: Fault | None) -> Any:
        passed = 0
        if request.content.at_eof():
            yield await request.read()
            return
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            passed += len(chunk)
            if fault is not None and fault.action == "cut-upload" and passed > fault.after:
                raise ConnectionError("the lab was told to cut this upload")
            yield chunk

    def _remember(self, answer: aiohttp.ClientResponse, condition: Condition) -> None:
        location = urllib.parse.urlsplit(answer.headers.get("Location", ""))
        for upload_id in urllib.parse.parse_qs(location.query).get("upload_id", ()):
            self._uploads[upload_id] = condition

    async def _reply(
        self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> web.StreamResponse:
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_HEADERS}
        if "Location" in headers:
            headers["Location"] = headers["Location"].replace(self._backend, self._public)
        response = web.StreamResponse(status=answer.status, headers=headers)
        length = answer.headers.get("Content-Length")
        if length is not None:
            shorter = fault is not None and fault.action == "truncate" and int(length) > fault.after
            response.content_length = fault.after if shorter and fault is not None else int(length)
        await response.prepare(request)
        passed = 0
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            if fault is not None and fault.action in ("cut", "truncate", "corrupt"):
                chunk, ends = _spoil(chunk, passed, fault)
                await response.write(chunk)
                if ends and fault.action == "cut" and request.transport is not None:
                    request.transport.abort()
                if ends:
                    return response
            else:
                await response.write(chunk)
            passed += len(chunk)
        await response.write_eof()
        return response


def _spoil(chunk: bytes, passed: int, fault: Fault) -> tuple[bytes, bool]:
    """Return what still goes out of a piece of an answer, and whether that is the end."""
    room = fault.after - passed
    if room < 0 or len(chunk) <= room:
        return chunk, False
    if fault.action == "corrupt":
        return chunk[:room] + bytes([chunk[room] ^ 0x01]) + chunk[room + 1 :], False
    return chunk[:room], True


def _demands(name: str, query: Any, side: str = "") -> list[Condition]:
    match, not_match = query.get(f"if{side}GenerationMatch"), query.get(f"if{side}GenerationNotMatch")
    if match is None and not_match is None:
        return []
    return [Condition(name, None if match is None else int(match), None if not_match is None else int(not_match))]


def _plain(quoted: str) -> str:
    return urllib.parse.unquote(quoted)


def yarl_raw(url: str) -> yarl.URL:
    """Return a URL whose quoting is left as it is: an object's name is one quoted part of the path."""
    return yarl.URL(url, encoded=True)


def _error(code: int, message: str, reason: str = "backendError") -> web.Response:
    body = {"error": {"code": code, "message": message, "errors": [{"message": message, "reason": reason}]}}
    return web.json_response(body, status=code)


def start_emulator(layout: Layout) -> subprocess.Popen[bytes]:
    """Start the emulator; its log goes to a file, since a pipe that nobody drains blocks it."""
    with open(layout.root / "run/fake-gcs-server.log", "wb") as log:
        return subprocess.Popen(
            [
                str(gcs_emulator()), "-scheme", "http", "-host", LOOPBACK, "-port", str(layout.ports["gcs_backend"]),
                "-backend", "filesystem", "-filesystem-root", str(layout.root / "gcs"), "-log-level", "error",
                "-external-url", layout.gcs_url, "-public-host", f"{LOOPBACK}:{layout.ports['gcs']}",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


async def main(root: Path) -> None:
    layout = Layout.load(root)
    emulator = start_emulator(layout)
    try:
        proxy = Proxy(layout)
        await proxy.prepare()
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, layout.ports["gcs"]).start()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
        await runner.cleanup()
        await proxy.close()
    finally:
        emulator.terminate()
        emulator.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
