"""What a kubeconfig's exec plugin is given, what it answers, and which plugins may run: no message quotes an answer."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from etcdkeep.kubeconfig.fields import KubeconfigProblem
from etcdkeep.kubeconfig.reading import read_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from etcdkeep.kubeconfig.reading import ExecPlugin, KubeAccess

RENEW_BEFORE = timedelta(seconds=10)
OWN_VARIABLES = ("AIRFLOW", "ETCDKEEP_", "_AIRFLOW")
"""Beginnings of variables that may hold keys of ours: no plugin needs them."""

_LOADER_VARIABLES = re.compile(
    r"PATH|ENV|BASH_ENV|IFS|SHELLOPTS|(LD|DYLD|GCONV|BASH_FUNC|GLIBC)_.*|(PYTHON|PERL|RUBY|NODE_|JAVA_|JDK_|_JAVA).*"
    r"|.*_PYTHON"
)
"""Variables with which any program can be made to run another one's code."""

_SECRET_NAME = re.compile(r"secret|token|passw|key|credential|auth", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"eyJ[\w-]{8,}\.[\w.-]+|-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|$)|(?<=[Bb]earer )\S+|(?<=://)[^/\s@]+(?=@)",
    re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z0-9+/=_.~-]{8,}")
_PLAIN_WORDS = {
    "apiVersion",
    "ExecCredential",
    "expirationTimestamp",
    "clientCertificateData",
    "clientKeyData",
    "interactive",
}
HIDDEN = "***"
SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Credential:
    """
    As whom an API server is asked.

    :param authorization: Value of the header; empty when the certificate alone says it.
    :param certificate: PEM, with its key.
    :param expires: When to ask the plugin again; None for never.
    """

    authorization: str = field(default="", repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    expires: datetime | None = None

    def usable(self, now: datetime) -> bool:
        """Whether it is still good for a while."""
        return self.expires is None or now < self.expires - RENEW_BEFORE


def plugin_input(plugin: ExecPlugin, access: KubeAccess, authority: bytes | None) -> str:
    """Return the value of ``KUBERNETES_EXEC_INFO``."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        cluster: dict[str, Any] = {"server": access.server, "config": access.extension}
        cluster |= {"tls-server-name": access.tls_server_name} if access.tls_server_name else {}
        cluster |= {"insecure-skip-tls-verify": True} if access.skip_verify else {}
        cluster |= {"certificate-authority-data": b64encode(authority).decode()} if authority else {}
        cluster |= {"proxy-url": str(access.proxy)} if access.proxy else {}
        spec["cluster"] = cluster
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})


def plugin_environment(plugin: ExecPlugin, environ: Mapping[str, str], info: str) -> dict[str, str]:
    """Return a plugin's environment: the worker's without keys of ours, the kubeconfig's, and its input."""
    inherited = {name: value for name, value in environ.items() if not name.startswith(OWN_VARIABLES)}
    return {**inherited, **dict(plugin.env), "KUBERNETES_EXEC_INFO": info}


def check_variables(plugin: ExecPlugin) -> None:
    """
    Refuse variables that turn an allowed program into another one.

    :raises KubeconfigProblem: naming the variable.
    """
    for name, _ in plugin.env:
        if _LOADER_VARIABLES.fullmatch(name):
            raise KubeconfigProblem(
                f"env of exec plugin {plugin.command!r} sets {name}, which can make it run other code. Set it for the worker instead"
            )


def parse_credential(plugin: ExecPlugin, output: bytes) -> Credential:
    """
    Read a plugin's standard output.

    :raises KubeconfigProblem: worded to follow the plugin's name, when it holds no credentials.
    """
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        raise KubeconfigProblem(
            f"printed no ExecCredential: {len(output)} bytes that are not JSON" if output.strip() else "printed nothing"
        ) from None
    if not isinstance(answer, dict) or answer.get("kind") != "ExecCredential":
        raise KubeconfigProblem("printed JSON that is not an ExecCredential")
    if answer.get("apiVersion") != plugin.api_version:
        raise KubeconfigProblem(
            f"answered in another apiVersion than {plugin.api_version}; correct it in the kubeconfig"
        )
    status = answer.get("status")
    if not isinstance(status, dict):
        raise KubeconfigProblem("gave no credentials: its answer has no status")
    token, certificate, key = (_text(status, name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if bool(certificate) != bool(key):
        raise KubeconfigProblem(f"gave a certificate without its {'key' if certificate else 'certificate'}")
    if not token and not certificate:
        raise KubeconfigProblem("gave neither a token nor a certificate")
    return Credential(
        f"Bearer {read_token(token, 'the token that it gave')}" if token else "",
        certificate.encode() or None,
        key.encode() or None,
        _expiry(_text(status, "expirationTimestamp")),
    )


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text with every secret replaced, and what looks like a token, key or password."""
    for secret in sorted({secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _SECRET_TEXT.sub(HIDDEN, text)


def plugin_secrets(plugin: ExecPlugin, output: bytes) -> set[str]:
    """Return what a plugin's own words must not repeat: secret arguments and variables, and all that it printed."""
    secrets = {value for name, value in plugin.env if _SECRET_NAME.search(name)}
    before = ""
    for argument in plugin.args:
        name, _, value = argument.partition("=")
        if value and _SECRET_NAME.search(name):
            secrets.add(value)
        if _SECRET_NAME.search(before) and before.startswith("-"):
            secrets.add(argument)
        before = "" if value else argument
    return secrets | set(_WORD.findall(output.decode(errors="replace"))) - _PLAIN_WORDS


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise KubeconfigProblem(f"gave a {name} that is not text")
    return value


def _expiry(text: str) -> datetime | None:
    if not text:
        return None
    try:
        expiry = datetime.fromisoformat(text)
    except ValueError:
        raise KubeconfigProblem("gave an expirationTimestamp that is not a time") from None
    if expiry.tzinfo is None:
        raise KubeconfigProblem("gave an expirationTimestamp without a time zone")
    return expiry
