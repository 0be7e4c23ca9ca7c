"""The objects that a new site starts with, made through the API: enough that a backup has something to lose."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from lab.layout import KUBERNETES_VERSION, SKIFF, SKIFF_ADDRESS, Layout
from lab.manifests import ETCD_IMAGE, QUOTA_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from lab.kube import Kube

Item = tuple[str, dict[str, Any]]
SECRET_CANARY = "canary-of-the-lab-7f3a"
"""Stands in every sample Secret: whoever finds it in a log has found a leak."""


async def seed(kube: Kube, items: list[Item]) -> None:
    for path, obj in items:
        await kube.ensure(path, obj)


def workloads(cluster: str) -> list[Item]:
    """Return what users put on any cluster."""
    shop = "/api/v1/namespaces/shop"
    items: list[Item] = [
        ("/api/v1/namespaces", _named("shop", labels={"team": "shop"})),
        ("/api/v1/namespaces", _named("monitoring")),
        (f"{shop}/configmaps", _named("web-config") | {"data": {"app.properties": "color=blue\nsize=10\n", "empty": ""}, "binaryData": {"blob": "AAECAwT/"}}),
        (f"{shop}/configmaps", _named("cluster") | {"data": {"name": cluster, "note": "äöü 漢字"}}),
        (f"{shop}/secrets", _named("web-secret") | {"type": "Opaque", "stringData": {"password": SECRET_CANARY}}),
        (f"{shop}/serviceaccounts", _named("web")),
        (f"{shop}/services", _named("web") | {"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        ("/apis/apps/v1/namespaces/shop/deployments", _deployment("web", 2)),
        ("/apis/policy/v1/namespaces/shop/poddisruptionbudgets", _budget("web")),
        (
            "/apis/batch/v1/namespaces/shop/cronjobs",
            _named("nightly") | {"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": _template("nightly")}}}},
        ),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles", _named("web") | {"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]}),
        ("/apis/storage.k8s.io/v1/storageclasses", _named("standard") | {"provisioner": "kubernetes.io/no-provisioner"}),
    ]  # fmt: skip
    for index in range(20):
        data = {f"key-{number}": f"{cluster} {index} {number} " * 8 for number in range(4)}
        items.append(("/api/v1/namespaces/monitoring/configmaps", _named(f"dashboard-{index:02}") | {"data": data}))
    return items


def kubeadm_objects(cluster: str, server: str) -> list[Item]:
    """Return what kubeadm leaves in kube-system."""
    text = f"apiVersion: kubeadm.k8s.io/v1beta4\nclusterName: {cluster}\ncontrolPlaneEndpoint: {server.removeprefix('https://')}\nkind: ClusterConfiguration\nkubernetesVersion: {KUBERNETES_VERSION}\n"
    return [
        (
            "/api/v1/namespaces/kube-system/configmaps",
            _named("kubeadm-config") | {"data": {"ClusterConfiguration": text}},
        )
    ]


def root_ca_object(root_ca: str) -> Item:
    """Return what a controller-manager would put into kube-system; the user cluster has none."""
    return "/api/v1/namespaces/kube-system/configmaps", _named("kube-root-ca.crt") | {"data": {"ca.crt": root_ca}}


def admin_cluster(layout: Layout) -> list[Item]:
    """Return what makes `harbor` a GKE on-prem admin cluster: the SSH key, the vendor's kinds, the user cluster."""
    key = {"vsphere_tmp": _b64(layout.keys / "vsphere_tmp"), "vsphere_tmp.pub": _b64(layout.keys / "vsphere_tmp.pub")}
    return [
        ("/api/v1/namespaces/kube-system/secrets", _named("sshkeys") | {"type": "Opaque", "data": key}),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _definition("OnPremUserCluster")),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _definition("OnPremAdminCluster")),
        (
            "/apis/onprem.cluster.gke.io/v1/namespaces/kube-system/onpremuserclusters",
            _named(SKIFF) | {"apiVersion": "onprem.cluster.gke.io/v1", "kind": "OnPremUserCluster", "spec": {"enableControlplaneV2": False}},
        ),
        (
            "/apis/onprem.cluster.gke.io/v1/namespaces/kube-system/onpremadminclusters",
            _named("harbor") | {"apiVersion": "onprem.cluster.gke.io/v1", "kind": "OnPremAdminCluster", "spec": {"gkeOnPremVersion": "1.5.0-gke.0"}},
        ),
        *user_cluster(layout),
    ]  # fmt: skip


def user_cluster(layout: Layout) -> list[Item]:
    """Return the control plane of the kubeception user cluster, as objects of the admin cluster."""
    spaced, apps = f"/api/v1/namespaces/{SKIFF}", f"/apis/apps/v1/namespaces/{SKIFF}"
    # A pod of a real cluster has its own root; here its paths live in a corner of the node's tree.
    root = layout.clusters["harbor"].nodes[0].view / "pods" / SKIFF
    return [
        ("/api/v1/namespaces", _named(SKIFF, labels={"cluster.gke.io/user-cluster": SKIFF})),
        (f"{spaced}/secrets", _named("kube-etcd-certs") | {"type": "Opaque", "data": _files(layout.skiff / "etcd", "etcdCA.crt", "etcd.crt", "etcd.key")}),
        (
            f"{spaced}/secrets",
            _named("kube-apiserver-certs") | {"type": "Opaque", "data": _files(
                layout.skiff / "api", "ca.crt", "apiserver.crt", "apiserver.key", "etcdCA.crt",
                "apiserver-etcd-client.crt", "apiserver-etcd-client.key",
            )},
        ),
        (f"{spaced}/services", _named("kube-etcd") | {"spec": {"clusterIP": "None", "selector": {"app": "kube-etcd"}, "ports": [{"name": "client", "port": 2379}, {"name": "peer", "port": 2380}]}}),
        (f"{apps}/statefulsets", _user_etcd(layout, root)),
        (f"{apps}/statefulsets", _user_apiserver(layout, root)),
        (f"{apps}/deployments", _deployment("gke-master-etcd-maintenance", 1)),
        ("/apis/policy/v1/namespaces/skiff/poddisruptionbudgets", _budget("kube-apiserver") | _named("kube-apiserver-pdb")),
    ]  # fmt: skip


