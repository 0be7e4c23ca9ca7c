"""Reading and writing objects: create, get, list, update, patch, delete, as the API server does it."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.api.defaults import now, prepare_create, prepare_update
from lab.api.managed import apply, track_update
from lab.api.patch import apply_patch, read_applied
from lab.api.resources import BUILT_IN, CRDS, Resource, custom_resources
from lab.api.selectors import matches_fields, matches_labels
from lab.api.status import ApiError, bad_request, conflict, exists, gone, invalid, not_found, plain, too_large
from lab.api.store import Compacted, Conflict, Store, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 10


@dataclass(frozen=True)
class Listing:
    """What a list request selects."""

    labels: str = ""
    fields: str = ""
    limit: int = 0
    token: str = ""
    revision: int = 0
    not_older_than: int = 0

    def selects(self, obj: dict[str, Any]) -> bool:
        return matches_labels(self.labels, obj) and matches_fields(self.fields, obj)


class Registry:
    """The objects of one cluster."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def resources(self) -> list[Resource]:
        """Return every resource, those of CustomResourceDefinitions included."""
        page = await self.store.list(CRDS.prefix)
        return [*BUILT_IN, *custom_resources(json.loads(item.value) for item in page.items)]

    async def resource(self, api_version: str, plural: str) -> Resource:
        """:raises ApiError: 404 when there is no such resource."""
        for resource in BUILT_IN:
            if (resource.api_version, resource.plural) == (api_version, plural):
                return resource
        for resource in await self.resources():
            if (resource.api_version, resource.plural) == (api_version, plural):
                return resource
        raise plain(404)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        return decode(await self._stored(resource, namespace, name))

    async def list(self, resource: Resource, namespace: str, listing: Listing) -> dict[str, Any]:
        """Return a List object; `continue` tokens hold the revision, so that pages belong together."""
        prefix, revision, after = resource.key(namespace), listing.revision, ""
        if listing.token:
            revision, after = _token(listing.token)
        if listing.not_older_than and listing.not_older_than > (newest := await self.store.revision()):
            raise too_large(listing.not_older_than, newest)
        items: list[dict[str, Any]] = []
        try:
            while True:
                page = await self.store.list(prefix, limit=listing.limit, after=after, revision=revision)
                revision = revision or page.revision
                items += [obj for obj in map(decode, page.items) if listing.selects(obj)]
                after = page.items[-1].key if page.items else ""
                if not page.more or len(items) >= listing.limit:
                    break
        except Compacted as err:
            raise gone("The provided continue parameter is too old to display a consistent list result") from err
        meta: dict[str, Any] = {"resourceVersion": str(revision)}
        if page.more:
            meta["continue"] = base64.b64encode(json.dumps([revision, after]).encode()).decode()
        kind = resource.list_kind or f"{resource.kind}List"
        return {"kind": kind, "apiVersion": resource.api_version, "metadata": meta, "items": items}

    async def create(
        self, resource: Resource, namespace: str, obj: dict[str, Any], *, dry: bool = False, manager: str = ""
    ) -> dict[str, Any]:
        """
        Store a new object.

        :param manager: Who sets its fields; empty where its ``managedFields`` are right already.
        """
        stored = prepare_create(resource, namespace, obj)
        if manager:
            track_update(None, stored, manager, "")
        name = stored["metadata"]["name"]
        if namespace:
            await self._check_namespace(namespace, name, resource)
        key = resource.key(namespace, name)
        if dry:
            if await self.store.get(key):
                raise exists(resource, name)
            return stored
        try:
            revision = await self.store.put(key, encode(stored), revision=0)
        except Conflict as err:
            raise exists(resource, name) from err
        return _with_revision(stored, revision)

    async def update(
        self, resource: Resource, namespace: str, name: str, change: Callable[[dict[str, Any]], dict[str, Any]],
        *, subresource: str = "", dry: bool = False, manager: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """
        Write what `change` makes of the object; when it carries no resourceVersion, over concurrent changes too.

        :raises ApiError: 409 when the object has another resourceVersion than the changed one.
        """
        for _ in range(TRIES):
            item = await self._stored(resource, namespace, name)
            old = decode(item)
            new = change(copy.deepcopy(old))
            claimed = (new.get("metadata") or {}).get("resourceVersion")
            if claimed not in (None, "", str(item.revision)):
                raise conflict(resource, name)
            stored = prepare_update(resource, _without_revision(old), new, subresource)
            if manager and _unmanaged(stored) != _unmanaged(old):
                track_update(old, stored, manager, subresource)
            if stored == _without_revision(old) or dry:
                return _with_revision(stored, item.revision)
            try:
                if stored["metadata"].get("deletionTimestamp") and not _holds(stored):
                    revision = await self.store.delete(item.key, revision=item.revision)
                else:
                    revision = await self.store.put(item.key, encode(stored), revision=item.revision)
            except Conflict:
                continue
            return _with_revision(stored, revision)
        raise conflict(resource, name)

    async def patch(
        self, resource: Resource, namespace: str, name: str, content_type: str, body: bytes,
        *, subresource: str = "", dry: bool = False, manager: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Apply a JSON, merge or strategic merge patch."""

        def change(old: dict[str, Any]) -> dict[str, Any]:
            base = old if b"resourceVersion" in body else _without_revision(old)
            return apply_patch(content_type, body, base)

        return await self.update(resource, namespace, name, change, subresource=subresource, dry=dry, manager=manager)

    async def apply(
        self, resource: Resource, namespace: str, name: str, body: bytes, *, manager: str, force: bool, dry: bool
    ) -> tuple[dict[str, Any], bool]:
        """
        Server-side apply; returns the object and whether it is new.

        :raises ApiError: 409 or 422 when a uid or resourceVersion in `body` is not that of the object.
        """
        wanted = read_applied(body)
        meta = wanted.setdefault("metadata", {})
        if meta.get("name", name) != name:
            raise bad_request("the name of the object does not match the name on the URL")
        uid = meta.get("uid")
        if await self.store.get(resource.key(namespace, name)) is None:
            if uid:
                raise conflict(
                    resource,
                    name,
                    f"uid mismatch: the provided object specified uid {uid}, and no existing object was found",
                )
            return await self.create(resource, namespace, apply(None, wanted, manager, force=force), dry=dry), True

        def change(old: dict[str, Any]) -> dict[str, Any]:
            if uid not in (None, old["metadata"]["uid"]):
                raise invalid(resource, name, "metadata.uid", f'Invalid value: "{uid}": field is immutable')
            return apply(_without_revision(old), wanted, manager, force=force)

        return await self.update(resource, namespace, name, change, dry=dry), False

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """
        Delete an object, or mark it where the kubelet, the namespace's content or a finalizer comes first.

        :return: The object as it was last, and whether it is gone.
        """
        for _ in range(TRIES):
            item = await self._stored(resource, namespace, name)
            obj = decode(item)
            wanted = (options.get("preconditions") or {}).get("uid")
            if wanted and wanted != obj["metadata"]["uid"]:
                raise conflict(resource, name)
            if "All" in (options.get("dryRun") or ()):
                return obj, True
            grace = _grace(resource, obj, options)
            try:
                if grace == 0 and not _holds(obj):
                    revision = await self.store.delete(item.key, revision=item.revision)
                    return _with_revision(_without_revision(obj), revision), True
                if "deletionTimestamp" in obj["metadata"] and grace:
                    return obj, False
                marked = _without_revision(obj)
                marked["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace}
                if resource.kind == "Namespace":
                    marked["status"] = {"phase": "Terminating"}
                revision = await self.store.put(item.key, encode(marked), revision=item.revision)
                return _with_revision(marked, revision), False
            except Conflict:
                continue
        raise conflict(resource, name)

    async def empty_namespace(self, namespace: str) -> None:
        """Delete everything in a namespace, then the namespace: what the namespace controller does."""
        for resource in await self.resources():
            if resource.namespaced:
                for item in (await self.store.list(resource.key(namespace))).items:
                    await self._remove(item)
        itself = await self.store.get(f"/registry/namespaces/{namespace}")
        if itself is not None:
            await self._remove(itself)

    async def _remove(self, item: Stored) -> None:
        for _ in range(TRIES):
            try:
                await self.store.delete(item.key, revision=item.revision)
                return
            except Conflict:
                current = await self.store.get(item.key)
                if current is None:
                    return
                item = current

    async def _stored(self, resource: Resource, namespace: str, name: str) -> Stored:
        item = await self.store.get(resource.key(namespace, name))
        if item is None:
            raise not_found(resource, name)
        return item

    async def _check_namespace(self, namespace: str, name: str, resource: Resource) -> None:
        namespaces = next(one for one in BUILT_IN if one.kind == "Namespace")
        item = await self._stored(namespaces, "", namespace)
        if decode(item)["status"]["phase"] == "Terminating":
            message = f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace {namespace} because it is being terminated'
            raise ApiError(403, "Forbidden", message)


def decode(item: Stored) -> dict[str, Any]:
    """Return the object in a stored value, with its resourceVersion."""
    return _with_revision(json.loads(item.value), item.revision)


def encode(obj: dict[str, Any]) -> bytes:
    """Return an object as the JSON storage media type keeps it."""
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _with_revision(obj: dict[str, Any], revision: int) -> dict[str, Any]:
    meta = obj["metadata"]
    head = {key: meta[key] for key in ("name", "generateName", "namespace", "uid") if key in meta}
    return {**obj, "metadata": {**head, "resourceVersion": str(revision), **meta}}


def _without_revision(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}}


def _unmanaged(obj: dict[str, Any]) -> dict[str, Any]:
    hidden = ("resourceVersion", "managedFields")
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key not in hidden}}


def _holds(obj: dict[str, Any]) -> bool:
    return bool(obj["metadata"].get("finalizers"))


def _grace(resource: Resource, obj: dict[str, Any], options: dict[str, Any]) -> int:
    """Return the seconds that an object's deletion waits for somebody; 0 for none."""
    if resource.kind == "Namespace":
        return 1
    if resource.kind != "Pod" or not obj["spec"].get("nodeName"):
        return 0
    if "kubernetes.io/config.mirror" in obj["metadata"].get("annotations", {}):
        return 0
    wanted = options.get("gracePeriodSeconds")
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30) if wanted is None else wanted)


def _token(token: str) -> tuple[int, str]:
    try:
        revision, after = json.loads(base64.b64decode(token))
    except ValueError as err:
        raise bad_request("continue key is not valid") from err
    return int(revision), str(after)
