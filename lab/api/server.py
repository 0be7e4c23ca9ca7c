"""The HTTPS side: who is asking, what for, and the answer in the form that was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.api import discovery, rbac
from lab.api.body import read_body
from lab.api.exec import choose_container, exec_request, serve_exec
from lab.api.patch import APPLY
from lab.api.registry import Listing, Registry, decode
from lab.api.resources import SCALABLE, Resource
from lab.api.status import ApiError, bad_request, gone, internal, plain
from lab.api.store import Change, Compacted, StoreError
from lab.api.tables import table
from lab.faults import FaultFile
from lab.runtime import find_container

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lab.layout import Layout, Node

OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_OBJECT = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<api_version>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
_NAMESPACE = re.compile(r"/api/(?P<core>v1)/(?P<plural>namespaces)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status|finalize))?")


@dataclass(frozen=True)
class Target:
    """The object, collection or subresource that a path names."""

    resource: Resource
    namespace: str
    name: str
    sub: str


class ApiServer:
    """One API server process of one cluster."""

    def __init__(self, registry: Registry, layout: Layout, cluster: str, address: str) -> None:
        self.registry = registry
        self.faults = FaultFile(layout.root)
        self.cluster = cluster
        self.address = address
        self.nodes = {node.name: node for node in layout.nodes if node.cluster == cluster}
        self.ready = False
        self._background: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn errors into Status objects, after the faults and the question who is asking."""
        try:
            await self._spoil(request)
            self._authenticate(request)
            return await handler(request)
        except ApiError as err:
            headers = {"Retry-After": str(err.retry_after_s)} if err.retry_after_s is not None else {}
            return web.json_response(err.status(), status=err.code, headers=headers)
        except StoreError as err:
            status = ApiError(500, "", str(err)).status()
            return web.json_response(status, status=500)

    async def _spoil(self, request: web.Request) -> None:
        subject = f"{request.method} {request.path_qs}"
        slow = self.faults.take("api", self.cluster, subject, "slow")
        if slow is not None:
            await asyncio.sleep(slow.value)
        fault = self.faults.take("api", self.cluster, subject, "status")
        if fault is None:
            return
        code, retry_after_s = fault.value
        if code == 0 and request.transport is not None:
            request.transport.abort()
        error = plain(code)
        error.retry_after_s = retry_after_s
        raise error

    def _authenticate(self, request: web.Request) -> None:
        """A certificate of the cluster's CA is let in; RBAC is asked for service accounts alone."""
        certificate = request.get_extra_info("peercert")
        if certificate:
            if ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
                raise ApiError(401, "Unauthorized", "Unauthorized")
            return
        if request.headers.get("Authorization"):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if request.path.rstrip("/") not in OPEN_PATHS:
            verb = request.method.lower()
            message = f'forbidden: User "system:anonymous" cannot {verb} path "{request.path}"'
            raise ApiError(403, "Forbidden", message, {})

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path in ("/healthz", "/livez", "/readyz"):
            await self.registry.store.revision()
            if path == "/readyz" and not self.ready:
                raise ApiError(500, "", "[-]poststarthook/start-system-namespaces-controller failed: not finished")
            return web.Response(text="ok")
        if path == "/version":
            return web.json_response(discovery.VERSION)
        document = await self._discovery(path)
        if document is not None:
            return web.json_response(document)
        target = await self._target(path)
        await self._authorize(request, target)
        if target.sub:
            return await self._subresource(request, target)
        if target.name:
            return await self._object(request, target)
        return await self._collection(request, target)

    async def _authorize(self, request: web.Request, target: Target) -> None:
        certificate = request.get_extra_info("peercert") or {}
        names = {key: value for part in certificate.get("subject", ()) for key, value in part}
        what = target.resource.plural + (f"/{target.sub}" if target.sub else "")
        watches = request.query.get("watch") in ("true", "1")
        for verb in rbac.verbs(request.method, target.name, target.sub, watches=watches):
            question = rbac.Question(verb, target.resource.group, what, target.namespace, target.name)
            await rbac.check(self.registry, names.get("commonName", ""), question)

    async def _discovery(self, path: str) -> dict[str, Any] | None:
        if path == "/api":
            return discovery.api_versions(self.address)
        if path == "/openapi/v3":
            return discovery.openapi_index(await self.registry.resources())
        if path.startswith("/openapi/v3/"):
            return discovery.openapi(await self.registry.resources(), path.removeprefix("/openapi/v3/"))
        if path == "/apis":
            return discovery.group_list(await self.registry.resources())
        found = re.fullmatch(r"/api/(v1)|/apis/([^/]+)(?:/([^/]+))?", path)
        if not found:
            return None
        resources = await self.registry.resources()
        if found[2] and not found[3]:
            if found[2] not in {resource.group for resource in resources}:
                raise plain(404)
            return {"kind": "APIGroup", "apiVersion": "v1"} | discovery.group(resources, found[2])
        api_version = found[1] or f"{found[2]}/{found[3]}"
        if api_version not in {resource.api_version for resource in resources}:
            raise plain(404)
        return discovery.resource_list(resources, api_version)

    async def _target(self, path: str) -> Target:
        found = _NAMESPACE.fullmatch(path) or _OBJECT.fullmatch(path)
        if not found:
            raise plain(404)
        parts = found.groupdict()
        resource = await self.registry.resource(parts["core"] or parts["api_version"], parts["plural"])
        return Target(resource, parts.get("namespace") or "", parts["name"] or "", parts["sub"] or "")

    async def _collection(self, request: web.Request, target: Target) -> web.StreamResponse:
        query = request.query
        listing = Listing(
            query.get("labelSelector", ""), query.get("fieldSelector", ""), int(query.get("limit", 0)),
            query.get("continue", ""), *_revisions(query),
        )  # fmt: skip
        if request.method == "GET" and query.get("watch") in ("true", "1"):
            return await self._watch(request, target, listing)
        if request.method == "GET":
            found = await self.registry.list(target.resource, target.namespace, listing)
            return self._answer(request, target.resource, found)
        if request.method == "POST":
            body = read_body(await request.read())
            created = await self.registry.create(
                target.resource, target.namespace, body, dry="dryRun" in query, manager=_manager(request)
            )
            return self._answer(request, target.resource, created, 201)
        if request.method == "DELETE":
            found = await self.registry.list(target.resource, target.namespace, listing)
            options = read_body(await request.read())
            for item in found["items"]:
                meta = item["metadata"]
                with contextlib.suppress(ApiError):
                    await self._delete(target.resource, meta.get("namespace", ""), meta["name"], options)
            return web.json_response(found)
        raise plain(405)

    async def _object(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, namespace, name = target.resource, target.namespace, target.name
        dry = "dryRun" in request.query
        if request.method == "GET":
            return self._answer(request, resource, await self.registry.get(resource, namespace, name))
        if request.method == "PUT":
            body = read_body(await request.read())
            updated = await self.registry.update(
                resource, namespace, name, lambda _: body, dry=dry, manager=_manager(request)
            )
            return self._answer(request, resource, updated)
        if request.method == "PATCH":
            patched, new = await self._patched(request, target, dry=dry)
            return self._answer(request, resource, patched, 201 if new else 200)
        if request.method == "DELETE":
            options = read_body(await request.read())
            if "gracePeriodSeconds" in request.query:
                options["gracePeriodSeconds"] = int(request.query["gracePeriodSeconds"])
            last, gone_now = await self._delete(resource, namespace, name, options)
            if not gone_now or resource.kind == "Pod":
                return web.json_response(last)
            details = {"name": name, "kind": resource.plural, "uid": last["metadata"]["uid"]}
            return web.json_response(
                {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            )
        raise plain(405)

    async def _patched(self, request: web.Request, target: Target, *, dry: bool) -> tuple[dict[str, Any], bool]:
        where, body, manager = (target.resource, target.namespace, target.name), await request.read(), _manager(request)
        if request.content_type == APPLY:
            if not request.query.get("fieldManager"):
                raise bad_request("PatchOptions is invalid: fieldManager: Required value: is required for apply patch")
            force = request.query.get("force") == "true"
            return await self.registry.apply(*where, body, manager=manager, force=force, dry=dry)
        return await self.registry.patch(*where, request.content_type, body, dry=dry, manager=manager), False

    async def _delete(
        self, resource: Resource, namespace: str, name: str, options: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        result = await self.registry.delete(resource, namespace, name, options)
        if resource.kind == "Namespace":
            task = asyncio.create_task(self.registry.empty_namespace(name))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return result

    async def _subresource(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource, namespace, name, sub = target.resource, target.namespace, target.name, target.sub
        if resource.kind == "Pod" and sub in ("exec", "log"):
            return await self._pod_stream(request, target)
        if sub in ("status", "finalize"):
            return await self._written(request, target, "status")
        if sub == "scale" and resource.plural in SCALABLE:
            if request.method != "GET":
                content = request.content_type if request.method == "PATCH" else "application/merge-patch+json"
                wanted = read_body(await request.read()) if content != "application/json-patch+json" else {}
                replicas = wanted.get("spec", {}).get("replicas", 0)
                await self.registry.update(
                    resource, namespace, name, lambda old: _scaled(old, replicas), manager=_manager(request)
                )
            return web.json_response(_scale(await self.registry.get(resource, namespace, name)))
        raise plain(404)

    async def _written(self, request: web.Request, target: Target, sub: str) -> web.StreamResponse:
        where = target.resource, target.namespace, target.name
        if request.method == "GET":
            return self._answer(request, target.resource, await self.registry.get(*where))
        if request.method == "PATCH":
            body = await request.read()
            result = await self.registry.patch(
                *where, request.content_type, body, subresource=sub, manager=_manager(request)
            )
        else:
            new = read_body(await request.read())
            result = await self.registry.update(*where, lambda _: new, subresource=sub, manager=_manager(request))
        return self._answer(request, target.resource, result)

    async def _pod_stream(self, request: web.Request, target: Target) -> web.StreamResponse:
        pod = await self.registry.get(target.resource, target.namespace, target.name)
        container = choose_container(pod, request.query.get("container", ""))
        node = self.nodes.get(pod["spec"].get("nodeName", ""))
        if node is None:
            raise bad_request(f"pod {target.name} does not have a host assigned")
        state = find_container(node, target.namespace, target.name, container)
        if target.sub == "exec":
            wanted = exec_request(node, request.query, state, container)
            return await serve_exec(request, wanted, self.faults)
        if state is None:
            raise bad_request(f'container "{container}" in pod "{target.name}" is waiting to start')
        return web.Response(text=_log(node, state.folder, request.query.get("tailLines")))

    async def _watch(self, request: web.Request, target: Target, listing: Listing) -> web.StreamResponse:
        """Stream changes from ``resourceVersion`` on; without one, the present objects come first."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        start = int(request.query.get("resourceVersion") or 0)
        present: list[dict[str, Any]] = []
        wants_initial = request.query.get("sendInitialEvents") == "true"
        if not start or wants_initial:
            found = await self.registry.list(target.resource, target.namespace, Listing(listing.labels, listing.fields))
            present, start = found["items"], int(found["metadata"]["resourceVersion"])
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            for obj in present:
                await self._event(request, response, target.resource, "ADDED", obj)
            if wants_initial:
                await self._bookmark(response, target.resource, start)
            timeout = float(request.query.get("timeoutSeconds") or 1800)
            async with asyncio.timeout(timeout):
                await self._changes(request, response, target, listing, start + 1)
        return response

    async def _changes(
        self, request: web.Request, response: web.StreamResponse, target: Target, listing: Listing, start: int
    ) -> None:
        try:
            async for changes in self.registry.store.watch(target.resource.key(target.namespace), start):
                for change in changes:
                    kind, obj = _visible(change, listing)
                    if kind:
                        await self._event(request, response, target.resource, kind, obj)
        except Compacted:
            status = gone(f"too old resource version: {start - 1}").status()
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        except StoreError as err:
            status = internal(str(err)).status()
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")

    async def _bookmark(self, response: web.StreamResponse, resource: Resource, revision: int) -> None:
        """Say that all present objects have been sent."""
        meta = {"resourceVersion": str(revision), "annotations": {"k8s.io/initial-events-end": "true"}}
        obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        await response.write(json.dumps({"type": "BOOKMARK", "object": obj}).encode() + b"\n")

    async def _event(
        self, request: web.Request, response: web.StreamResponse, resource: Resource, kind: str, obj: dict[str, Any]
    ) -> None:
        if _wants_table(request):
            obj = table(resource, [obj], request.query.get("includeObject", "Metadata"))
        await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def _answer(self, request: web.Request, resource: Resource, obj: dict[str, Any], code: int = 200) -> web.Response:
        if _wants_table(request) and request.method == "GET":
            items = obj.get("items", [obj])
            answer = table(resource, items, request.query.get("includeObject", "Metadata"))
            answer["metadata"] = {
                key: obj["metadata"][key] for key in ("resourceVersion", "continue") if key in obj["metadata"]
            }
            obj = answer
        return web.json_response(obj, status=code)


def _wants_table(request: web.Request) -> bool:
    return "as=Table" in request.headers.get("Accept", "").split(",")[0]


def _revisions(query: Any) -> tuple[int, int]:
    """Return the revision that a list is wanted at exactly, and the one that it may not be older than; 0 for none."""
    revision = int(query.get("resourceVersion") or 0)
    return (revision, 0) if query.get("resourceVersionMatch") == "Exact" else (0, revision)


def _manager(request: web.Request) -> str:
    """Return who sets fields: as the client says, else its program's name."""
    program = request.headers.get("User-Agent", "unknown").partition("/")[0]
    return request.query.get("fieldManager") or program


def _visible(change: Change, listing: Listing) -> tuple[str, dict[str, Any]]:
    """Return how a change looks through a selector: an object that no longer matches counts as deleted."""
    before = decode(change.previous) if change.previous else None
    after = decode(change.current) if change.current else None
    was = before is not None and listing.selects(before)
    if after is not None and listing.selects(after):
        return ("MODIFIED" if was else "ADDED"), after
    if was and before is not None:
        before["metadata"]["resourceVersion"] = str(change.revision)
        return "DELETED", before
    return "", {}


def _scaled(obj: dict[str, Any], replicas: int) -> dict[str, Any]:
    obj["spec"]["replicas"] = replicas
    return obj


def _scale(obj: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {key: obj["metadata"][key] for key in kept},
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0)},
    }  # fmt: skip


def _log(node: Node, folder: str, tail: str | None) -> str:
    lines = (node.real(folder) / "log").read_text(errors="replace").splitlines(keepends=True)
    return "".join(lines[-int(tail) :] if tail else lines)
