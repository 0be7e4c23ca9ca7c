"""
From a kubeconfig, or from a pod's service account, to a connection.

Files are read here and plugins run here; keys stay in memory. What a kubeconfig may ask of a worker stands in the
configuration: :class:`Permits`.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.kube.connection import KubeConnection, basic_authorization, now, tls_context
from etcdkeep.adapters.kube.dial import environment_proxy
from etcdkeep.adapters.kube.exec_plugin import find_plugin, run_plugin
from etcdkeep.errors import ConfigError, SecretUnavailable
from etcdkeep.kubeconfig.exec_credential import Credential, plugin_input
from etcdkeep.kubeconfig.fields import KubeconfigProblem, Material
from etcdkeep.kubeconfig.portable import embed_files
from etcdkeep.kubeconfig.reading import PLAIN_HTTP, SKIP_VERIFY, KubeAccess, parse_kubeconfig, read_access, read_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from etcdkeep.config.access import KubeconfigRef

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PLUGIN_S = 30.0


@dataclass(frozen=True)
class Permits:
    """
    What the configuration lets a kubeconfig do.

    :param insecure: Which of ``insecure-skip-tls-verify`` and ``http`` it may ask for.
    :param exec_plugins: Programs that it may run, by name or path.
    :param exec_timeout_s: How long one may take.
    """

    insecure: Sequence[str] = ()
    exec_plugins: Sequence[str] = ()
    exec_timeout_s: float = PLUGIN_S

    @classmethod
    def of(cls, ref: KubeconfigRef) -> Permits:
        """Return what a cluster's entry permits."""
        return cls(ref.allow_insecure, ref.exec_plugins, ref.exec_timeout_s)


def open_kubeconfig(
    source: bytes | Path | Mapping[str, Any],
    context: str | None = None,
    *,
    permits: Permits = Permits(),
    mask: Callable[[bytes], None] = lambda secret: None,
    keepalive: bool = True,
    name: str = "",
) -> KubeConnection:
    """
    Return a connection for one context of a kubeconfig: its text, its path or its parsed content.

    :param mask: Told every secret that is read from a file or given by a plugin.
    :param keepalive: Whether the kernel keeps quiet connections open.
    :param name: What to call the kubeconfig in messages, where that is more than its path.
    :raises ConfigError: when it is no usable kubeconfig, or asks for what is not permitted.
    :raises SecretUnavailable: when the file itself cannot be read.
    """
    name, folder, text = _load(source, name)
    try:
        return _connection(read_access(parse_kubeconfig(text), context, folder), permits, mask, keepalive)
    except (KubeconfigProblem, OSError, ValueError) as err:
        raise _unusable(name, err) from None


def portable_kubeconfig(
    source: bytes | Path | Mapping[str, Any], context: str | None = None, *, name: str = ""
) -> bytes:
    """
    Return a kubeconfig that works on another machine: one context, its files embedded.

    :raises ConfigError: when it is not usable here.
    """
    name, folder, text = _load(source, name)
    try:
        return embed_files(parse_kubeconfig(text), context, folder, _read_file)
    except (KubeconfigProblem, ValueError) as err:
        raise _unusable(name, err) from None


