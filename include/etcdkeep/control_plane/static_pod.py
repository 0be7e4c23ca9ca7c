"""Reading static pod manifests: the files kube-apiserver uses on its host, and how etcd was started."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from etcdkeep.control_plane.pod_spec import UNKNOWN, Container, Downward, containers, read_pod
from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

APISERVER_FILE_FLAGS = (
    "admission-control-config-file",
    "audit-policy-file",
    "audit-webhook-config-file",
    "authentication-config",
    "authentication-token-webhook-config-file",
    "authorization-config",
    "authorization-policy-file",
    "authorization-webhook-config-file",
    "client-ca-file",
    "cloud-config",
    "egress-selector-config-file",
    "encryption-provider-config",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "kubelet-certificate-authority",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "oidc-ca-file",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "requestheader-client-ca-file",
    "service-account-key-file",
    "service-account-signing-key-file",
    "tls-cert-file",
    "tls-private-key-file",
    "token-auth-file",
    "tracing-config-file",
)
"""Flags of kube-apiserver (1.24 to 1.36) whose value is one file that it reads."""


ETCD = "etcd"
APISERVER = "kube-apiserver"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class KnownMember:
    """
    What is known of a member beside its manifest; it stands in for what the manifest does not tell.

    :param container: Name of the container in which etcd runs.
    :param downward: What the kubelet fills in.
    :param name: Its name in ``member list``; empty when not known.
    :param peer_urls: Its peer URLs in ``member list``, comma-separated.
    :param data_dir: On the host, as configured.
    :param client_url: Where it is asked, as configured.
    """

    container: str = ETCD
    downward: Downward = field(default_factory=Downward)
    name: str = ""
    peer_urls: str = ""
    data_dir: str = ""
    client_url: str = "https://127.0.0.1:2379"


@dataclass(frozen=True)
class EtcdStaticPod:
    """
    How an etcd member was started, from its manifest.

    :param data_dir: On the host.
    :param wal_dir: On the host, when the write-ahead log has a folder of its own.
    :param initial_cluster: ``name=url,…`` as of the day this member joined: of three members set up one after the
        other by kubeadm, only the last one's names all three.
    :param initial_advertise_peer_urls: This member's own peer URLs, comma-separated.
    :param client_url: The first URL at which it listens for clients.
    :param notes: What the manifest does not tell, and where it was taken from.
    """

    name: str
    image: str
    data_dir: str
    wal_dir: str | None
    initial_cluster: str
    initial_advertise_peer_urls: str
    client_url: str = "https://127.0.0.1:2379"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiserverStaticPod:
    """
    What of kube-apiserver's manifest is needed to ask it, and its etcd, from the node itself. Paths are the host's.

    :param url: Where it serves on the node.
    :param etcd_ca: With `etcd_cert` and `etcd_key`: its client files for etcd.
    :param files: All files that it names; `encryption_config` is the one with its keys for what lies in etcd.
    :param client_cert: With `client_key`: a certificate that it accepts, the one it shows to kubelets; None where it
        has none.
    :param etcd_prefix: Where its keys stand, as its flag has it.
    """

    image: str
    url: str
    etcd_ca: str | None
    etcd_cert: str | None
    etcd_key: str | None
    client_cert: str | None
    client_key: str | None
    files: tuple[str, ...] = ()
    encryption_config: str | None = None
    etcd_prefix: str = "/registry"

    @property
    def address(self) -> str:
        """The address of the node that it gives out; empty where it names none."""
        host = urlsplit(self.url).hostname or ""
        return "" if host in LOOPBACK else host


def apiserver_files(manifest: bytes, source: str, known: Downward | None = None) -> tuple[str, ...]:
    """
    Return the host paths of the files that kube-apiserver's flags name; what lies inside its image is left out.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest.
    """
    found = containers(read_pod(manifest, source), known or Downward())
    paths = (container.host_path(path) for container in found for path in _files(container))
    return tuple(dict.fromkeys(path for path in paths if path))


def etcd_config_file(manifest: bytes, source: str, known: KnownMember) -> str | None:
    """
    Return the host path of the file that etcd reads its whole configuration from; None when it reads none.

    :raises ConfigError: when it is no pod manifest, or nothing in it is etcd.
    """
    container = _etcd_container(manifest, source, known)
    path = _config_file(container)
    return container.host_path(path) if path else None


def etcd_static_pod(
    manifest: bytes, source: str, known: KnownMember | None = None, config: bytes | None = None
) -> EtcdStaticPod:
    """
    Read how etcd was started.

    As etcd has it: with a configuration file, flags and ``ETCD_…`` variables count for nothing; else flags win over
    variables, and etcd's own defaults stand for what is in neither. What cannot be read is taken from `known`.

    :param source: The manifest's name, for messages.
    :param config: Content of the file that :func:`etcd_config_file` names; None when it cannot be read.
    :raises ConfigError: when it is no pod manifest, or nobody says where on the host the data lies.
    """
    known = known or KnownMember()
    container = _etcd_container(manifest, source, known)
    settings = _Settings(container, source, config)
    data_dir = _data_dir(container, source, settings, known)
    name = settings.get("name", "default", known.name, "name")
    peer_urls = settings.get(
        "initial-advertise-peer-urls", "http://localhost:2380", known.peer_urls, "peer URLs", listed=True
    )
    wal_dir = settings.value("wal-dir")
    initial = settings.value("initial-cluster") or ""
    return EtcdStaticPod(
        name=name,
        image=container.image,
        data_dir=data_dir,
        wal_dir=_wal_dir(container, wal_dir, data_dir),
        initial_cluster=initial or ",".join(f"{name}={url}" for url in peer_urls.split(",")),
        initial_advertise_peer_urls=peer_urls,
        client_url=_client_url(settings.value("listen-client-urls"), known.client_url),
        notes=tuple(settings.notes),
    )


def _wal_dir(container: Container, given: str | None, data_dir: str) -> str | None:
    """Return the folder of a write-ahead log of its own; None for where etcd keeps it anyway."""
    if not given:
        return None
    host = posixpath.normpath(container.host_path(given) or given)
    return None if host == posixpath.join(data_dir, "member", "wal") else host


def etcd_servers(container: Container) -> tuple[str, ...]:
    """Return the etcd that kube-apiserver keeps its objects in, as URLs."""
    return tuple(url for url in container.last("etcd-servers").split(",") if url)


def apiserver_container(found: tuple[Container, ...]) -> Container | None:
    """Return the container of kube-apiserver among those of its pod."""
    named = [each for each in found if each.last("etcd-servers")]
    return next((each for each in named if each.name == APISERVER), named[0] if named else None)


def apiserver_static_pod(manifest: bytes, source: str, known: Downward | None = None) -> ApiserverStaticPod:
    """
    Read how kube-apiserver is asked from its own node.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest, or starts no kube-apiserver.
    """
    container = apiserver_container(containers(read_pod(manifest, source), known or Downward()))
    if container is None:
        raise ConfigError(f"{source} starts no kube-apiserver with --etcd-servers")
    bound, advertised = (_known(container.last(flag)) for flag in ("bind-address", "advertise-address"))
    host = (advertised if bound in ANY_ADDRESS else bound) or "127.0.0.1"
    return ApiserverStaticPod(
        image=container.image,
        url=f"https://{f'[{host}]' if ':' in host else host}:{container.last('secure-port') or '6443'}",
        etcd_ca=container.host_path(container.last("etcd-cafile")),
        etcd_cert=container.host_path(container.last("etcd-certfile")),
        etcd_key=container.host_path(container.last("etcd-keyfile")),
        client_cert=container.host_path(container.last("kubelet-client-certificate")),
        client_key=container.host_path(container.last("kubelet-client-key")),
        files=tuple(dict.fromkeys(path for each in _files(container) if (path := container.host_path(each)))),
        encryption_config=container.host_path(container.last("encryption-provider-config")),
        etcd_prefix=container.last("etcd-prefix") or "/registry",
    )


def apiserver_flag(manifest: bytes, source: str, flag: str) -> str:
    """
    Return a flag of kube-apiserver; empty where it is not given.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest.
    """
    found = containers(read_pod(manifest, source), Downward())
    return next((each.last(flag) or "" for each in found if each.last("etcd-servers")), "")


class _Settings:
    """
    etcd's settings as etcd itself resolves them.

    :param unclear: Why they cannot be read at all; empty when they can.
    """

    def __init__(self, container: Container, source: str, config: bytes | None) -> None:
        self.notes: list[str] = []
        self._source = source
        self._container = container
        self._file: Mapping[str, Any] | None = None
        self.unclear = ""
        if path := _config_file(container):
            self._read_file(path, config)
            return
        only = container.only(ETCD)
        if only is None:
            self.unclear = "a shell's string starts it in a way that is too complex to read"
        else:
            self._container = only
            if not (_starts_etcd(only) or _told(only)):
                self.unclear = f"it is started by {', '.join(only.programs) or 'its image'}, whose settings are not in the manifest"

    def _read_file(self, path: str, config: bytes | None) -> None:
        if config is None:
            self.unclear = f"its --config-file={path} cannot be read on the node"
            return
        document = read_yaml(config, path)
        if not isinstance(document, dict):
            raise ConfigError(f"{self._source}: --config-file={path} is not a mapping of etcd's settings")
        self._file = document

    def value(self, setting: str) -> str | None:
        """Return what was given; empty for nothing, None where it cannot be known."""
        if self.unclear:
            return None
        if self._file is not None:
            given = self._file.get(setting)
            return "" if given is None else str(given)
        variable = "ETCD_" + setting.upper().replace("-", "_")
        value = self._container.last(setting) or self._container.env.get(variable, "")
        return None if UNKNOWN in value else value

    def get(self, setting: str, default: str, fallback: str, words: str, *, listed: bool = False) -> str:
        """
        Return a setting; `fallback` for none, and for one that cannot be read; else etcd's default.

        :param fallback: What etcd's member list says. It knows a default too, and what a script gives behind our back.
        :param listed: Whether it is a comma-separated list, in which spaces count for nothing.
        :raises ConfigError: when there is nothing to fall back on.
        """
        value = self.value(setting)
        if value is None:
            reason = self.unclear or f"--{setting} holds what only the kubelet or a shell fills in"
            if not fallback:
                raise ConfigError(
                    f"{self._source}: etcd's {words} cannot be determined: {reason}. Give it as a flag of etcd in the manifest"
                )
            self.notes.append(f"{self._source}: {reason}; etcd's {words} is taken from its member list: {fallback}")
            return fallback
        return (",".join(value.replace(" ", "").split(",")) if listed else value) or fallback or default


def _etcd_container(manifest: bytes, source: str, known: KnownMember) -> Container:
    """Return etcd's container: the configured one, else the one that starts etcd."""
    found = containers(read_pod(manifest, source), known.downward)
    tests: tuple[Callable[[Container], bool], ...] = (
        lambda each: each.name == known.container,
        _starts_etcd,
        _told,
        lambda each: each.shell and len(found) == 1,
    )
    for test in tests:
        for container in found:
            if test(container):
                return container
    names = ", ".join(each.name or "(without a name)" for each in found) or "none"
    raise ConfigError(
        f"{source} starts no etcd with --data-dir: its containers are {names}, expected {known.container!r}; "
        "set control_plane.container"
    )


