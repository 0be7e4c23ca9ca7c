"""
One configured cluster with its clients: API, nodes, repository, spool and keys, each opened when first used. What speaks
to an API or a node is imported then too: that takes a second, which a list of backups need not wait for.

Where the keys come from differs (Airflow connections or files): :mod:`etcdkeep.site.credentials`.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from etcdkeep.adapters.stores.opening import open_store
from etcdkeep.backup.spool import Spool
from etcdkeep.config.access import SshKeyRef
from etcdkeep.config.copies import BUCKETS, scheme
from etcdkeep.config.host_keys import known_hosts_line, known_hosts_name
from etcdkeep.config.ssh_login import NO_OPTIONS
from etcdkeep.control_plane.access_files import SSH_KEY, SSH_PASSWORD
from etcdkeep.control_plane.pem import PemError, normalise_private_key
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    NotFound,
    ServerUntrusted,
    TransientError,
)
from etcdkeep.naming import split_address
from etcdkeep.sealing.age_keys import Identity, parse_identities
from etcdkeep.sealing.seal import opens
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.sets.repository import Repository
from etcdkeep.site.credentials import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from etcdkeep.adapters.kube.client import KubeApiClient
    from etcdkeep.adapters.ssh.node import NodeTarget
    from etcdkeep.adapters.stores.s3_account import AwsAccount
    from etcdkeep.config.access import JumpHost, Ssh
    from etcdkeep.config.google_account import GoogleAccount
    from etcdkeep.config.models import Cluster
    from etcdkeep.config.ssh_login import SshLogin
    from etcdkeep.ports import CommandRunner, ObjectStore
    from etcdkeep.records import Purpose
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.site.credentials import Credentials

log = logging.getLogger(__name__)

JUMP_SSH_KEY = "jump_ssh_key"
JUMP_SSH_PASSWORD = "jump_ssh_password"  # noqa: S105 - names a file
"""Names of files in a set's access archive, beside those that `verify` opens."""


