"""
A kubeconfig as kubectl reads it: the cluster and the user of one context.

What is not supported is refused by name, never ignored. No message quotes a value that may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import yaml

from etcdkeep.kubeconfig.fields import (
    KubeconfigProblem,
    KubeconfigSection,
    Material,
    entry_names,
    named_section,
    resolve_path,
    section_of,
)
from etcdkeep.kubeconfig.proxy import Proxy, parse_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SKIP_VERIFY = "insecure-skip-tls-verify"
PLAIN_HTTP = "http"
EXEC_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1"))
EXEC_CONFIG = "client.authentication.k8s.io/exec"
"""Name of the cluster's extension that is meant for plugins."""

CLUSTER_FIELDS = frozenset(
    {
        "server",
        "tls-server-name",
        SKIP_VERIFY,
        "certificate-authority",
        "certificate-authority-data",
        "proxy-url",
        "disable-compression",
        "extensions",
    }
)
USER_FIELDS = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "username",
        "password",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
        "exec",
        "extensions",
    }
)
CONTEXT_FIELDS = frozenset({"cluster", "user", "namespace", "extensions"})
EXEC_FIELDS = frozenset(
    {"apiVersion", "command", "args", "env", "installHint", "provideClusterInfo", "interactiveMode"}
)
INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")
_TOKEN_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F)))
_HEADER_NAME_CHARACTERS = "!#$&'*+^`|"


@dataclass(frozen=True)
class ExecPlugin:
    """A program that prints credentials."""

    command: str
    api_version: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    install_hint: str = ""
    provide_cluster_info: bool = False


@dataclass(frozen=True)
class KubeAccess:
    """
    How one API server is reached, and as whom.

    :param context: Name of the context that it comes from.
    :param server: URL without a slash at its end.
    :param authority: Certificates that the server's is checked against; None for those of the system.
    :param token_file: Read anew for each connection; `token` counts where it cannot be read.
    :param impersonate: Request headers, names and values.
    :param extension: What the kubeconfig holds for plugins of this cluster.
    """

    context: str
    server: str
    tls_server_name: str = ""
    skip_verify: bool = False
    proxy: Proxy | None = None
    authority: Material | None = None
    certificate: Material | None = None
    key: Material | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    plugin: ExecPlugin | None = None
    impersonate: tuple[tuple[str, str], ...] = ()
    extension: Any = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The server's name or address."""
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.server).port or (443 if self.encrypted else 80)

    @property
    def path(self) -> str:
        """What stands before every path of the API: empty, or ``/k8s/clusters/c-1``."""
        return urlsplit(self.server).path

    @property
    def encrypted(self) -> bool:
        """Whether the server is spoken to with TLS."""
        return self.server.startswith("https:")


