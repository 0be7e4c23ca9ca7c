"""The Kubernetes API of one cluster: the few calls that a backup or restore needs, and commands inside pods."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from etcdkeep.adapters.kube.config import open_kubeconfig
from etcdkeep.adapters.kube.errors import Request, not_applied, not_connected, refused
from etcdkeep.adapters.kube.exec import ExecTiming, PodExec
from etcdkeep.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.adapters.kube.connection import KubeConnection
    from etcdkeep.ports import PodRef

__all__ = ["KubeApiClient", "open_kubeconfig"]

PAGE_SIZE = 500
APPLY = "application/apply-patch+yaml"
FIELD_MANAGER = "etcdkeep"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_IN_YAML = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")


class KubeApiClient:
    """
    Reads, writes and execs over a ready connection; implements :class:`~etcdkeep.ports.KubeApi`.

    :param connection: From :func:`open_kubeconfig`.
    """

    def __init__(self, connection: KubeConnection, *, exec_timing: ExecTiming | None = None) -> None:
        self._connection = connection
        self._exec_timing = exec_timing or ExecTiming()

    def get(self, path: str) -> dict[str, Any]:
        """
        GET one path such as ``/api/v1/namespaces/kube-system``.

        :raises NotFound: when there is no such object.
        """
        return self._read(path, {}, "the verb get on this resource")

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        """GET a collection, page by page, as its items; their `apiVersion` and `kind` are filled in."""
        query = {"limit": str(PAGE_SIZE)} | ({"labelSelector": label_selector} if label_selector else {})
        items: list[dict[str, Any]] = []
        while True:
            page = self._read(path, query, "the verb list on this resource")
            kind = str(page.get("kind", "")).removesuffix("List")
            items += ({"apiVersion": page.get("apiVersion"), "kind": kind} | item for item in page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def version(self) -> str:
        """Return the server's ``gitVersion``."""
        return str(self._read("/version", {}, "the path /version")["gitVersion"])

    def exec(self, pod: PodRef) -> PodExec:
        """Return a runner for commands inside that container."""
        return PodExec(self._connection, pod, self._exec_timing)

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        """POST an object to its collection; no error when one of that name is there already."""
        self._write("POST", path, body, "application/json", accepted=(200, 201, 202, 409))

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """PATCH one object, or its `scale`, with a JSON merge patch."""
        self._write("PATCH", path, body, "application/merge-patch+json", accepted=(200, 201))

    def apply(
        self, path: str, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Apply one object on the server's side, as field manager ``etcdkeep``, and return it as it is then."""
        query = {"fieldManager": FIELD_MANAGER} | ({"force": "true"} if force else {})
        query |= {"dryRun": "All"} if dry_run else {}
        request = Request(self._connection, f"PATCH {path}", "the verbs patch and create on this resource")
        response = self._send(
            request, "PATCH", f"{path}?{urlencode(query)}", {"Content-Type": APPLY}, yaml_body(manifest)
        )
        if response.status not in (200, 201):
            raise not_applied(request, response.status, response.data)
        return _document(request, response.data)

    def delete(self, path: str) -> None:
        """DELETE one object; no error when it is gone already."""
        self._write("DELETE", path, None, "application/json", accepted=(200, 202, 404))

    def _write(
        self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str, *, accepted: tuple[int, ...]
    ) -> None:
        request = Request(self._connection, f"{method} {path}", f"the verb {VERBS[method]} on this resource")
        data = None if body is None else json.dumps(body).encode()
        response = self._send(request, method, path, {"Content-Type": content_type}, data)
        if response.status not in accepted:
            raise refused(request, response.status, response.data)

    def _send(
        self, request: Request, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", **headers}
        try:
            return self._connection.request(method, target, headers, body)
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise not_connected(request, err) from err

    def _read(self, path: str, query: Mapping[str, str], permission: str) -> dict[str, Any]:
        request = Request(self._connection, f"GET {path}", permission)
        response = self._send(request, "GET", path + (f"?{urlencode(query)}" if query else ""), {})
        if response.status != 200:
            raise refused(request, response.status, response.data)
        return _document(request, response.data)


def yaml_body(manifest: Mapping[str, Any]) -> bytes:
    """
    Return an object as JSON that a YAML reader takes for the same: the server reads every applied body as YAML.

    YAML has no surrogate pairs, and wants escapes for control characters and line breaks that JSON lets stand.
    """
    text = _LONE_SURROGATE.sub("\ufffd", json.dumps(manifest, ensure_ascii=False))
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _document(request: Request, data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError) as err:
        said = request.connection.hide(repr(data[:100]))
        raise Unreachable(f"{request.where}: the answer is not JSON: {said}. Is there a proxy in between?") from err