class Site:
    """
    One cluster's clients. A store, a client or a key is opened when it is first asked for.

    :param keys_of: The set that SSH keys come from where they are in a Secret of a cluster whose API does not give them.
    :param identity_file: File with the private age identity, used in place of the configured one.
    """

    def __init__(
        self,
        cluster: Cluster,
        credentials: Credentials,
        keys_of: BackupSet | None = None,
        *,
        identity_file: str | None = None,
    ) -> None:
        self.cluster = cluster
        self.credentials = credentials
        self.keys_of = keys_of
        self.identity_file = identity_file
        self._signers: dict[Purpose, Ed25519PrivateKey] = {}
        self._accounts: dict[tuple[str, str], GoogleAccount | AwsAccount | None] = {}

    def with_keys_of(self, found: BackupSet | None) -> Site:
        """Return the site of the same cluster that takes SSH keys from this set at need; what is open already stays open in both."""
        made = Site(self.cluster, self.credentials, found, identity_file=self.identity_file)
        opened = {name: value for name, value in vars(self).items() if name not in vars(made)}
        vars(made).update(opened, _signers=self._signers)
        return made

    @cached_property
    def api(self) -> KubeApiClient:
        """The Kubernetes API."""
        if self.cluster.kubeconfig is None:
            raise ConfigError(f"cluster {self.cluster.name!r} has no kubeconfig.")
        from etcdkeep.adapters.kube.client import KubeApiClient

        return KubeApiClient(self.credentials.api_client(self.cluster.kubeconfig))

    @cached_property
    def own_api(self) -> KubeApiClient:
        """
        The API that serves the cluster's own objects, which for kubeception is not the one that reaches its etcd.

        :raises ConfigError: when there is no way to it in the configuration.
        """
        if self.cluster.control_plane.has_nodes:
            return self.api
        if self.cluster.own_kubeconfig is None:
            raise ConfigError(
                f"cluster {self.cluster.name!r} has no own_kubeconfig, and its kubeconfig reaches the admin cluster, which holds other objects. Set own_kubeconfig; or export the YAML: python -m etcdkeep objects recover --to FOLDER."
            )
        from etcdkeep.adapters.kube.client import KubeApiClient

        return KubeApiClient(self.credentials.api_client(self.cluster.own_kubeconfig))

    @cached_property
    def repository(self) -> Repository:
        """The backup sets."""
        return self._open_repository(self.cluster.repository, self.cluster.repository_connection)

    @property
    def repositories(self) -> dict[str, Callable[[], Repository]]:
        """Every repository of the cluster by its URL, the first one before its copies; opened when called."""
        return {self.cluster.repository: lambda: self.repository, **self.copies}

    @property
    def copies(self) -> dict[str, Callable[[], Repository]]:
        """The copies, by their URL; opened when called."""
        return {each.repository: partial(self._open_repository, each.repository, each.connection) for each in self.cluster.copies}  # fmt: skip

    def use(self, url: str) -> None:
        """
        Take one of the cluster's repositories in place of the first, for everything that follows.

        :raises ConfigError: when it is none of them.
        """
        known = {name.rstrip("/"): opener for name, opener in self.copies.items()}
        if url.rstrip("/") == self.cluster.repository.rstrip("/"):
            return
        if url.rstrip("/") not in known:
            raise ConfigError(
                f"{url!r} is not a repository of cluster {self.cluster.name!r}; it has {', '.join((self.cluster.repository, *self.copies))}."
            )
        self.__dict__["repository"] = known[url.rstrip("/")]()

    def _open_repository(self, url: str, connection: str | None) -> Repository:
        others = (self.cluster.repository, *(copy.repository for copy in self.cluster.copies))
        return Repository(self.store_at(url, connection), self.cluster.signing.trust, self.signer, others)

    def spool(self, identifier: str) -> Spool:
        """Return one run's folder in the spool."""
        return Spool(self.spool_store, self.cluster.name, identifier, self.cluster.age_recipients)

    @property
    def spool_store(self) -> ObjectStore:
        """The store that holds the spool."""
        return self.store_at(self.cluster.spool_url, self.cluster.repository_connection)

    def store_at(self, url: str, connection: str | None) -> ObjectStore:
        """Open a store with the rights that a connection gives."""
        return open_store(url, self._account(url, connection))

    def _account(self, url: str, connection: str | None) -> GoogleAccount | AwsAccount | None:
        """Return whose rights are used in a bucket, as a connection says."""
        kind = scheme(url)
        if connection is None or kind not in BUCKETS:
            return None
        if (kind, connection) not in self._accounts:
            read = self.credentials.google_account if kind == "gs" else self.credentials.aws_account
            self._accounts[kind, connection] = read(connection)
        return self._accounts[kind, connection]

    @contextmanager
    def open_node(self, address: str) -> Iterator[CommandRunner]:
        """Open a shell on a node, through the jump host where one is configured; `address` is host or host:port."""
        from etcdkeep.adapters.ssh.node import open_node

        target, jump = self.node_target(address)
        with open_node(target, self.ssh_key, jump=jump, connect_s=self.cluster.limits.connect_s) as shell:
            yield shell

    @contextmanager
    def open_jump_host(self) -> Iterator[str]:
        """
        Log in to the jump host alone, and give its name.

        :raises ConfigError: when none is configured.
        """
        from etcdkeep.adapters.ssh.connect import connected

        hop = self._jump_target()
        if hop is None:
            raise ConfigError(f"cluster {self.cluster.name!r} has no ssh.jump.")
        with connected(hop, self.jump_ssh_key, None, self.cluster.limits.connect_s):
            yield f"host {hop.name}"

    def node_target(self, address: str) -> tuple[NodeTarget, tuple[NodeTarget, bytes] | None]:
        """Return where a node's SSH is, and the jump host with its key where one is configured."""
        ssh, login = self.ssh, self._login
        host, port = split_address(address, ssh.port)
        if login:
            login.check_host(host, "ssh.addresses.NODE")
        target = self._target(ssh, host, port, login)
        hop = self._jump_target()
        return target, (hop, self.jump_ssh_key) if hop else None

    def _jump_target(self) -> NodeTarget | None:
        hop = self._jump
        return self._target(hop, hop.host, hop.port, self._jump_login, setting="ssh.jump") if hop else None

    def _target(
        self, ssh: Ssh | JumpHost, host: str, port: int, login: SshLogin | None, setting: str = "ssh"
    ) -> NodeTarget:
        from etcdkeep.adapters.ssh.node import NodeTarget

        password, options = self._password(ssh, login), login.options if login else NO_OPTIONS
        return NodeTarget(host, port, ssh.user, ssh.host_keys, ssh.weak_algorithms, setting, password, options)

    @cached_property
    def ssh(self) -> Ssh:
        """How the nodes are reached: the configuration, with what its connections say in its place."""
        ssh = self.cluster.ssh
        if not (self.cluster.control_plane.has_nodes or ssh.addresses):
            return ssh  # nothing is reached, so no connection need be readable here
        said = _said_by(self._login, ssh) if self._login else {}
        return ssh.model_copy(update={**said, "jump": self._jump})

    @cached_property
    def _jump(self) -> JumpHost | None:
        jump, login = self.cluster.ssh.jump, self._jump_login
        if jump is None or login is None:
            return jump
        if jump.host:
            login.check_host(jump.host, "ssh.jump.host")
        elif not login.host:
            raise ConfigError(f"{login.source} has no host. Set it, or ssh.jump.host of cluster {self.cluster.name!r}.")
        key = SshKeyRef(connection=jump.connection) if login.key else None
        return jump.model_copy(update={**_said_by(login, jump), "host": jump.host or login.host, "key": key})

    @cached_property
    def _login(self) -> SshLogin | None:
        connection = self.cluster.ssh.connection
        return self.credentials.ssh_login(connection) if connection else None

    @cached_property
    def _jump_login(self) -> SshLogin | None:
        jump = self.cluster.ssh.jump
        return self.credentials.ssh_login(jump.connection) if jump and jump.connection else None

    @cached_property
    def ssh_key(self) -> bytes:
        """The private key for the nodes; empty where they are reached by password alone."""
        ssh = self.cluster.ssh
        if self._login:
            return self._login.key
        if ssh.password_file and "key" not in ssh.model_fields_set:
            return b""
        return self._ssh_key(ssh.key, SSH_KEY, ssh.key_passphrase_file)

    @cached_property
    def jump_ssh_key(self) -> bytes:
        """The private key for the jump host: its own, else that of the nodes; empty where it is reached by password alone."""
        jump = self.cluster.ssh.jump
        if self._jump_login:
            return self._jump_login.key
        if jump and jump.key:
            return self._ssh_key(jump.key, JUMP_SSH_KEY, jump.key_passphrase_file)
        return b"" if jump and jump.password_file else self.ssh_key

    def _password(self, ssh: Ssh | JumpHost, login: SshLogin | None) -> str:
        if login:
            return login.password
        if ssh.password_file is None:
            return ""
        password = read_secret_file(ssh.password_file).rstrip(b"\r\n")
        self.credentials.mask(password)
        return password.decode(errors="replace")

    def signer(self, purpose: Purpose) -> Ed25519PrivateKey:
        """
        Return the key that signs for a purpose.

        :raises ConfigError: when none is configured, or its public key is not among the trusted ones.
        """
        if purpose not in self._signers:
            signing = self.cluster.signing.for_purpose(purpose)
            if signing.key is None:
                raise ConfigError(
                    f"cluster {self.cluster.name!r}: no key to sign for purpose {purpose!r} is configured here. Set signing.{purpose}.key, or "
                    "signing.key for all purposes."
                )
            self._signers[purpose] = load_signing_key(self.credentials.secret(signing.key), trusted=signing.public_keys)
        return self._signers[purpose]

    def identities(self) -> list[Identity] | None:
        """Return the private age identities: those of the file given to this site, else the configured ones, else None."""
        if self.identity_file:
            return parse_identities(read_secret_file(self.identity_file))
        if self.cluster.age_identity is None:
            return None
        return parse_identities(self.credentials.secret(self.cluster.age_identity))

    def index_identities(self) -> list[Identity] | None:
        """
        Return the private age identities that open indexes and nothing else, or None where none is configured.

        Older backups may be sealed to others: :func:`~etcdkeep.objects.index_key.refuse_whole_backups` tells, of each that is read.

        :raises ConfigError: when they open what is sealed to today's recipients.
        """
        if self.cluster.index_identity is None:
            return None
        identities = parse_identities(self.credentials.secret(self.cluster.index_identity))
        if opens(identities, self.cluster.age_recipients):
            raise ConfigError(
                f"index_identity of cluster {self.cluster.name!r} opens whole backups. Give the indexes a key of their own "
                "(python -m etcdkeep keygen), and its public half to index_recipients."
            )
        return identities

    def access_files(self) -> dict[str, bytes]:
        """Return what a person needs to reach the cluster on the day its API is gone, by file name."""
        ssh = self.ssh
        given = {SSH_KEY: self.ssh_key, SSH_PASSWORD: self._password(ssh, self._login).encode()}
        if ssh.jump:
            if ssh.jump.key is not None:
                given[JUMP_SSH_KEY] = self.jump_ssh_key
            given[JUMP_SSH_PASSWORD] = self._password(ssh.jump, self._jump_login).encode()
        files = {name: secret for name, secret in given.items() if secret}
        files["known_hosts"] = "".join(f"{line}\n" for line in self._known_hosts()).encode()
        kubeconfig = self.credentials.kubeconfig(self.cluster.kubeconfig) if self.cluster.kubeconfig else None
        return files if kubeconfig is None else {**files, "kubeconfig": kubeconfig}

    def _known_hosts(self) -> Iterator[str]:
        """Yield lines for ssh: a key that is configured without a name is good for every node of the cluster."""
        ssh = self.ssh
        for line in ssh.host_keys:
            yield known_hosts_line(line, "*")
        if ssh.jump:
            for line in ssh.jump.host_keys:
                yield known_hosts_line(line, known_hosts_name(ssh.jump.host, ssh.jump.port))

    def _ssh_key(self, ref: SshKeyRef, file: str, passphrase_file: str | None) -> bytes:
        """
        Return a key as OpenSSH reads it from a file, which is how the access archive keeps it too.

        One that is no key stays as it is: a login with it fails and says why, and a cluster without nodes needs none.
        """
        raw = self._raw_ssh_key(ref, file)
        passphrase = read_secret_file(passphrase_file).rstrip(b"\r\n") if passphrase_file else b""
        try:
            key = normalise_private_key(raw, passphrase)
        except PemError as err:
            where = ref.secret or ref.path or f"Airflow connection {ref.connection!r}"
            setting = "ssh.key" if file == SSH_KEY else "ssh.jump.key"
            log.warning("cluster %s: %s: what is in %s %s", self.cluster.name, setting, where, err)
            return raw
        if key != raw:
            self.credentials.mask(key)
        return key

    def _raw_ssh_key(self, ref: SshKeyRef, file: str) -> bytes:
        if ref.secret is None:
            return self.credentials.secret(ref)
        try:
            key = self._key_in_secret(ref.secret)
        except (TransientError, AccessDenied, NotFound, ServerUntrusted) as err:
            if self.keys_of is None:
                raise
            log.warning("cluster %s: SSH key taken from backup %s: %s", self.cluster.name, self.keys_of.name, err)
            key = self._key_in_set(self.keys_of, file)
        self.credentials.mask(key)
        return key

    def _key_in_secret(self, path: str) -> bytes:
        namespace, name, field = path.split("/")
        found = self.api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        try:
            return b64decode((found.get("data") or {})[field])
        except KeyError as err:
            raise NotFound(
                f"Secret {namespace}/{name} has no field {field!r}; set ssh.key of cluster {self.cluster.name!r}."
            ) from err

    def _key_in_set(self, found: BackupSet, file: str) -> bytes:
        from etcdkeep.control_plane.archive import (
            read_archive,  # only this needs them, and a list need not wait for them
        )
        from etcdkeep.sets.opening import ARCHIVE_LIMIT_BYTES, open_artifact

        artifact = found.manifest.artifact("access") if found.manifest else None
        if artifact is None:
            raise NotFound(f"backup {found.name} holds no SSH key; set ssh.key of cluster {self.cluster.name!r}.")
        with open_artifact(self.repository.store, found.name, artifact, self.identities()) as plain:
            return read_archive(plain, ARCHIVE_LIMIT_BYTES)[file]


def _said_by(login: SshLogin, ssh: Ssh | JumpHost) -> dict[str, Any]:
    """Return the settings that a connection gives."""
    return {"user": login.user, "port": login.port, "host_keys": (*ssh.host_keys, *login.host_keys)}
