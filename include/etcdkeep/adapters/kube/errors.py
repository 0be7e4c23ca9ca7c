"""What a Kubernetes API server or the way to it says no with, in our own errors."""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.kube.connection import certificate_expiry
from etcdkeep.adapters.kube.dial import ProxyFailed
from etcdkeep.control_plane.pem import PemError
from etcdkeep.errors import (
    AccessDenied,
    EtcdkeepError,
    FieldsOwned,
    LiveChanged,
    NotFound,
    NotServed,
    ObjectRefused,
    ServerUntrusted,
    Unreachable,
)

if TYPE_CHECKING:
    from etcdkeep.adapters.kube.connection import KubeConnection

MAX_SHOWN = 500
_MISSING_PERMISSION = re.compile(r'cannot \w+ (resource|path) "')
"""How RBAC words it; another 403 is a denial by quota, policy or webhook."""
_ADMISSION = re.compile(r"admission webhook|failed calling webhook|ValidatingAdmissionPolicy")
_OTHER_SCHEMA = "failed to create typed patch object"


@dataclass(frozen=True)
class Request:
    """
    A request, for messages.

    :param text: What was asked, such as ``GET /api/v1/nodes``.
    :param permission: What the account must be allowed, such as ``get on this resource``.
    """

    connection: KubeConnection
    text: str
    permission: str

    @property
    def where(self) -> str:
        """The request and its server."""
        return f"{self.text} on {self.connection.where}"

    def message(self, body: bytes | None) -> str:
        """Return what the server's answer says, without what it repeats of our secrets."""
        return self.connection.hide(_message(body))


def refused(request: Request, code: int, body: bytes | None) -> EtcdkeepError:
    """Translate an HTTP status other than success; `body` is the server's Status object or a proxy's page."""
    said = f"{request.where}: HTTP {code}: {request.message(body)}"
    if code == 401:
        return AccessDenied(f"{said}. {_why_unauthenticated(request.connection)}")
    if code == 403:
        return AccessDenied(
            f"{said}. Allow the kubeconfig's account {request.permission} (docs/acceptance.md lists all it needs); "
            "while etcd is failing, even an administrator may get this answer: then retry."
        )
    if code == 404:
        return NotFound(f"{said}. Check the name and the namespace in the cluster's configuration.")
    if code in (409, 410, 429) or code >= 500 or code < 400 or "does not have a host assigned" in said:
        return Unreachable(f"{said}. The API server cannot answer this now. Retry later.")
    return NotFound(f"{said}. Check the names in the cluster's configuration.")


def not_applied(request: Request, code: int, body: bytes | None) -> EtcdkeepError:
    """Translate what a server-side apply was refused with."""
    status = _status(body)
    message = request.message(body)
    causes = (status.get("details") or {}).get("causes") or []
    said = f"{request.where}: HTTP {code}: {message}"
    if code == 409:
        owned = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
        if not owned:
            return LiveChanged(f"{said}. The object has changed since it was read. Read it again.")
        managers = dict.fromkeys(str(cause.get("message", "")).partition('"')[2].partition('"')[0] for cause in owned)
        fields = tuple(str(cause.get("field", "")) for cause in owned)
        return FieldsOwned(f"{said}.", managers=tuple(managers), fields=fields)
    if code == 422 and any(cause.get("field") == "metadata.uid" for cause in causes):
        return LiveChanged(f"{said}. The object was recreated since it was read. Read it again.")
    fields = tuple(str(cause.get("field")) for cause in causes if cause.get("field"))
    by_admission = (code == 403 and not _MISSING_PERMISSION.search(message)) or _ADMISSION.search(message) is not None
    if by_admission or code in (400, 422) or (code == 500 and _OTHER_SCHEMA in message):
        return ObjectRefused(f"{said}.", by_admission=by_admission, fields=fields)
    if code == 404 and not (status.get("details") or {}).get("name"):
        return NotServed(
            f"{said}. This cluster does not serve this kind. Check that its CustomResourceDefinition exists."
        )
    return refused(request, code, body)


def not_connected(request: Request, err: BaseException) -> EtcdkeepError:
    """Translate what went wrong below HTTP."""
    for cause in _causes(err):
        if isinstance(cause, ProxyFailed):
            said = f"{request.text} on {request.connection.host}: {cause}."
            return AccessDenied(said) if cause.refused else Unreachable(said)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ServerUntrusted(
                f"{request.where}: the server's certificate is refused: {cause.verify_message or cause}. "
                "Renew it, or correct the certificate authority or address in the kubeconfig."
            )
        if (
            isinstance(cause, ssl.SSLError)
            and "alert" in str(cause).lower()
            and (ended := client_certificate_ended(request.connection))
        ):
            return AccessDenied(f"{request.where}: {ended}")
    return Unreachable(
        f"{request.where}: no answer: {request.connection.hide(_reason(err))}. Is the API server up, and reachable from here?"
    )


def client_certificate_ended(connection: KubeConnection) -> str | None:
    """Say that the client's own certificate is no longer (or not yet) valid, or None."""
    pem = connection.client_certificate
    try:
        expiry = certificate_expiry(pem) if pem else None
    except PemError:
        return None
    if expiry is None or expiry > datetime.now(tz=UTC):
        return None
    return f"the kubeconfig's client certificate expired at {expiry:%Y-%m-%dT%H:%M:%SZ}; renew it (kubeadm certs renew, or a new admin.conf)."


def _why_unauthenticated(connection: KubeConnection) -> str:
    if ended := client_certificate_ended(connection):
        return ended[0].upper() + ended[1:]
    if plugin := connection.access.plugin:
        return f"The credentials that exec plugin {plugin.command!r} gave are not accepted, and neither are those from a second request."
    return "The credentials in the kubeconfig are not accepted: expired, revoked, or of another cluster."


def _message(body: bytes | None) -> str:
    text = str(_status(body).get("message") or (body or b"").decode(errors="replace").strip())
    return text[:MAX_SHOWN].rstrip(".") or "no explanation"


def _status(body: bytes | None) -> dict[str, Any]:
    """Return the server's Status object; nothing when the answer is a proxy's page."""
    try:
        status = json.loads(body or b"")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _causes(err: BaseException) -> list[BaseException]:
    """Return the exception and what it wraps: urllib3 keeps the cause in `reason` or in the arguments."""
    found: list[BaseException] = []
    waiting: list[object] = [err]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and current not in found:
            found.append(current)
            waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
    return found


def _reason(err: BaseException) -> str:
    """Return the innermost message: the wrappers around it repeat the host and add object addresses."""
    inner = next((cause for cause in reversed(_causes(err)) if isinstance(cause, OSError)), err)
    return (str(inner) or type(inner).__name__)[:MAX_SHOWN].rstrip(".")
