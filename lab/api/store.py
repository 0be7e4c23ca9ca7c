"""Objects in etcd, over its gRPC gateway: one key per object, its resourceVersion is the key's mod revision."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

REQUEST_S = 60
CONNECT_S = 5


class StoreError(Exception):
    """etcd did not answer, or answered with an error."""


class Conflict(Exception):
    """The key changed since it was read, or is already there."""


class Compacted(Exception):
    """The revision asked for is gone."""


@dataclass(frozen=True)
class Stored:
    """One key and its value."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True)
class Page:
    """One answer to a range request."""

    items: tuple[Stored, ...]
    revision: int
    more: bool
    count: int


@dataclass(frozen=True)
class Change:
    """One event of a watch; `current` is None for a deletion, `previous` for a creation."""

    revision: int
    current: Stored | None
    previous: Stored | None


class Store:
    """A client of one etcd cluster."""

    def __init__(self, endpoints: list[str], tls: ssl.SSLContext) -> None:
        self._endpoints = endpoints
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S),
            json_serialize=json.dumps,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, key: str) -> Stored | None:
        page = await self._range({"key": _b64(key)})
        return page.items[0] if page.items else None

    async def list(self, prefix: str, *, limit: int = 0, after: str = "", revision: int = 0) -> Page:
        """
        Read the keys below `prefix` in order.

        :param after: Start behind this key.
        :param revision: Read the state at that revision; 0 for now.
        :raises Compacted: when that revision is gone.
        """
        start = after + "\0" if after else prefix
        request = {"key": _b64(start), "range_end": _b64(_prefix_end(prefix)), "limit": limit, "revision": revision}
        return await self._range(request)

    async def revision(self) -> int:
        return (await self._range({"key": _b64("\0"), "count_only": True})).revision

    async def put(self, key: str, value: bytes, *, revision: int) -> int:
        """
        Write a key that still has `revision` (0: that does not exist) and return its new revision.

        :raises Conflict: when it changed meanwhile.
        """
        return await self._transact(key, revision, {"request_put": {"key": _b64(key), "value": _b64(value)}})

    async def delete(self, key: str, *, revision: int) -> int:
        """Delete a key that still has `revision`; raises :class:`Conflict` otherwise."""
        return await self._transact(key, revision, {"request_delete_range": {"key": _b64(key)}})

    async def compact(self, revision: int) -> None:
        try:
            await self._post("/v3/kv/compaction", {"revision": revision})
        except Compacted:
            return

    async def watch(self, prefix: str, start: int) -> AsyncIterator[tuple[Change, ...]]:
        """Yield the changes below `prefix` from revision `start` on; an empty tuple once it is set up."""
        request = {
            "create_request": {
                "key": _b64(prefix), "range_end": _b64(_prefix_end(prefix)), "start_revision": start, "prev_kv": True,
            }
        }  # fmt: skip
        endless = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        try:
            async with self._session.post(f"{self._endpoints[0]}/v3/watch", json=request, timeout=endless) as response:
                async for line in _lines(response.content):
                    result = json.loads(line).get("result", {})
                    if result.get("compact_revision"):
                        raise Compacted
                    if result.get("canceled"):
                        raise StoreError(f"watch canceled: {result.get('cancel_reason')}")
                    yield tuple(_change(event) for event in result.get("events", ()))
        except (TimeoutError, aiohttp.ClientError, OSError) as err:
            raise StoreError(str(err)) from err

    async def _range(self, request: dict[str, Any]) -> Page:
        answer = await self._post("/v3/kv/range", request)
        items = tuple(_stored(kv) for kv in answer.get("kvs", ()))
        return Page(items, _revision(answer), answer.get("more", False), int(answer.get("count", 0)))

    async def _transact(self, key: str, revision: int, operation: dict[str, Any]) -> int:
        compare = {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}
        answer = await self._post("/v3/kv/txn", {"compare": [compare], "success": [operation]})
        if not answer.get("succeeded"):
            raise Conflict(key)
        return _revision(answer)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        failure: Exception | None = None
        for endpoint in self._endpoints:
            try:
                async with self._session.post(endpoint + path, json=body) as response:
                    answer = await response.json(content_type=None)
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as err:
                failure = err
                continue
            if response.status == 200:
                return answer
            message = answer.get("message") or answer.get("error") or response.reason
            if "compacted" in str(message):
                raise Compacted(message)
            failure = StoreError(message)
        raise StoreError(f"etcdserver: {str(failure) or 'request timed out'}")


def _stored(kv: dict[str, Any]) -> Stored:
    value = base64.b64decode(kv.get("value", ""))
    return Stored(base64.b64decode(kv["key"]).decode(), value, int(kv.get("mod_revision", 0)))


def _change(event: dict[str, Any]) -> Change:
    current = _stored(event["kv"])
    previous = _stored(event["prev_kv"]) if event.get("prev_kv") else None
    return Change(current.revision, None if event.get("type") == "DELETE" else current, previous)


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split on newlines without aiohttp's limit on the length of a line."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line


def _prefix_end(prefix: str) -> bytes:
    data = prefix.encode()
    return data[:-1] + bytes([data[-1] + 1])


def _b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()
