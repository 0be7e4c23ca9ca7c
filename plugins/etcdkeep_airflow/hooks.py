"""Keys and clients from Airflow's connections, so that every secrets backend works as its users know it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from etcdkeep.adapters.core_dumps import forbid_core_dumps
from etcdkeep.adapters.kube_config import open_kubeconfig
from etcdkeep.adapters.site import Site, read_secret_file
from etcdkeep.config_file import load_config
from etcdkeep.errors import SecretUnavailable

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from kubernetes.client import ApiClient

    from etcdkeep.config import KubeconfigRef, SecretRef


class ConnectionCredentials:
    """
    Keys from Airflow connections, or from files of the worker.

    A key is the connection's ``private_key`` extra, else the file its ``key_file`` extra names, else its password.
    """

    def secret(self, ref: SecretRef) -> bytes:
        """Return a private key; it is masked in the task's log."""
        key = self._from_connection(ref.connection) if ref.connection else read_secret_file(str(ref.path))
        mask_key(key)
        return key

    def kubeconfig(self, ref: KubeconfigRef) -> bytes | None:
        """Return the kubeconfig's text, or None for the worker's own service account."""
        if ref.in_cluster:
            return None
        if ref.path:
            return read_secret_file(ref.path)
        extra = _connection(str(ref.connection)).extra_dejson
        if path := _kubernetes_extra(extra, "kube_config_path"):
            return read_secret_file(path)
        text = _kubernetes_extra(extra, "kube_config")
        if text is None:
            return None
        return (text if isinstance(text, str) else json.dumps(text)).encode()

    def api_client(self, ref: KubeconfigRef) -> ApiClient:
        """Return a client of the API that the connection, the file or the service account reaches."""
        text = self.kubeconfig(ref)
        if text is None:
            # takes a second to import, and only a worker inside the cluster needs it
            from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

            return KubernetesHook(conn_id=ref.connection, in_cluster=ref.in_cluster).get_conn()
        mask_key(text)
        context = (
            _kubernetes_extra(_connection(ref.connection).extra_dejson, "cluster_context") if ref.connection else None
        )
        return open_kubeconfig(text, context=context)

    def mask(self, key: bytes) -> None:
        """Mask a key that was found elsewhere in the task's log."""
        mask_key(key)

    def _from_connection(self, connection_id: str) -> bytes:
        connection = _connection(connection_id)
        extra = connection.extra_dejson
        if key := extra.get("private_key"):
            return str(key).encode()
        if extra.get("key_file"):
            return read_secret_file(extra["key_file"])
        if connection.password:
            return connection.password.encode()
        raise SecretUnavailable(
            f"Airflow connection {connection_id!r} holds no key: expected extra `private_key` or `key_file`, or a password."
        )


def open_site(cluster: str) -> Site:
    """
    Open a configured cluster with the keys of this Airflow; from here on this process leaves no core file.

    :raises ConfigError: when the configuration or the cluster's entry is not usable.
    """
    forbid_core_dumps()
    return Site(load_config().cluster(cluster), ConnectionCredentials())


def mask_key(secret: bytes) -> None:
    """Mask a key or kubeconfig in logs: every long word, since Airflow would mask only the text as a whole."""
    mask_secret(re.findall(r"[A-Za-z0-9+/=_.-]{20,}", secret.decode(errors="replace")))


def _connection(connection_id: str) -> Connection:
    try:
        return BaseHook.get_connection(connection_id)
    except AirflowNotFoundException as err:
        raise SecretUnavailable(
            f"Airflow has no connection {connection_id!r}, which {load_config().source} refers to; add it under Admin → Connections."
        ) from err


def _kubernetes_extra(extra: dict[str, Any], field: str) -> Any:
    return extra.get(field) or extra.get(f"extra__kubernetes__{field}")
