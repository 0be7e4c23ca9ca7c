"""
Where keys and connections come from, which differs between Airflow and the command line: :class:`Credentials` is that
difference. The API's client is imported when it is asked for: that takes a second, which a list of backups need not wait for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from etcdkeep.errors import SecretUnavailable

if TYPE_CHECKING:
    from etcdkeep.adapters.kube.connection import KubeConnection
    from etcdkeep.adapters.stores.s3_account import AwsAccount
    from etcdkeep.config.access import KubeconfigRef, SecretRef
    from etcdkeep.config.google_account import GoogleAccount
    from etcdkeep.config.ssh_login import SshLogin


class Credentials(Protocol):
    """Where keys and kubeconfigs are read from."""

    def secret(self, ref: SecretRef) -> bytes:
        """
        Return a private key.

        :raises SecretUnavailable: when it cannot be read here.
        """

    def ssh_login(self, connection: str) -> SshLogin:
        """
        Return what a connection of type `ssh` says.

        :raises ConfigError: when a field of it cannot be used.
        :raises SecretUnavailable: when it, or its key file, cannot be read here.
        """

    def google_account(self, connection: str) -> GoogleAccount | None:
        """
        Return what a connection of type `google_cloud_platform` says; None for the default credentials of where this runs.

        :raises ConfigError: when a field of it cannot be used.
        :raises SecretUnavailable: when it, or its key file, cannot be read here.
        """

    def aws_account(self, connection: str) -> AwsAccount | None:
        """
        Return what a connection of type `aws` says; None for boto3's own chain.

        :raises ConfigError: when a field of it cannot be used.
        """

    def kubeconfig(self, ref: KubeconfigRef) -> bytes | None:
        """
        Return a kubeconfig that works elsewhere too, its files embedded; None where the API is reached without one
        (in_cluster).
        """

    def api_client(self, ref: KubeconfigRef) -> KubeConnection:
        """Return a connection to the Kubernetes API."""

    def mask(self, key: bytes) -> None:
        """Keep a key that was found elsewhere out of the logs."""


class FileCredentials:
    """Keys from files: what the command line has on any laptop."""

    def secret(self, ref: SecretRef) -> bytes:
        if ref.path is None:
            raise SecretUnavailable(
                f"the key in Airflow connection {ref.connection!r} cannot be read outside Airflow; "
                "on the command line, refer to a file (`path:`), or for the age identity set ETCDKEEP_AGE_IDENTITY."
            )
        return read_secret_file(ref.path)

    def ssh_login(self, connection: str) -> SshLogin:
        raise SecretUnavailable(
            f"the login in Airflow connection {connection!r} cannot be read outside Airflow; on the command line, set user, port and "
            "key (`path:`) in place of ssh.connection, and host_keys."
        )

    def google_account(self, connection: str) -> None:
        """Whoever is at the command line uses their own account: GOOGLE_APPLICATION_CREDENTIALS, or gcloud's."""

    def aws_account(self, connection: str) -> None:
        """Whoever is at the command line uses their own account: AWS_PROFILE, AWS_ACCESS_KEY_ID, ~/.aws."""

    def kubeconfig(self, ref: KubeconfigRef) -> bytes | None:
        from etcdkeep.adapters.kube.config import portable_kubeconfig

        return None if ref.in_cluster else portable_kubeconfig(self._kubeconfig_path(ref), ref.context)

    def api_client(self, ref: KubeconfigRef) -> KubeConnection:
        from etcdkeep.adapters.kube.config import Permits, open_in_cluster, open_kubeconfig

        if ref.in_cluster:
            return open_in_cluster()
        return open_kubeconfig(self._kubeconfig_path(ref), ref.context, permits=Permits.of(ref))

    def _kubeconfig_path(self, ref: KubeconfigRef) -> Path:
        if ref.path is None:
            raise SecretUnavailable(
                f"the kubeconfig in Airflow connection {ref.connection!r} cannot be read outside Airflow; on the command line, "
                "refer to a file (`path:`)."
            )
        return Path(ref.path)

    def mask(self, key: bytes) -> None:
        """The command line keeps no log."""


def read_secret_file(path: str) -> bytes:
    """
    Return a key file's content.

    :raises SecretUnavailable: when it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise SecretUnavailable(
            f"key file {path} cannot be read: {err.strerror}. Put it there, readable by this user only (0600)."
        ) from err