def parse_kubeconfig(source: bytes | str | Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a kubeconfig's text as a mapping.

    :raises KubeconfigProblem: when it is none.
    """
    if isinstance(source, Mapping):
        return dict(source)
    try:
        content = yaml.safe_load(source)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark
        raise KubeconfigProblem(f"not YAML (line {mark.line + 1})" if mark else "not YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise KubeconfigProblem("not YAML") from None
    if not isinstance(content, dict):
        raise KubeconfigProblem("it is not a YAML mapping")
    if content.get("kind") not in (None, "", "Config"):
        raise KubeconfigProblem("its kind is not Config")
    return content


def read_access(content: Mapping[str, Any], context: str | None, folder: Path | None) -> KubeAccess:
    """
    Return the way to the cluster that one context names.

    :param context: Its name; by default the file's current context.
    :param folder: Where relative paths begin: the kubeconfig's own folder. None when it stands in no file.
    :raises KubeconfigProblem: when something is missing, contradicts itself, or is not supported.
    """
    name, cluster, user = select_context(content, context)
    found = _access(name, cluster, user, folder)
    _check_credentials(found, user.where)
    return found


def select_context(content: Mapping[str, Any], context: str | None) -> tuple[str, KubeconfigSection, KubeconfigSection]:
    """
    Return the chosen context's name, its cluster and its user.

    :raises KubeconfigProblem: when one of them is not there, is there twice, or has an unknown field.
    """
    name = context or content.get("current-context")
    if not name:
        known = ", ".join(entry_names(content, "contexts")) or "none"
        raise KubeconfigProblem(f"current-context is not set and no context is chosen; its contexts are: {known}")
    chosen = named_section(content, "contexts", name, "context", CONTEXT_FIELDS)
    cluster = named_section(content, "clusters", chosen.text("cluster"), "cluster", CLUSTER_FIELDS)
    user = named_section(content, "users", chosen.text("user"), "user", USER_FIELDS)
    return str(name), cluster, user


def read_token(text: str, what: str) -> str:
    """
    Return a bearer token without the white space around it.

    :raises KubeconfigProblem: when it cannot be one.
    """
    token = text.strip()
    if not token:
        raise KubeconfigProblem(f"{what} is empty")
    if not _TOKEN_CHARACTERS.issuperset(token):
        raise KubeconfigProblem(
            f"{what} holds a space, a line break or a character that is not ASCII; it is not a token"
        )
    return token


def _access(context: str, cluster: KubeconfigSection, user: KubeconfigSection, folder: Path | None) -> KubeAccess:
    authority = cluster.material("certificate-authority", folder)
    skip_verify = cluster.flag(SKIP_VERIFY)
    if skip_verify and authority:
        raise KubeconfigProblem(f"{cluster.where} has both {SKIP_VERIFY} and certificate-authority; remove one")
    certificate = user.material("client-certificate", folder)
    token = user.text("token")
    return KubeAccess(
        context,
        _server(cluster, encrypted=bool(authority or certificate or skip_verify)),
        tls_server_name=cluster.text("tls-server-name"),
        skip_verify=skip_verify,
        proxy=_proxy(cluster),
        authority=authority,
        certificate=certificate,
        key=user.material("client-key", folder),
        token=read_token(token, f"token of {user.where}") if token else "",
        token_file=user.path("tokenFile", folder),
        username=user.text("username"),
        password=user.text("password"),
        plugin=_plugin(user, folder),
        impersonate=_impersonation(user),
        extension=_extension(cluster),
    )


def _check_credentials(access: KubeAccess, user: str) -> None:
    if bool(access.certificate) != bool(access.key):
        missing = "client-key" if access.certificate else "client-certificate"
        raise KubeconfigProblem(f"{user} has no {missing}, which its other half needs")
    ways = {
        "token": access.token or access.token_file,
        "username and password": access.username or access.password,
        "exec": access.plugin,
    }
    given = [way for way, value in ways.items() if value]
    if len(given) > 1:
        raise KubeconfigProblem(f"{user} has {' and '.join(given)}; only one of them can be used")
    if access.encrypted and not given and not access.certificate:
        raise KubeconfigProblem(
            f"{user} has no credentials (client-certificate, token, tokenFile, exec, username); anonymous requests are not made"
        )


def _server(cluster: KubeconfigSection, *, encrypted: bool) -> str:
    """Return the server's URL; without a scheme, kubectl takes https where TLS is configured, else http."""
    server = cluster.text("server").rstrip("/")
    if not server:
        raise KubeconfigProblem(f"{cluster.where} has no server")
    if "://" not in server:
        server = f"{'https' if encrypted else 'http'}://{server}"
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("https", "http") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise KubeconfigProblem(f"server of {cluster.where} is not a URL such as https://10.0.0.1:6443")
    return server


def _proxy(cluster: KubeconfigSection) -> Proxy | None:
    url = cluster.text("proxy-url")
    try:
        return parse_proxy(url) if url else None
    except ValueError as err:
        raise KubeconfigProblem(f"proxy-url of {cluster.where} {err}") from None


def _plugin(user: KubeconfigSection, folder: Path | None) -> ExecPlugin | None:
    if user.fields.get("exec") is None:
        return None
    section = section_of(user.fields["exec"], f"exec of {user.where}", EXEC_FIELDS)
    command, version = section.text("command"), section.text("apiVersion")
    if not command:
        raise KubeconfigProblem(f"{section.where} has no command")
    if version not in EXEC_VERSIONS:
        raise KubeconfigProblem(
            f"{section.where} has apiVersion {version!r}, which is not supported; expected {' or '.join(EXEC_VERSIONS)}"
        )
    _check_interactive_mode(section, version)
    if "/" in command:
        command = str(resolve_path(command, folder, f"command of {section.where}"))
    return ExecPlugin(
        command,
        version,
        section.texts("args"),
        tuple(_variables(section)),
        section.text("installHint").strip(),
        section.flag("provideClusterInfo"),
    )


def _check_interactive_mode(section: KubeconfigSection, version: str) -> None:
    mode = section.text("interactiveMode") or ("" if version == EXEC_VERSIONS[0] else "IfAvailable")
    if mode not in INTERACTIVE_MODES:
        raise KubeconfigProblem(f"{section.where} needs interactiveMode: one of {', '.join(INTERACTIVE_MODES)}")
    if mode == "Always":
        raise KubeconfigProblem(
            f"{section.where} has interactiveMode Always: it asks a person, and nobody is there. Use other credentials"
        )


def _variables(section: KubeconfigSection) -> Iterable[tuple[str, str]]:
    for entry in section.fields.get("env") or ():
        variable = section_of(entry, f"env of {section.where}", frozenset({"name", "value"}))
        name = variable.text("name")
        if not name or "=" in name or "\0" in name + variable.text("value"):
            raise KubeconfigProblem(f"{variable.where} has an entry without a usable name")
        yield name, variable.text("value")


def _impersonation(user: KubeconfigSection) -> tuple[tuple[str, str], ...]:
    """Return the headers that client-go sends for `as` and its companions."""
    name, uid, groups = user.text("as"), user.text("as-uid"), user.texts("as-groups")
    extra = section_of(user.fields.get("as-user-extra") or {}, f"as-user-extra of {user.where}", None)
    headers = [("Impersonate-User", name), ("Impersonate-Uid", uid), *(("Impersonate-Group", each) for each in groups)]
    headers += [
        (f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME_CHARACTERS)}", value)
        for key in extra.fields
        for value in extra.texts(key)
    ]
    given = tuple((header, value) for header, value in headers if value)
    if given and not name:
        raise KubeconfigProblem(f"{user.where} has as-uid, as-groups or as-user-extra without as")
    if any(not value.isprintable() for _, value in given):
        raise KubeconfigProblem(f"as, as-uid, as-groups or as-user-extra of {user.where} holds a control character")
    return given


def _extension(cluster: KubeconfigSection) -> Any:
    for entry in cluster.fields.get("extensions") or ():
        if isinstance(entry, Mapping) and entry.get("name") == EXEC_CONFIG:
            return entry.get("extension")
    return None