def _user_etcd(layout: Layout, root: Path) -> dict[str, Any]:
    certs, data = root / "etcd.local.config/certificates", root / "var/lib/etcd"
    ports = layout.ports
    client = f"https://{SKIFF_ADDRESS}:{ports['skiff_etcd']}"
    peer = f"https://{SKIFF_ADDRESS}:{ports['skiff_peer']}"
    tls = [f"{certs}/etcdCA.crt", f"{certs}/etcd.crt", f"{certs}/etcd.key"]
    command = [
        "etcd", "--name=kube-etcd-0", f"--data-dir={data}", "--client-cert-auth=true", "--peer-client-cert-auth=true",
        f"--trusted-ca-file={tls[0]}", f"--cert-file={tls[1]}", f"--key-file={tls[2]}",
        f"--peer-trusted-ca-file={tls[0]}", f"--peer-cert-file={tls[1]}", f"--peer-key-file={tls[2]}",
        f"--listen-client-urls={client},https://127.0.0.1:{ports['skiff_etcd']}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=kube-etcd-0={peer}",
        "--initial-cluster-token=etcd-cluster-1", f"--quota-backend-bytes={QUOTA_BYTES}",
        "--log-level=error",
        f"--listen-metrics-urls=http://{SKIFF_ADDRESS}:{ports['skiff_metrics']}",
    ]  # fmt: skip
    container = {
        "name": "kube-etcd", "image": ETCD_IMAGE, "command": command,
        "volumeMounts": [{"name": "data", "mountPath": str(data)}, {"name": "certs", "mountPath": str(certs), "readOnly": True}],
        "readinessProbe": _probe(ports["skiff_metrics"], "/health", "HTTP"),
    }  # fmt: skip
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard", "resources": {"requests": {"storage": "8Gi"}}},
    }  # fmt: skip
    return _stateful_set("kube-etcd", container, "kube-etcd-certs", [claim])


def _user_apiserver(layout: Layout, root: Path) -> dict[str, Any]:
    certs = root / "kube-apiserver.local.config/certificates"
    ports = layout.ports
    command = [
        "kube-apiserver", f"--advertise-address={SKIFF_ADDRESS}", f"--secure-port={ports['skiff_api']}",
        f"--client-ca-file={certs}/ca.crt", f"--tls-cert-file={certs}/apiserver.crt",
        f"--tls-private-key-file={certs}/apiserver.key", f"--etcd-cafile={certs}/etcdCA.crt",
        f"--etcd-certfile={certs}/apiserver-etcd-client.crt", f"--etcd-keyfile={certs}/apiserver-etcd-client.key",
        f"--etcd-servers=https://{SKIFF_ADDRESS}:{ports['skiff_etcd']}", "--storage-media-type=application/json",
    ]  # fmt: skip
    container = {
        "name": "kube-apiserver", "image": f"registry.k8s.io/kube-apiserver:{KUBERNETES_VERSION}", "command": command,
        "env": [{"name": "LAB_CLUSTER", "value": SKIFF}],
        "volumeMounts": [{"name": "certs", "mountPath": str(certs), "readOnly": True}],
        "readinessProbe": _probe(ports["skiff_api"], "/readyz", "HTTPS"),
    }  # fmt: skip
    return _stateful_set("kube-apiserver", container, "kube-apiserver-certs", [])


def _stateful_set(name: str, container: dict[str, Any], secret: str, claims: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {
        "terminationGracePeriodSeconds": 10, "containers": [container],
        "volumes": [{"name": "certs", "secret": {"secretName": secret}}],
    }  # fmt: skip
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    selector = {"matchLabels": {"app": name}}
    return _named(name, labels={"app": name}) | {
        "spec": {"serviceName": name, "replicas": 1, "selector": selector, "template": template, "volumeClaimTemplates": claims}
    }  # fmt: skip


def _probe(port: int, path: str, scheme: str) -> dict[str, Any]:
    return {"httpGet": {"host": SKIFF_ADDRESS, "port": port, "path": path, "scheme": scheme}, "periodSeconds": 1}


def _definition(kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return _named(f"{plural}.onprem.cluster.gke.io") | {
        "spec": {
            "group": "onprem.cluster.gke.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        }
    }  # fmt: skip


def _deployment(name: str, replicas: int) -> dict[str, Any]:
    selector = {"matchLabels": {"app": name}}
    return _named(name, labels={"app": name}) | {
        "spec": {"replicas": replicas, "selector": selector, "template": _template(name)}
    }


def _template(name: str) -> dict[str, Any]:
    container = {"name": name, "image": "docker.io/library/busybox:1.35.0", "command": ["sleep", "1000000"]}
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}


def _budget(app: str) -> dict[str, Any]:
    return _named(app) | {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}}


def _named(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": name} | ({"labels": labels} if labels else {})}


def _files(folder: Path, *names: str) -> dict[str, str]:
    return {name: _b64(folder / name) for name in names}


def _b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
