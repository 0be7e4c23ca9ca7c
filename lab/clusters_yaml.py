"""Writes ``<dir>/clusters.yaml`` and the keys it names: etcdkeep's configuration of this site."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import pyrage
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.hosts import ssh_host
from lab.layout import BUCKET, JUMP_ADDRESS, LOOPBACK, SKIFF, ClusterLayout, Layout, write_atomic
from lab.tools import etcd_folder

if TYPE_CHECKING:
    from pathlib import Path


def write_configuration(layout: Layout) -> None:
    """Describe the site; keys are made at the first call and kept."""
    recipient = age_identity(layout.keys / "age.txt")
    public_key = _signing_key(layout.keys / "signing.pem")
    files = f"file://{layout.root}/repository"
    document = {
        "schema_version": 1,
        "defaults": {
            "age_recipients": [recipient],
            "age_identity": {"path": str(layout.keys / "age.txt")},
            "signing": {"key": {"path": str(layout.keys / "signing.pem")}, "public_keys": [public_key]},
            "tags": ["lab"],
            "retention": {"daily": 14, "weekly": 8, "monthly": 12},  # reported only: no `enforce`
            "drill": {"schedule": None, "etcd_dir": str(etcd_folder())},
            "schedule": None,  # Airflow would run a night's missed backup at once, beside the one asked for
        },
        "clusters": [
            _cluster(layout, "harbor", "gke-admin", f"gs://{BUCKET}/backups"),
            _skiff(layout, files),
            _cluster(layout, "fleet", "gke-user-controlplane-v2", files),
        ],
    }
    head = (
        "# Written by the lab at every start. What it overrides is what one machine without namespaces cannot have:\n"
    )
    head += "# the paths (each node's own tree, see lab/layout.py) and the ports.\n"
    write_atomic(layout.root / "clusters.yaml", head + yaml.safe_dump(document, sort_keys=False, width=200))


def _cluster(layout: Layout, name: str, profile: str, repository: str) -> dict[str, Any]:
    cluster = layout.clusters[name]
    ssh: dict[str, Any] = {"user": "ubuntu", "port": layout.ports["ssh"]}
    ssh["host_keys"] = [
        line
        for node in cluster.nodes
        for line in ssh_host(layout, node.name, node.address, layout.ports["ssh"]).key_lines
    ]
    if name == "harbor":
        jump = ssh_host(layout, "jump", JUMP_ADDRESS, layout.ports["jump"])
        ssh["jump"] = {"host": jump.address, "port": jump.port, "user": "ubuntu", "host_keys": list(jump.key_lines)}
    else:
        ssh["key"] = {"path": str(layout.keys / "vsphere_tmp")}
    return {
        "name": name,
        "profile": profile,
        "kubeconfig": {"path": str(cluster.root / "kubeconfig")},
        "repository": repository,
        "ssh": ssh,
        "control_plane": _control_plane(cluster, profile),
    }


def _control_plane(cluster: ClusterLayout, profile: str) -> dict[str, Any]:
    node = cluster.nodes[0]
    kubernetes = node.view / "etc/kubernetes"
    client = "server" if profile == "gke-user-controlplane-v2" else "healthcheck-client"
    return {
        "endpoint": f"https://{LOOPBACK}:{cluster.etcd_port}",
        "tls": {
            "ca": f"{kubernetes}/pki/etcd/ca.crt",
            "cert": f"{kubernetes}/pki/etcd/{client}.crt",
            "key": f"{kubernetes}/pki/etcd/{client}.key",
        },
        "snapshot_dir": f"{node.view}/containers/etcd/etcd/tmp",
        "pki_dir": f"{kubernetes}/pki",
        "manifests_dir": f"{kubernetes}/manifests",
        "admin_conf": f"{kubernetes}/admin.conf",
        "kubelet_files": [f"{node.view}/var/lib/kubelet/config.yaml", f"{node.view}/var/lib/kubelet/kubeadm-flags.env"],
        "optional_paths": [f"{node.view}/opt/data/gke-k8s-kms-plugin/generatedkeys"],
        "data_dir": f"{node.view}/{node.data}",
        "data_owner": f"{os.getuid()}:{os.getgid()}",
    }


def _skiff(layout: Layout, repository: str) -> dict[str, Any]:
    view = layout.clusters["harbor"].nodes[0].view
    certificates = view / "pods" / SKIFF / "etcd.local.config/certificates"
    return {
        "name": SKIFF,
        "profile": "gke-user-kubeception",
        "admin_cluster": "harbor",
        "repository": repository,
        "control_plane": {
            "endpoint": f"https://{LOOPBACK}:{layout.ports['skiff_etcd']}",
            "tls": {
                "ca": f"{certificates}/etcdCA.crt",
                "cert": f"{certificates}/etcd.crt",
                "key": f"{certificates}/etcd.key",
            },
            "snapshot_dir": f"{view}/containers/{SKIFF}_kube-etcd-0/kube-etcd/tmp",
            "data_dir": f"{view}/pods/{SKIFF}/var/lib/etcd",
        },
    }


def age_identity(path: Path) -> str:
    """Make the age identity unless it exists, in age-keygen's format, and return its recipient."""
    if not path.exists():
        identity = pyrage.x25519.Identity.generate()
        write_atomic(path, f"# public key: {identity.to_public()}\n{identity}\n")
    return str(pyrage.x25519.Identity.from_str(path.read_text().splitlines()[-1]).to_public())


def _signing_key(path: Path) -> str:
    """Make the Ed25519 key unless it exists, and return its public half as the configuration has it."""
    if not path.exists():
        encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
        pem = Ed25519PrivateKey.generate().private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption)
        write_atomic(path, pem.decode())
    private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()
