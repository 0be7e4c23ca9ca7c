"""Keys and clients from Airflow's connections, so that every secrets backend works as its users know it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSecretsBackendAccessDenied
from airflow.sdk.log import mask_secret

from etcdkeep.adapters.core_dumps import forbid_core_dumps
from etcdkeep.adapters.kube.config import Permits, open_in_cluster, open_kubeconfig, portable_kubeconfig
from etcdkeep.config.access import SshKeyRef
from etcdkeep.config.loading import config_path, load_cluster
from etcdkeep.errors import SecretUnavailable
from etcdkeep.site.credentials import read_secret_file
from etcdkeep.site.site import Site
from etcdkeep_airflow.aws_connection import read_aws_connection
from etcdkeep_airflow.connection_fields import file_path
from etcdkeep_airflow.google_connection import read_google_connection
from etcdkeep_airflow.kubernetes_connection import KubernetesConnection, read_connection
from etcdkeep_airflow.ssh_connection import read_ssh_connection, read_ssh_key

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from etcdkeep.adapters.kube.connection import KubeConnection
    from etcdkeep.adapters.stores.s3_account import AwsAccount
    from etcdkeep.config.access import KubeconfigRef, SecretRef
    from etcdkeep.config.google_account import GoogleAccount
    from etcdkeep.config.ssh_login import SshLogin


class ConnectionCredentials:
    """
    Keys from Airflow connections, or from files of the worker.

    A key is the connection's ``private_key`` extra, else the file its ``key_file`` extra names, else, but never for SSH,
    its password.

    :param masks: Whether there is a task's log in which keys are to be masked. Each new one costs Airflow more than the last.
    """

    def __init__(self, *, masks: bool = True) -> None:
        self._masks = masks

    def secret(self, ref: SecretRef) -> bytes:
        """Return a private key; it is masked in the task's log."""
        if ref.connection is None:
            key = read_secret_file(str(ref.path))
        elif isinstance(ref, SshKeyRef):
            key = read_ssh_key(find_connection(ref.connection))
        else:
            key = self._from_connection(ref.connection)
        self.mask(key)
        return key

    def ssh_login(self, connection: str) -> SshLogin:
        """Return what a connection of type `ssh` says; its key and password are masked in the task's log."""
        login = read_ssh_connection(find_connection(connection))
        self.mask(login.key)
        if login.password and self._masks:
            mask_secret(login.password)
        return login

    def google_account(self, connection: str) -> GoogleAccount:
        """Return what a connection of type `google_cloud_platform` says; its key is masked in the task's log."""
        account = read_google_connection(find_connection(connection))
        if account.key:
            self.mask(str(account.key["private_key"]).encode())
        return account

    def aws_account(self, connection: str) -> AwsAccount:
        """Return what a connection of type `aws` says; its secrets are masked in the task's log."""
        account = read_aws_connection(find_connection(connection))
        for secret in (account.secret_key, account.session_token):
            if secret and self._masks:
                mask_secret(secret)
        return account

    def kubeconfig(self, ref: KubeconfigRef) -> bytes | None:
        """Return a kubeconfig that works elsewhere too, or None for the worker's own service account."""
        found = _kubernetes(ref)
        if found.source is None:
            return None
        text = portable_kubeconfig(found.source, found.context, name=found.name)
        self.mask(text)
        return text

    def api_client(self, ref: KubeconfigRef) -> KubeConnection:
        """Return a connection to the API that the connection, the file or the service account reaches."""
        found = _kubernetes(ref)
        if found.source is None:
            return open_in_cluster(keepalive=found.keepalive)
        if isinstance(found.source, bytes):
            self.mask(found.source)
        else:
            with suppress(OSError):  # that it cannot be read is said below
                self.mask(found.source.read_bytes())
        return open_kubeconfig(
            found.source,
            found.context,
            permits=Permits.of(ref),
            mask=self.mask,
            keepalive=found.keepalive,
            name=found.name,
        )

    def mask(self, key: bytes) -> None:
        """Mask a key in the task's log, also one that was found elsewhere."""
        if self._masks:
            mask_key(key)

    def _from_connection(self, connection_id: str) -> bytes:
        connection = find_connection(connection_id)
        extra = connection.extra_dejson
        if key := extra.get("private_key"):
            return str(key).encode()
        if file := extra.get("key_file"):
            return read_secret_file(file_path(f"Airflow connection {connection_id!r}", "key_file", str(file)))
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
    return Site(load_cluster(cluster), ConnectionCredentials())


def _kubernetes(ref: KubeconfigRef) -> KubernetesConnection:
    """Return where a kubeconfig is, and the context of it; the cluster's entry goes before the connection."""
    if ref.in_cluster:
        return KubernetesConnection()
    if ref.path:
        return KubernetesConnection(path=ref.path, context=ref.context)
    found = read_connection(find_connection(str(ref.connection)))
    return replace(found, context=ref.context or found.context)


def beside_airflow() -> ConnectionCredentials:
    """
    Return the keys for a process that is no task, such as the command line beside a scheduler.

    Tasks are given connections by their supervisor. Elsewhere Airflow looks into its database, where those of its interface are,
    only when it is told that it may.
    """
    forbid_core_dumps()
    read_airflows_database()
    return ConnectionCredentials(masks=False)


def read_airflows_database() -> None:
    """Let this process, which is no task, find connections of Airflow's database. The variable is Airflow's own and private."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def mask_key(secret: bytes) -> None:
    """Mask a key or kubeconfig in logs: every long word, since Airflow would mask only the text as a whole."""
    mask_secret(re.findall(r"[A-Za-z0-9+/=_.-]{20,}", secret.decode(errors="replace")))


def find_connection(connection_id: str) -> Connection:
    """
    Return an Airflow connection.

    :raises SecretUnavailable: when there is none, or it may not be read.
    """
    try:
        return BaseHook.get_connection(connection_id)
    except AirflowSecretsBackendAccessDenied as err:
        raise SecretUnavailable(
            f"A secrets backend denies Airflow connection {connection_id!r}. Let this worker's account read it there."
        ) from err
    except AirflowNotFoundException as err:
        raise SecretUnavailable(
            f"Airflow has no connection {connection_id!r}, which {config_path()} refers to; add it under Admin → Connections."
        ) from err
