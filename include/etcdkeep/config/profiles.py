"""
What is known of a kind of control plane, so that a cluster's entry names only what differs.

Values come from the vendor's procedure for GKE on-prem (Anthos clusters on VMware) and from kubeadm's layout. A
profile is data: the defaults beneath one cluster's ``control_plane`` section; every value can be overridden there and
none stands anywhere else.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as err:
        raise ValueError(f"{text!r} is not a regular expression: {err}") from err
    return text


ProfileName = Literal["gke-admin", "gke-user-kubeception", "gke-user-controlplane-v2", "kubeadm"]
HostPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00\n]*$")]


class Section(BaseModel):
    """A part of the configuration: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EtcdTls(Section):
    """Client TLS files as the etcd *container* sees them."""

    ca: HostPath = Field("/etc/kubernetes/pki/etcd/ca.crt", description="CA that signed etcd's server certificate.")
    cert: HostPath = Field(
        "/etc/kubernetes/pki/etcd/healthcheck-client.crt", description="Client certificate that etcd accepts."
    )
    key: HostPath = Field("/etc/kubernetes/pki/etcd/healthcheck-client.key", description="Key of that certificate.")


class Kubelet(Section):
    """How the kubelet is stopped and started on a node (all run through sudo)."""

    stop: tuple[str, ...] = Field(
        ("systemctl", "stop", "kubelet"),
        min_length=1,
        description="Stops it; returns when it has stopped.",
        examples=[["systemctl", "stop", "kubelet"]],
    )
    start: tuple[str, ...] = Field(
        ("systemctl", "start", "kubelet"),
        min_length=1,
        description="Starts it; no error when it runs already.",
        examples=[["systemctl", "start", "kubelet"]],
    )
    running: tuple[str, ...] = Field(
        ("systemctl", "is-active", "kubelet"),
        min_length=1,
        description="Ends with 0 when it runs and with another code when it does not.",
        examples=[["systemctl", "is-active", "kubelet"]],
    )


class Workloads(Section):
    """Of a control plane that runs as pods of an admin cluster: its objects, all in the cluster's namespace."""

    etcd: str = Field("kube-etcd", description="StatefulSet of etcd.", examples=["kube-etcd"])
    clients: tuple[str, ...] = Field(
        ("statefulsets/kube-apiserver", "deployments/gke-master-etcd-maintenance"),
        description="Objects that are scaled to zero while etcd is restored, as kind/name; missing ones are skipped.",
        examples=[["statefulsets/kube-apiserver"]],
    )
    disruption_budget: str = Field(
        "kube-apiserver-pdb",
        description="PodDisruptionBudget that is removed during the restore, if it exists.",
        examples=["kube-apiserver-pdb"],
    )


