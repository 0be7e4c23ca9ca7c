"""Reading static pod manifests: the files kube-apiserver uses on its host, and how etcd was started."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ConfigError
from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    """

    name: str
    image: str
    data_dir: str
    wal_dir: str | None
    initial_cluster: str
    initial_advertise_peer_urls: str
    client_url: str = "https://127.0.0.1:2379"


@dataclass(frozen=True)
class ApiserverStaticPod:
    """
    What of kube-apiserver's manifest is needed to ask it, and its etcd, from the node itself. Paths are the host's.

    :param url: Where it serves on the node.
    :param etcd_ca: With `etcd_cert` and `etcd_key`: its client files for etcd.
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
    etcd_prefix: str = "/registry"


def apiserver_files(manifest: bytes, source: str) -> tuple[str, ...]:
    """
    Return the host paths of the files that kube-apiserver's flags name; what lies inside its image is left out.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest.
    """
    paths = (container.host_path(path) for container in _containers(manifest, source) for path in _files(container))
    return tuple(dict.fromkeys(path for path in paths if path))


def etcd_static_pod(manifest: bytes, source: str) -> EtcdStaticPod:
    """
    Read how etcd was started; flags win over ``ETCD_…`` variables, etcd's own defaults stand for what is in neither.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest, or does not say where on the host the data lies.
    """
    container = next((each for each in _containers(manifest, source) if each.last("data-dir")), None)
    if container is None:
        raise ConfigError(f"{source} starts no etcd with --data-dir; set control_plane.data_dir for this cluster")
    data_dir = container.host_path(container.last("data-dir"))
    if data_dir is None:
        raise ConfigError(
            f"{source}: --data-dir={container.last('data-dir')} is on no hostPath volume, so the data is not on the node"
        )
    name = container.last("name") or "default"
    peer_urls = container.last("initial-advertise-peer-urls") or "http://localhost:2380"
    return EtcdStaticPod(
        name=name,
        image=container.image,
        data_dir=data_dir,
        wal_dir=container.host_path(container.last("wal-dir")),
        initial_cluster=container.last("initial-cluster") or ",".join(f"{name}={url}" for url in peer_urls.split(",")),
        initial_advertise_peer_urls=peer_urls,
        client_url=(container.last("listen-client-urls") or "https://127.0.0.1:2379").split(",")[0],
    )


def apiserver_static_pod(manifest: bytes, source: str) -> ApiserverStaticPod:
    """
    Read how kube-apiserver is asked from its own node.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest, or starts no kube-apiserver.
    """
    container = next((each for each in _containers(manifest, source) if each.last("etcd-servers")), None)
    if container is None:
        raise ConfigError(f"{source} starts no kube-apiserver with --etcd-servers")
    bound = container.last("bind-address")
    address = container.last("advertise-address") if bound in ("", "0.0.0.0", "::") else bound  # noqa: S104 - compared, not bound
    host = address or "127.0.0.1"
    return ApiserverStaticPod(
        image=container.image,
        url=f"https://{f'[{host}]' if ':' in host else host}:{container.last('secure-port') or '6443'}",
        etcd_ca=container.host_path(container.last("etcd-cafile")),
        etcd_cert=container.host_path(container.last("etcd-certfile")),
        etcd_key=container.host_path(container.last("etcd-keyfile")),
        client_cert=container.host_path(container.last("kubelet-client-certificate")),
        client_key=container.host_path(container.last("kubelet-client-key")),
        etcd_prefix=container.last("etcd-prefix") or "/registry",
    )


def apiserver_flag(manifest: bytes, source: str, flag: str) -> str:
    """
    Return a flag of kube-apiserver; empty where it is not given.

    :param source: The manifest's name, for messages.
    :raises ConfigError: when it is no pod manifest.
    """
    containers = _containers(manifest, source)
    return next((each.last(flag) for each in containers if each.last("etcd-servers")), "")


@dataclass(frozen=True)
class _Container:
    """
    :param flags: Flag without dashes → its values, in order.
    :param mounts: Path in the container → path on the host, None for a volume that is not of the host.
    """

    image: str
    flags: Mapping[str, tuple[str, ...]]
    mounts: Mapping[str, str | None]

    def last(self, flag: str) -> str:
        return self.flags.get(flag, ("",))[-1]

    def host_path(self, path: str) -> str | None:
        """Map a path through the mount that is nearest to it."""
        if not path.startswith("/"):
            return None
        path = posixpath.normpath(path)
        over = [mount for mount in self.mounts if path == mount or path.startswith(mount.rstrip("/") + "/")]
        mount = max(over, key=len, default="")
        host = self.mounts.get(mount)
        return posixpath.normpath(posixpath.join(host, posixpath.relpath(path, mount))) if host else None


def _containers(manifest: bytes, source: str) -> tuple[_Container, ...]:
    pod = read_yaml(manifest, source)
    spec = pod.get("spec") if isinstance(pod, dict) and pod.get("kind") == "Pod" else None
    if not isinstance(spec, dict):
        raise ConfigError(f"{source} is no manifest of a static pod (kind: Pod)")
    volumes = {
        volume.get("name"): volume["hostPath"].get("path")
        for volume in _maps(spec.get("volumes"))
        if isinstance(volume.get("hostPath"), dict)
    }
    return tuple(_container(each, volumes) for each in _maps(spec.get("containers")))


def _container(body: dict[str, Any], volumes: Mapping[Any, Any]) -> _Container:
    mounts: dict[str, str | None] = {}
    for mount in _maps(body.get("volumeMounts")):
        host = volumes.get(mount.get("name"))
        inner = str(mount.get("subPath") or "")
        mounts[posixpath.normpath(str(mount.get("mountPath")))] = posixpath.join(str(host), inner) if host else None
    flags: dict[str, tuple[str, ...]] = {
        variable["name"].removeprefix("ETCD_").lower().replace("_", "-"): (str(variable.get("value", "")),)
        for variable in _maps(body.get("env"))
        if str(variable.get("name")).startswith("ETCD_")
    }
    given: dict[str, list[str]] = {}
    for flag, value in _flags([str(item) for part in ("command", "args") for item in body.get(part) or ()]):
        given.setdefault(flag, []).append(value)
    flags.update((flag, tuple(values)) for flag, values in given.items())
    return _Container(str(body.get("image", "")), flags, mounts)


def _flags(items: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag, value) from ``--flag=value`` and from ``--flag`` followed by its value; etcd also takes one dash."""
    for item, following in pairwise([*items, "-"]):
        if not item.startswith("-"):
            continue
        flag, equals, value = item.lstrip("-").partition("=")
        if not equals and not following.startswith("-"):
            value = following
        yield flag, value


def _files(container: _Container) -> Iterator[str]:
    for flag in APISERVER_FILE_FLAGS:
        yield from container.flags.get(flag, ())
    for pair in container.flags.get("tls-sni-cert-key", ()):
        yield from pair.partition(":")[0].split(",")


def _maps(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
