"""Makes the folders of the site: keys, certificates, kubeconfigs, manifests, programs. What exists stays as it is."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncssh

from lab.hosts import HOST_KEY_KINDS
from lab.layout import SKIFF, SKIFF_ADDRESS, SSH_USER, VIEW_FD, ClusterLayout, Layout, Node, write_atomic
from lab.manifests import ETCD_UTIL_IMAGE, static_pods
from lab.pki import ADMINS, CLIENT, SERVER, Authority, control_plane_pki, kubeconfig, rsa_ssh_key
from lab.tools import ETCD_TOOLS, NODE_SHIMS, NODE_TOOLS, fill_bin, image_tools

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHMS = {"harbor": "RSA-2048", "fleet": "ECDSA-P256"}
SHARED = (
    "ca.crt",
    "ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
    "sa.key",
    "sa.pub",
)


def provision(layout: Layout) -> None:
    """Bring the whole tree into being."""
    for folder in ("run/faults", "keys", "gcs", "repository"):
        (layout.root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    rsa_ssh_key(layout.keys / "vsphere_tmp")
    for host in ("jump", *(node.name for node in layout.nodes)):
        for kind, algorithm in HOST_KEY_KINDS.items():
            host_key(layout.keys / "host" / f"{host}_{kind}", algorithm)
            host_key(layout.keys / "host" / f"{host}_{kind}_changed", algorithm)
    for cluster in layout.clusters.values():
        _provision_cluster(cluster)
    _provision_skiff(layout)


def host_key(path: Path, algorithm: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = asyncssh.generate_private_key(algorithm)
    key.write_private_key(str(path))
    path.chmod(0o600)
    key.write_public_key(f"{path}.pub")


def _provision_cluster(cluster: ClusterLayout) -> None:
    cluster.root.mkdir(exist_ok=True, mode=0o700)
    view = cluster.root / "node"
    if not view.is_symlink():
        view.symlink_to(f"/proc/self/fd/{VIEW_FD}")
    for node in cluster.nodes:
        _provision_node(cluster, node)
    first = cluster.nodes[0]
    ca = Authority(first.pki / "ca", "kubernetes")
    shutil.copy(first.kubernetes / "admin.conf", cluster.root / "kubeconfig")
    long_over = {"organisations": [ADMINS], "lifetime": timedelta(days=-30)}
    kubeconfig(cluster.root / "kubeconfig-expired", ca, cluster.server, cluster.name, "kubernetes-admin", **long_over)
    ca.issue(cluster.root / "admin", "kubernetes-admin", [CLIENT], organisations=[ADMINS])


def _provision_node(cluster: ClusterLayout, node: Node) -> None:
    for folder in (
        "etc/kubernetes/manifests",
        "var/lib/kubelet/pki",
        "containers",
        "run",
        "tmp",
        "mnt",
        f"home/{SSH_USER}",
    ):
        (node.root / folder).mkdir(parents=True, exist_ok=True)
    _pki_folder(cluster, node)
    algorithm = ALGORITHMS[cluster.name]
    control_plane_pki(node.pki, node.name, [node.address, cluster.endpoint], algorithm)
    ca = Authority(node.pki / "ca", "kubernetes", algorithm)
    server, local = cluster.server, f"https://{node.address}:{cluster.api_port}"
    for name, url, user, organisations in (
        ("admin", server, "kubernetes-admin", [ADMINS]),
        ("super-admin", server, "kubernetes-super-admin", ["system:masters"]),
        ("controller-manager", local, "system:kube-controller-manager", []),
        ("scheduler", local, "system:kube-scheduler", []),
        ("kubelet", local, f"system:node:{node.name}", ["system:nodes"]),
    ):
        kubeconfig(node.kubernetes / f"{name}.conf", ca, url, cluster.name, user, organisations=organisations)
    ca.issue(
        node.root / "var/lib/kubelet/pki/kubelet-client", f"system:node:{node.name}", [CLIENT],
        organisations=["system:nodes"],
    )  # fmt: skip
    node.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    provisioned = node.run / "provisioned"
    if not provisioned.exists():
        for name, text in static_pods(cluster, node).items():
            write_atomic(node.manifests / name, text)
        provisioned.touch()
    fill_bin(node.root / "usr/bin", (*NODE_TOOLS, *NODE_SHIMS))
    # Images for `docker`, `nerdctl` or `ctr`, where a test gives the node one of them.
    fill_bin(node.root / "images/etcd-util", image_tools(ETCD_UTIL_IMAGE))
    (node.root / "images/etcd-util.ref").write_text(f"{ETCD_UTIL_IMAGE}\n")
    if not (node.root / "usr/local/bin").exists():
        fill_bin(node.root / "usr/local/bin", ETCD_TOOLS)


def _pki_folder(cluster: ClusterLayout, node: Node) -> None:
    """Make the PKI folder; on nodes whose data lies below /opt/data the PKI really lies there too (PROCEDURE.md)."""
    if node.data.startswith("opt/data"):
        (node.root / "opt/data/etc/kubernetes/pki").mkdir(parents=True, exist_ok=True)
        if not node.pki.is_symlink():
            node.pki.symlink_to("../../opt/data/etc/kubernetes/pki")
    (node.pki / "etcd").mkdir(parents=True, exist_ok=True)
    first = cluster.nodes[0]
    if node != first:
        for name in SHARED:
            if not (node.pki / name).exists():
                shutil.copy2(first.pki / name, node.pki / name)


def _provision_skiff(layout: Layout) -> None:
    """Make the user cluster's keys, which become Secrets of the admin cluster."""
    algorithm = "ECDSA-P256"
    names = [
        "localhost",
        "127.0.0.1",
        SKIFF_ADDRESS,
        "kube-etcd-0",
        "kube-etcd",
        "kube-etcd-0.kube-etcd",
        f"kube-etcd.{SKIFF}.svc",
    ]
    etcd = Authority(layout.skiff / "etcd/etcdCA", "etcd-ca", algorithm)
    etcd.issue(layout.skiff / "etcd/etcd", "kube-etcd", [SERVER, CLIENT], names=names)
    etcd.issue(layout.skiff / "api/apiserver-etcd-client", "kube-apiserver-etcd-client", [CLIENT])
    shutil.copy(layout.skiff / "etcd/etcdCA.crt", layout.skiff / "api/etcdCA.crt")
    ca = Authority(layout.skiff / "api/ca", "kubernetes", algorithm)
    ca.issue(layout.skiff / "api/apiserver", "kube-apiserver", [SERVER], names=["kubernetes", *names])
    ca.issue(layout.skiff / "admin", "kubernetes-admin", [CLIENT], organisations=[ADMINS])
    server = f"https://{SKIFF_ADDRESS}:{layout.ports['skiff_api']}"
    kubeconfig(layout.skiff / "kubeconfig", ca, server, SKIFF, "kubernetes-admin", organisations=[ADMINS])