class ControlPlane(Section):
    """Where etcd and the control plane's files are; the defaults here are kubeadm's."""

    namespace: str = Field(
        "kube-system",
        pattern=r"^(\{cluster\}|[a-z0-9-])+$",
        description="Namespace of the etcd pods; `{cluster}` stands for the cluster's name.",
        examples=["kube-system"],
    )
    pod_selector: str = Field(
        "component=etcd,tier=control-plane",
        description="Label selector of the etcd pods; empty to go by `pod_name` alone.",
        examples=["component=etcd,tier=control-plane"],
    )
    pod_name: Annotated[str, AfterValidator(_regular_expression)] = Field(
        ".*", description="Regular expression that a whole pod name must match.", examples=["kube-etcd-[0-9]+"]
    )
    container: str = Field("etcd", description="Container of the etcd pod in which etcdctl runs.", examples=["etcd"])
    etcdctl: tuple[str, ...] = Field(
        ("etcdctl",),
        min_length=1,
        description="How etcdctl is called in the container.",
        examples=[["env", "ETCDCTL_API=3", "etcdctl"]],
    )
    etcdutl: tuple[str, ...] = Field(
        ("etcdutl",),
        min_length=1,
        description="How etcdutl is called in the container (from etcd 3.6 on, which removed `snapshot status` from etcdctl).",
        examples=[["etcdutl"]],
    )
    endpoint: str = Field(
        "https://127.0.0.1:2379",
        pattern=r"^https?://[^\s,/]+$",
        description="Client URL of the member, as seen from inside its own pod.",
        examples=["https://127.0.0.1:2379"],
    )
    tls: EtcdTls = Field(default_factory=EtcdTls, description="Client TLS files inside the container.")
    snapshot_dir: HostPath = Field(
        "/tmp",  # noqa: S108 - a folder of the pod, not of this machine; names in it are unique per run
        description="Writable folder of the container in which the snapshot waits to be copied out.",
        examples=["/tmp"],  # noqa: S108
    )
    has_nodes: bool = Field(
        True, description="Whether the control plane has nodes of its own, with a PKI to back up.", examples=[True]
    )
    pki_dir: HostPath = Field(
        "/etc/kubernetes/pki", description="PKI folder on the node.", examples=["/etc/kubernetes/pki"]
    )
    manifests_dir: HostPath = Field(
        "/etc/kubernetes/manifests",
        description="Static pod manifests on the node.",
        examples=["/etc/kubernetes/manifests"],
    )
    admin_conf: HostPath = Field(
        "/etc/kubernetes/admin.conf",
        description="Administrator's kubeconfig on the node.",
        examples=["/etc/kubernetes/admin.conf"],
    )
    kubelet_files: tuple[HostPath, ...] = Field(
        ("/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env"),
        description="The kubelet's own files beside its kubeconfig, which is `kubelet.conf` beside `admin_conf`; they and what they name travel in the set when they exist.",
        examples=[["/var/lib/kubelet/config.yaml"]],
    )
    optional_paths: tuple[HostPath, ...] = Field(
        (),
        description="More files and folders of the node that travel in the set when they exist.",
        examples=[["/opt/data/gke-k8s-kms-plugin/generatedkeys"]],
    )
    required_files: tuple[str, ...] = Field(
        (
            "admin.conf",
            "manifests/etcd.yaml",
            "manifests/kube-apiserver.yaml",
            "pki/apiserver-etcd-client.crt",
            "pki/apiserver-etcd-client.key",
            "pki/apiserver-kubelet-client.crt",
            "pki/apiserver-kubelet-client.key",
            "pki/apiserver.crt",
            "pki/apiserver.key",
            "pki/ca.crt",
            "pki/etcd/ca.crt",
            "pki/etcd/peer.crt",
            "pki/etcd/peer.key",
            "pki/etcd/server.crt",
            "pki/etcd/server.key",
            "pki/front-proxy-ca.crt",
            "pki/front-proxy-client.crt",
            "pki/front-proxy-client.key",
            "pki/sa.key",
            "pki/sa.pub",
        ),
        description="Files that a complete node archive must hold; checked by level `pki`.",
        examples=[["pki/ca.crt", "pki/sa.key"]],
    )
    data_dir: HostPath = Field(
        "/var/lib/etcd", description="etcd's data folder on the node.", examples=["/var/lib/etcd"]
    )
    data_owner: str | None = Field(
        None,
        pattern=r"^[0-9]+:[0-9]+$",
        description="uid:gid of the data folder, if known in advance; what etcd's pod says (runAsUser, runAsGroup, fsGroup) comes first. Where neither is known, the owner stays as found.",
        examples=["2001:2001"],
    )
    restore_image: str | None = Field(
        None,
        description="Image with etcdctl for nodes that have no etcd tools of their own; `{version}` is the GKE version.",
        examples=["gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"],
    )
    static_pods: tuple[str, ...] = Field(
        ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        min_length=1,
        description="Containers that a restore stops; each one's manifest is `<name>.yaml`.",
        examples=[["etcd", "kube-apiserver"]],
    )
    kubelet: Kubelet = Field(default_factory=Kubelet, description="How the kubelet is stopped and started.")
    crictl: tuple[str, ...] = Field(
        ("crictl",), min_length=1, description="How crictl is called on a node.", examples=[["/opt/bin/crictl"]]
    )
    workloads: Workloads = Field(
        default_factory=Workloads, description="For a kubeception cluster: the objects that a restore scales."
    )


KMS_PLUGIN_KEYS = "/opt/data/gke-k8s-kms-plugin/generatedkeys"
ETCD_UTIL_IMAGE = "gcr.io/gke-on-prem-release/etcd-util:{version}"

PROFILES: dict[str, dict[str, Any]] = {
    "kubeadm": {},
    "gke-admin": {
        "optional_paths": [KMS_PLUGIN_KEYS],
        "data_owner": "2001:2001",
        "restore_image": ETCD_UTIL_IMAGE,
    },
    "gke-user-kubeception": {
        "namespace": "{cluster}",
        "pod_selector": "",
        "pod_name": "kube-etcd-[0-9]+",
        "container": "kube-etcd",
        "tls": {
            "ca": "/etcd.local.config/certificates/etcdCA.crt",
            "cert": "/etcd.local.config/certificates/etcd.crt",
            "key": "/etcd.local.config/certificates/etcd.key",
        },
        "has_nodes": False,
        "restore_image": ETCD_UTIL_IMAGE,
    },
    "gke-user-controlplane-v2": {
        "tls": {
            "ca": "/etc/kubernetes/pki/etcd/ca.crt",
            "cert": "/etc/kubernetes/pki/etcd/server.crt",
            "key": "/etc/kubernetes/pki/etcd/server.key",
        },
        "optional_paths": [KMS_PLUGIN_KEYS],
        "data_dir": "/opt/data/var/lib/etcd",
        "data_owner": "2001:2001",
    },
}
"""Per profile, what differs from kubeadm's layout."""