def _starts_etcd(container: Container) -> bool:
    return ETCD in container.programs


def _told(container: Container) -> bool:
    return bool(container.last("data-dir") or _config_file(container))


def _config_file(container: Container) -> str:
    return container.last("config-file") or container.env.get("ETCD_CONFIG_FILE", "")


def _data_dir(container: Container, source: str, settings: _Settings, known: KnownMember) -> str:
    given = settings.value("data-dir")
    if given:
        host = container.host_path(given)
        if host is None:
            raise ConfigError(
                f"{source}: --data-dir={given} is not on a hostPath volume, so the data is not on the node"
            )
        return host
    reason = settings.unclear or "it gives no --data-dir"
    configured = posixpath.normpath(known.data_dir) if known.data_dir else ""
    mounted = [posixpath.normpath(host) for host in container.mounts.values() if host]
    if not any(f"{configured}/".startswith(f"{host.rstrip('/')}/") for host in mounted):
        wrong = (
            f"{configured} (control_plane.data_dir) is not on any of its hostPath volumes"
            if configured
            else "none is configured"
        )
        raise ConfigError(
            f"{source}: etcd's data directory cannot be determined: {reason}, and {wrong}; set control_plane.data_dir for this cluster"
        )
    settings.notes.append(
        f"{source}: {reason}; etcd's data directory is taken from control_plane.data_dir: {configured}"
    )
    return configured


def _client_url(listed: str | None, configured: str) -> str:
    """
    Return the first URL of a list that this node can ask; where it listens everywhere, its loopback.

    :param listed: None when it is not known.
    :param configured: Stands in for a list that is not known or names none.
    """
    for url in (listed or "").replace(" ", "").split(","):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            continue
        host = parts.hostname or ""
        return f"{parts.scheme}://127.0.0.1:{parts.port or 2379}" if host in ANY_ADDRESS else url
    return configured


def _known(value: str) -> str:
    return "" if UNKNOWN in value else value


def _files(container: Container) -> Iterator[str]:
    flags = container.flags
    for flag in APISERVER_FILE_FLAGS:
        yield from flags.get(flag, ())
    for pair in flags.get("tls-sni-cert-key", ()):
        yield from pair.partition(":")[0].split(",")