def open_in_cluster(
    environ: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT, *, keepalive: bool = True
) -> KubeConnection:
    """
    Return a connection as the service account of the pod that this runs in; its token is read anew each time.

    :raises SecretUnavailable: when this is no pod.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    authority = folder / "ca.crt"
    if not host or not authority.is_file():
        missing = "KUBERNETES_SERVICE_HOST is not set" if not host else f"there is no {authority}"
        raise SecretUnavailable(
            f"kubeconfig: in_cluster works only in a pod of the cluster, and this process does not run in one: {missing}. Give a path or a connection."
        )
    access = KubeAccess(
        "in_cluster",
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authority=Material("the service account's ca.crt", path=authority),
        token_file=folder / "token",
    )
    try:
        return _connection(access, Permits(), lambda secret: None, keepalive)
    except (KubeconfigProblem, OSError, ValueError) as err:
        raise _unusable("of the pod's service account", err) from None


def _connection(access: KubeAccess, permits: Permits, mask: Callable[[bytes], None], keepalive: bool) -> KubeConnection:
    _check_permits(access, permits)
    access = replace(access, proxy=access.proxy or environment_proxy(access.host, access.server))
    authority, certificate, key = (_content(each) for each in (access.authority, access.certificate, access.key))
    try:
        tls_context(authority, certificate, key, skip_verify=access.skip_verify)
    except ssl.SSLError as err:
        raise KubeconfigProblem(_tls_problem(access, err)) from None
    static = Credential(certificate=certificate, key=key)
    if access.plugin is None:
        return KubeConnection(access, authority, lambda: _given(access, static, mask), keepalive=keepalive)
    program = find_plugin(access.plugin, permits.exec_plugins)
    source = _PluginSource(access, program, authority, static, permits.exec_timeout_s, mask)
    return KubeConnection(access, authority, source.credential, source.forget, keepalive=keepalive)


def _check_permits(access: KubeAccess, permits: Permits) -> None:
    asked = {
        SKIP_VERIFY: (access.skip_verify, "the server's certificate would not be checked"),
        PLAIN_HTTP: (not access.encrypted, f"its server is {access.server}, so the traffic is not encrypted"),
    }
    for word, (is_asked, why) in asked.items():
        if is_asked and word not in permits.insecure:
            raise KubeconfigProblem(
                f"it asks for {word}: {why}. Give it a certificate-authority and an https server; or, if you accept that, "
                f"add to the cluster's entry kubeconfig: {{allow_insecure: [{word}], …}}"
            )


class _PluginSource:
    """Asks a plugin when there are no credentials, when they run out, and when the server did not accept them."""

    def __init__(
        self,
        access: KubeAccess,
        program: str,
        authority: bytes | None,
        static: Credential,
        timeout_s: float,
        mask: Callable[[bytes], None],
    ) -> None:
        self._access = access
        self._program = program
        self._authority = authority
        self._static = static
        self._timeout_s = timeout_s
        self._mask = mask
        self._held: Credential | None = None
        self._lock = Lock()

    def credential(self) -> Credential:
        """Return credentials that are good now."""
        with self._lock:
            plugin = self._access.plugin
            if plugin is not None and (self._held is None or not self._held.usable(now())):
                info = plugin_input(plugin, self._access, self._authority)
                self._held = self._checked(run_plugin(plugin, self._program, info, self._timeout_s))
            return self._held or self._static

    def forget(self) -> bool:
        """Make the next credentials new ones."""
        with self._lock:
            self._held = None
        return True

    def _checked(self, found: Credential) -> Credential:
        self._mask(found.authorization.encode())
        self._mask(found.key or b"")
        if found.certificate is None:
            return replace(found, certificate=self._static.certificate, key=self._static.key)
        try:
            tls_context(self._authority, found.certificate, found.key, skip_verify=self._access.skip_verify)
        except (ssl.SSLError, ValueError):
            raise ConfigError(
                f"exec plugin {self._program!r} of the kubeconfig gave a certificate and key that are not PEM, or do not belong "
                "together. Try it with kubectl."
            ) from None
        return found


def _given(access: KubeAccess, static: Credential, mask: Callable[[bytes], None]) -> Credential:
    """Return the credentials that stand in the kubeconfig, with the token as its file has it now."""
    if access.username or access.password:
        return replace(static, authorization=basic_authorization(access.username, access.password))
    token = access.token
    if access.token_file is not None:
        token = _token_of_file(access.token_file, access.token)
        mask(token.encode())
    return replace(static, authorization=f"Bearer {token}") if token else static


def _token_of_file(path: Path, instead: str) -> str:
    try:
        return read_token(path.read_bytes().decode(errors="replace"), "it")
    except OSError as err:
        if instead:
            return instead
        reason = f"cannot be read: {err.strerror}"
    except KubeconfigProblem as err:
        reason = f"cannot be used: {err}"
    raise SecretUnavailable(f"the kubeconfig's tokenFile {path} {reason}. Put a valid token there.")


def _load(source: bytes | Path | Mapping[str, Any], name: str) -> tuple[str, Path | None, bytes | Mapping[str, Any]]:
    """Return a kubeconfig's name for messages, its folder and its content."""
    if not isinstance(source, Path):
        return name or "(given as text)", None, source
    try:
        return name or str(source), source.absolute().parent, source.read_bytes()
    except OSError as err:
        raise SecretUnavailable(
            f"kubeconfig {name or source} cannot be read: {err.strerror}. Put it there, readable by this user only (0600)."
        ) from err


def _content(material: Material | None) -> bytes | None:
    if material is None or material.path is None:
        return material.data if material else None
    return _read_file(material.path, material.what)


def _read_file(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise KubeconfigProblem(f"{what} is the file {path}, which cannot be read: {err.strerror}") from None


def _tls_problem(access: KubeAccess, err: ssl.SSLError) -> str:
    """Say which file OpenSSL stumbled over; its own words name neither."""
    reason = (err.reason or "").replace("_", " ").lower()
    if access.certificate is None or access.key is None:
        return f"a certificate in its certificate-authority cannot be read ({reason or 'not PEM'})"
    return f"its client-certificate and client-key cannot be used: {reason or 'not PEM'}"


def _unusable(name: str, err: Exception) -> ConfigError:
    return ConfigError(f"kubeconfig {name} cannot be used: {err}. Try it with kubectl.")
