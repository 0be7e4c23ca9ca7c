"""
Reads an Airflow connection of type `kubernetes`: which kubeconfig it gives, and which context of it.

Airflow's own hook takes the worker's ``~/.kube/config`` when the extra is empty or a field is mistyped, and so talks to
another cluster. Here each field is known, and exactly one says where the kubeconfig is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError
from etcdkeep_airflow.connection_fields import Fields

if TYPE_CHECKING:
    from airflow.sdk import Connection

PREFIX = "extra__kubernetes__"
"""Airflow before 2.3 wrote it before every field."""

SOURCES = ("kube_config", "kube_config_path", "in_cluster")
HONOURED = (*SOURCES, "cluster_context", "disable_tcp_keepalive")
OF_PODS = "It is for pods that Airflow starts: give etcdkeep a connection of its own, without it."
REFUSED = {
    "disable_verify_ssl": (
        "Set insecure-skip-tls-verify in its kubeconfig, and allow_insecure in the cluster's entry."
    ),
    "namespace": (
        "The namespace of etcd's pods is control_plane.namespace in the cluster's entry: give etcdkeep a connection of its own, "
        "without it."
    ),
    "xcom_sidecar_container_image": OF_PODS,
    "xcom_sidecar_container_resources": OF_PODS,
    "xcom_sidecar_container_security_context": OF_PODS,
}


@dataclass(frozen=True)
class KubernetesConnection:
    """
    What a connection says.

    :param text: The kubeconfig itself, or None.
    :param path: Its file, or None. With neither, it is the pod's own service account.
    :param name: What to call the kubeconfig in messages.
    :param keepalive: Whether the kernel keeps quiet connections open.
    """

    text: str | None = field(default=None, repr=False)
    path: str | None = None
    context: str | None = None
    keepalive: bool = True
    name: str = ""

    @property
    def source(self) -> bytes | Path | None:
        """The kubeconfig's text or its file; None for the pod's own service account."""
        return Path(self.path) if self.path else self.text.encode() if self.text else None


def read_connection(connection: Connection) -> KubernetesConnection:
    """
    Read a connection.

    :raises ConfigError: naming the field that is missing, unknown, not supported, or one too many.
    """
    fields = Fields(connection, "kubernetes", HONOURED, REFUSED, prefix=PREFIX)
    in_cluster = fields.flag("in_cluster")
    given = [name for name in SOURCES if name in fields.values and (in_cluster or name != "in_cluster")]
    if len(given) != 1:
        others = sorted(name for name in fields.values if in_cluster or name != "in_cluster")
        found = " and ".join(given) if given else ", ".join(others) or "nothing"
        raise ConfigError(
            f"{fields.name} does not say which cluster it reaches: expected exactly one of the extra's "
            f"fields {', '.join(SOURCES)}, found {found}. Set it under Admin → Connections."
        )
    fields.refuse(harmless={"disable_verify_ssl": False})
    context = fields.text("cluster_context")
    if in_cluster and context:
        raise ConfigError(
            f"{fields.name} has both in_cluster and cluster_context; a pod's own account has no contexts. Remove one."
        )
    text = fields.values.get("kube_config")
    if isinstance(text, dict):
        text = json.dumps(text)
    elif text is not None:
        text = fields.text("kube_config")
    keepalive = not fields.flag("disable_tcp_keepalive")
    path = fields.path("kube_config_path")
    name = f"{path or 'kube_config'} of {fields.name}"
    return KubernetesConnection(text, path, context, keepalive, name)
