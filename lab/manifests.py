"""Static pod manifests as kubeadm writes them; only paths, addresses and ports are the lab's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from lab.layout import KUBERNETES_VERSION, LOOPBACK, ClusterLayout, Node

if TYPE_CHECKING:
    from pathlib import Path

ETCD_IMAGE = "registry.k8s.io/etcd:3.5.1-0"
ETCD_UTIL_IMAGE = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
QUOTA_BYTES = 8 * 2**30


def static_pods(cluster: ClusterLayout, node: Node) -> dict[str, str]:
    """Return file name → YAML for one node's ``manifests`` folder."""
    pods = (
        etcd_pod(cluster, node),
        apiserver_pod(cluster, node),
        controller_manager_pod(cluster, node),
        scheduler_pod(node),
    )
    return {
        f"{pod['metadata']['name']}.yaml": yaml.safe_dump(pod, default_flow_style=False, width=10_000) for pod in pods
    }


def own_loopback(cluster: ClusterLayout, node: Node) -> str:
    """Return where a server binds that kubeadm puts on 127.0.0.1; several nodes cannot share that one here."""
    return node.address if cluster.balanced else LOOPBACK


def etcd_pod(cluster: ClusterLayout, node: Node) -> dict[str, Any]:
    pki, data = node.view / "etc/kubernetes/pki/etcd", node.view / node.data
    peer = f"https://{node.address}:{cluster.peer_port}"
    client = f"https://{node.address}:{cluster.etcd_port}"
    members = ",".join(f"{other.name}=https://{other.address}:{cluster.peer_port}" for other in cluster.nodes)
    listen = client if cluster.balanced else f"https://{LOOPBACK}:{cluster.etcd_port},{client}"
    command = [
        "etcd",
        f"--advertise-client-urls={client}",
        f"--cert-file={pki}/server.crt",
        "--client-cert-auth=true",
        f"--data-dir={data}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={members}",
        "--initial-cluster-state=new",
        f"--key-file={pki}/server.key",
        f"--listen-client-urls={listen}",
        f"--listen-metrics-urls=http://{own_loopback(cluster, node)}:{cluster.metrics_port}",
        f"--listen-peer-urls={peer}",
        "--log-level=error",  # the gateway that the API stand-in uses warns at every request
        f"--name={node.name}",
        f"--peer-cert-file={pki}/peer.crt",
        "--peer-client-cert-auth=true",
        f"--peer-key-file={pki}/peer.key",
        f"--peer-trusted-ca-file={pki}/ca.crt",
        f"--quota-backend-bytes={QUOTA_BYTES}",
        "--snapshot-count=10000",
        f"--trusted-ca-file={pki}/ca.crt",
    ]
    probe = {"host": own_loopback(cluster, node), "path": "/health", "port": cluster.metrics_port, "scheme": "HTTP"}
    volumes = {"etcd-certs": pki, "etcd-data": data}
    annotations = {"kubeadm.kubernetes.io/etcd.advertise-client-urls": client}
    return _pod("etcd", ETCD_IMAGE, command, volumes, probe, annotations)


def apiserver_pod(cluster: ClusterLayout, node: Node) -> dict[str, Any]:
    pki = node.view / "etc/kubernetes/pki"
    command = [
        "kube-apiserver",
        f"--advertise-address={node.address}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={pki}/ca.crt",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth=true",
        f"--etcd-cafile={pki}/etcd/ca.crt",
        f"--etcd-certfile={pki}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={pki}/apiserver-etcd-client.key",
        f"--etcd-servers=https://{LOOPBACK}:{cluster.etcd_port}",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--requestheader-allowed-names=front-proxy-client",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--secure-port={cluster.api_port}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--storage-media-type=application/json",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
    ]
    probe = {"host": node.address, "path": "/readyz", "port": cluster.api_port, "scheme": "HTTPS"}
    annotation = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"
    annotations = {annotation: f"{node.address}:{cluster.api_port}"}
    image = f"registry.k8s.io/kube-apiserver:{KUBERNETES_VERSION}"
    return _pod("kube-apiserver", image, command, {"k8s-certs": pki}, probe, annotations)


def controller_manager_pod(cluster: ClusterLayout, node: Node) -> dict[str, Any]:
    kubernetes = node.view / "etc/kubernetes"
    conf = kubernetes / "controller-manager.conf"
    command = [
        "kube-controller-manager",
        f"--authentication-kubeconfig={conf}",
        f"--authorization-kubeconfig={conf}",
        "--bind-address=127.0.0.1",
        f"--client-ca-file={kubernetes}/pki/ca.crt",
        f"--cluster-name={cluster.name}",
        f"--cluster-signing-cert-file={kubernetes}/pki/ca.crt",
        f"--cluster-signing-key-file={kubernetes}/pki/ca.key",
        "--controllers=*,bootstrapsigner,tokencleaner",
        f"--kubeconfig={conf}",
        "--leader-elect=true",
        f"--root-ca-file={kubernetes}/pki/ca.crt",
        f"--service-account-private-key-file={kubernetes}/pki/sa.key",
        "--use-service-account-credentials=true",
    ]
    image = f"registry.k8s.io/kube-controller-manager:{KUBERNETES_VERSION}"
    return _pod("kube-controller-manager", image, command, {"k8s-certs": kubernetes / "pki", "kubeconfig": conf})


def scheduler_pod(node: Node) -> dict[str, Any]:
    conf = node.view / "etc/kubernetes/scheduler.conf"
    command = [
        "kube-scheduler",
        f"--authentication-kubeconfig={conf}",
        f"--authorization-kubeconfig={conf}",
        "--bind-address=127.0.0.1",
        f"--kubeconfig={conf}",
        "--leader-elect=true",
    ]
    return _pod("kube-scheduler", f"registry.k8s.io/kube-scheduler:{KUBERNETES_VERSION}", command, {"kubeconfig": conf})


def _pod(
    name: str,
    image: str,
    command: list[str],
    volumes: dict[str, Path],
    probe: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "command": command,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "name": name,
        "resources": {"requests": {"cpu": "100m"}},
        "volumeMounts": [{"mountPath": str(path), "name": volume} for volume, path in volumes.items()],
    }
    if probe:
        container["readinessProbe"] = {
            "failureThreshold": 3,
            "httpGet": probe,
            "periodSeconds": 1,
            "timeoutSeconds": 15,
        }
    metadata: dict[str, Any] = {
        "labels": {"component": name, "tier": "control-plane"},
        "name": name,
        "namespace": "kube-system",
    }
    if annotations:
        metadata["annotations"] = annotations
    kinds = {"kubeconfig": "FileOrCreate"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [container],
            "hostNetwork": True,
            "priority": 2000001000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"hostPath": {"path": str(path), "type": kinds.get(volume, "DirectoryOrCreate")}, "name": volume}
                for volume, path in volumes.items()
            ],
        },
        "status": {},
    }
