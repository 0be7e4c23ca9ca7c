"""
What the site consists of and where it lies: clusters, nodes, addresses, ports, folders.

The layout is decided once, at the first ``up``, and kept in ``<dir>/lab.json``; later starts read it back, so that
kubeconfigs, manifests and pinned ports stay true.
"""

from __future__ import annotations

import json
import os
import random
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VIEW_FD = 60
"""
Descriptor that every process of a node inherits, open on the node's own directory.

Three control-plane nodes use the same paths, and there is no mount namespace here. So ``<dir>/<cluster>/node`` is a
symlink to ``/proc/self/fd/60``: whatever runs on a node or in its containers sees its own tree under that one path.
"""

JUMP_ADDRESS = "127.0.0.10"
LOOPBACK = "127.0.0.1"
BUCKET = "etcdkeep-lab"
SSH_USER = "ubuntu"
KUBERNETES_VERSION = "v1.36.2"

PORT_NAMES = (
    "ssh", "jump", "gcs", "gcs_backend",
    "harbor_api", "harbor_etcd", "harbor_peer", "harbor_metrics",
    "fleet_api", "fleet_etcd", "fleet_peer", "fleet_metrics",
    "skiff_api", "skiff_etcd", "skiff_peer", "skiff_metrics",
)  # fmt: skip

CLUSTERS: dict[str, dict[str, Any]] = {
    "harbor": {"nodes": {"harbor-cp-0": "127.0.0.11"}, "endpoint": "127.0.0.11", "data": "var/lib/etcd"},
    "fleet": {
        "nodes": {"fleet-cp-0": "127.0.0.21", "fleet-cp-1": "127.0.0.22", "fleet-cp-2": "127.0.0.23"},
        "endpoint": "127.0.0.20",
        "data": "opt/data/var/lib/etcd",
    },
}
SKIFF = "skiff"
SKIFF_ADDRESS = "127.0.0.31"
ADDRESSES = (
    JUMP_ADDRESS,
    LOOPBACK,
    SKIFF_ADDRESS,
    *(address for spec in CLUSTERS.values() for address in (*spec["nodes"].values(), spec["endpoint"])),
)


@dataclass(frozen=True)
class Node:
    """
    One control-plane node: a directory tree, an address, an SSH port.

    :param view: The path under which everything *on* the node sees its tree; the same on all nodes of the cluster.
    """

    name: str
    cluster: str
    address: str
    root: Path
    view: Path
    data: str

    @property
    def manifests(self) -> Path:
        return self.root / "etc/kubernetes/manifests"

    @property
    def kubernetes(self) -> Path:
        return self.root / "etc/kubernetes"

    @property
    def pki(self) -> Path:
        return self.root / "etc/kubernetes/pki"

    @property
    def data_dir(self) -> Path:
        return self.root / self.data

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def api_ends_late(self) -> Path:
        """While this file exists, the API server ends as a real one does: when the grace of its pod is over."""
        return self.run / "api-ends-late"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    def real(self, path: str | Path) -> Path:
        """Return the path outside of what is, on the node, `path`."""
        try:
            return self.root / Path(path).relative_to(self.view)
        except ValueError:
            return Path(path)

    def open_view(self) -> int:
        """Return a descriptor on the node's tree, to be inherited as ``VIEW_FD``."""
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@dataclass(frozen=True)
class ClusterLayout:
    """One cluster with nodes of its own."""

    name: str
    nodes: tuple[Node, ...]
    endpoint: str
    root: Path
    api_port: int
    etcd_port: int
    peer_port: int
    metrics_port: int

    @property
    def server(self) -> str:
        """URL that kubeconfigs name."""
        return f"https://{self.endpoint}:{self.api_port}"

    @property
    def balanced(self) -> bool:
        """Whether the endpoint is a load balancer's and ``127.0.0.1`` is each node's own."""
        return len(self.nodes) > 1

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


@dataclass(frozen=True)
class Layout:
    """The whole site."""

    root: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def clusters(self) -> dict[str, ClusterLayout]:
        return {name: self._cluster(name) for name in CLUSTERS}

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for cluster in self.clusters.values() for node in cluster.nodes)

    @property
    def gcs_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['gcs']}"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def skiff(self) -> Path:
        """Where the user cluster's own keys are made, before they become Secrets."""
        return self.root / SKIFF

    def taken_ports(self) -> list[int]:
        """Return the ports of the site at which somebody listens."""
        return [port for port in self.ports.values() if not _is_free(port)]

    def _cluster(self, name: str) -> ClusterLayout:
        spec = CLUSTERS[name]
        root = self.root / name
        nodes = tuple(
            Node(node, name, address, root / node, root / "node", spec["data"])
            for node, address in spec["nodes"].items()
        )
        ports = {kind: self.ports[f"{name}_{kind}"] for kind in ("api", "etcd", "peer", "metrics")}
        return ClusterLayout(
            name, nodes, spec["endpoint"], root, ports["api"], ports["etcd"], ports["peer"], ports["metrics"]
        )

    @classmethod
    def load(cls, root: Path) -> Layout:
        """Return the layout kept in `root`."""
        return cls(root.resolve(), json.loads((root / "lab.json").read_text())["ports"])

    @classmethod
    def load_or_create(cls, root: Path) -> Layout:
        """Return the layout kept in `root`, deciding it first where there is none."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = root.resolve() / "lab.json"
        if not path.exists():
            write_atomic(path, json.dumps({"schema": 1, "ports": _free_ports()}, indent=1))
        return cls.load(root)


def _free_ports() -> dict[str, int]:
    """Return one port per name, free on every address of the site, below the range the kernel hands to clients."""
    free = (port for port in iter(lambda: random.randrange(20000, 32000), 0) if _is_free(port))
    ports: list[int] = []
    while len(ports) < len(PORT_NAMES):
        port = next(free)
        if port not in ports:
            ports.append(port)
    return dict(zip(PORT_NAMES, ports, strict=True))


def _is_free(port: int) -> bool:
    return all(_can_bind(address, port) for address in ADDRESSES)


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    temporary.rename(path)
