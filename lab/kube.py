"""The lab's own client of the Kubernetes API: what its kubelets and control loops use."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from pathlib import Path

REQUEST_S = 10
RELIST_S = 0.2


class KubeError(Exception):
    """The API refused, or did not answer (code 0)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Kube:
    """
    One API server, one client certificate.

    :param stem: ``<stem>.crt`` and ``<stem>.key`` are the client's.
    :param agent: The program that it plays; owner of the fields that it sets.
    """

    def __init__(self, server: str, ca: Path, stem: Path, agent: str) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_S),
            headers={"User-Agent": agent},
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        return await self._call("GET", path, query)

    async def create(self, path: str, obj: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, {}, obj)

    async def merge(self, path: str, patch: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self._call("PATCH", path, {}, patch, headers)

    async def replace(self, path: str, obj: dict[str, Any]) -> dict[str, Any]:
        return await self._call("PUT", path, {}, obj)

    async def delete(self, path: str, *, grace_s: int | None = None, uid: str = "") -> None:
        options: dict[str, Any] = {}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._call("DELETE", path, {}, options)

    async def ensure(self, path: str, obj: dict[str, Any]) -> None:
        """Create an object unless it exists."""
        try:
            await self.create(path, obj)
        except KubeError as err:
            if err.code != 409:
                raise

    async def ready(self) -> bool:
        try:
            async with self._session.get(f"{self.server}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _call(
        self, method: str, path: str, query: dict[str, str], body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method, self.server + path, params=query, data=data, headers=headers
            ) as response:
                answer = json.loads(await response.read() or b"{}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as err:
            raise KubeError(0, f"{method} {path}: {err!r}") from err
        if response.status >= 400:
            raise KubeError(response.status, f"{method} {path}: {answer.get('message')}")
        return answer


class Informer:
    """
    A collection kept up to date by list and watch; through an outage it stands as it was last.

    :param changed: Set at every change; whoever waits for it clears it.
    """

    def __init__(self, kube: Kube, path: str, changed: asyncio.Event, **query: str) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.synced = False
        self._kube = kube
        self._path = path
        self._query = query
        self._changed = changed

    async def run(self) -> None:
        while True:
            try:
                listing = await self._kube.get(self._path, **self._query)
                self.items = {_key(item): _typed(listing, item) for item in listing["items"]}
                self.synced = True
                self._changed.set()
                await self._watch(listing["metadata"]["resourceVersion"])
            except (KubeError, aiohttp.ClientError, TimeoutError, OSError, ValueError):
                pass
            self.synced = False
            await asyncio.sleep(RELIST_S)

    async def _watch(self, revision: str) -> None:
        query = {"watch": "true", "resourceVersion": revision, **self._query}
        endless = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S)
        session = self._kube._session
        async with session.get(self._kube.server + self._path, params=query, timeout=endless) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    if event["type"] == "BOOKMARK":
                        continue
                    if event["type"] == "DELETED":
                        self.items.pop(_key(event["object"]), None)
                    else:
                        self.items[_key(event["object"])] = event["object"]
                    self._changed.set()


def _key(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _typed(listing: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    kind = listing["kind"].removesuffix("List")
    return {"kind": kind, "apiVersion": listing["apiVersion"], **item}
