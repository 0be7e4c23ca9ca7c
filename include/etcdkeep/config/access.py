"""How a site is reached: where its kubeconfigs, SSH logins and secrets are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from etcdkeep.config.profiles import HostPath, Section
from etcdkeep.config.values import Address, HostKeyLine, Port, Program, WeakAlgorithm

PLACES = ("connection", "path", "in_cluster", "secret")
"""Fields of which a reference has exactly one."""


class SecretRef(Section):
    """Where a key is kept: exactly one of an Airflow connection or a file. Never the key itself."""

    connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection id; the key is its `private_key` extra, else the file of its `key_file` extra, else its password.",
        examples=["etcdkeep_signing"],
    )
    path: HostPath | None = Field(
        None,
        description="File with the key, readable by the worker only.",
        examples=["/run/secrets/etcdkeep/signing.pem"],
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        places = [name for name in type(self).model_fields if name in PLACES]
        if sum(getattr(self, name) is not None for name in places) != 1:
            raise ValueError(f"give exactly one of {', '.join(places)}")
        return self


class KubeconfigRef(SecretRef):
    """How the Kubernetes API is reached: exactly one of `connection`, `path` and `in_cluster`; and what the kubeconfig may ask for."""

    connection: str | None = Field(
        None, min_length=1, description="Airflow connection of type `kubernetes`.", examples=["kubernetes_prod"]
    )
    path: HostPath | None = Field(
        None, description="kubeconfig file.", examples=["/run/secrets/etcdkeep/prod.kubeconfig"]
    )
    in_cluster: Literal[True] | None = Field(
        None, description="The service account of the pod that the worker runs in.", examples=[True]
    )
    context: str | None = Field(
        None,
        min_length=1,
        description="Context of the kubeconfig; default: the connection's `cluster_context`, else the kubeconfig's current one.",
        examples=["prod-admin"],
    )
    exec_plugins: tuple[Program, ...] = Field(
        (),
        description="Programs that this kubeconfig may run on the worker (exec plugins), by name on PATH or by path. It chooses their arguments: never list a shell or an interpreter.",
        examples=[["gke-gcloud-auth-plugin"]],
    )
    exec_timeout_s: float = Field(
        30, gt=0, le=600, description="Seconds until an exec plugin is stopped.", examples=[30]
    )
    allow_insecure: tuple[Literal["insecure-skip-tls-verify", "http"], ...] = Field(
        (),
        description="Unsafe settings that this kubeconfig may use: an unchecked server certificate, or a server without TLS.",
        examples=[["insecure-skip-tls-verify"]],
    )


VENDOR_SSH_SECRET = "kube-system/sshkeys/vsphere_tmp"  # noqa: S105 - names a Secret, holds none


class SshKeyRef(SecretRef):
    """Where the SSH key is kept: exactly one of the three."""

    secret: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*/[A-Za-z0-9._-]+$",
        description="Secret of the cluster itself, as namespace/name/field.",
        examples=["kube-system/sshkeys/vsphere_tmp"],
    )


IN_SSH_CONNECTION = ("user", "port", "key", "key_passphrase_file", "password_file")
"""Settings that a connection of type `ssh` takes the place of."""


class SshHost(Section):
    """How one logs in to a host."""

    connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection of type `ssh`, in place of `user`, `port`, `key`, `key_passphrase_file` and `password_file` (docs/connections.md).",
        examples=["ssh_prod"],
    )
    user: str = Field("ubuntu", min_length=1, description="Login name.", examples=["ubuntu"])
    port: Port = Field(22, description="SSH port.", examples=[22])
    key_passphrase_file: HostPath | None = Field(
        None,
        description="File with the passphrase of the key, where it has one.",
        examples=["/run/secrets/etcdkeep/ssh.passphrase"],
    )
    password_file: HostPath | None = Field(
        None,
        description="File with the password of the login, where the server asks for one, beside the key or in its place.",
        examples=["/run/secrets/etcdkeep/ssh.password"],
    )

    @property
    def may_ask(self) -> bool:
        """Whether a login by hand may be asked for a password."""
        return self.connection is not None or self.password_file is not None

    @model_validator(mode="after")
    def _one_source(self) -> SshHost:
        both = [name for name in IN_SSH_CONNECTION if name in self.model_fields_set and getattr(self, name) is not None]
        if self.connection is not None and both:
            raise ValueError(
                f"connection {self.connection!r} replaces {', '.join(both)}; remove either (connection: null where it "
                "comes from the defaults)"
            )
        return self


class JumpHost(SshHost):
    """A host through which the nodes are reached."""

    host: str = Field(
        "",
        validate_default=True,
        description="Name or address; with a connection, that of the connection when left out.",
        examples=["bastion.example.net"],
    )
    key: SshKeyRef | None = Field(
        None, description="Its own key; without one, the node's key.", examples=[{"path": "/run/secrets/etcdkeep/jump"}]
    )
    host_keys: tuple[HostKeyLine, ...] = Field(
        (),
        description="Its public host keys, as printed by `python -m etcdkeep trust`; that of its connection is added.",
        examples=[["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"]],
    )
    weak_algorithms: tuple[WeakAlgorithm, ...] = Field(
        (), description="Old ciphers and MACs to allow with this host, by name.", examples=[["hmac-sha1"]]
    )

    @field_validator("host")
    @classmethod
    def _is_somewhere(cls, host: str, info: ValidationInfo) -> str:
        if not host and not info.data.get("connection"):
            raise ValueError("missing; give it, or a connection that has one")
        return host


class Ssh(SshHost):
    """How the control-plane nodes are reached."""

    user: str = Field("ubuntu", min_length=1, description="Login name; may run `sudo -n`.", examples=["ubuntu"])
    port: Port = Field(22, description="SSH port of the nodes.", examples=[22])
    addresses: Mapping[str, Address] = Field(
        default_factory=dict,
        description="Node name → address[:port], where the API's external (else internal) address is not the one to use.",
        examples=[{"admin-cp-0": "10.0.0.11"}],
    )
    key: SshKeyRef = Field(
        default_factory=lambda: SshKeyRef(secret=VENDOR_SSH_SECRET),
        description="The SSH key.",
        examples=[{"secret": "kube-system/sshkeys/vsphere_tmp"}],
    )
    host_keys: tuple[HostKeyLine, ...] = Field(
        (),
        description="Public host keys of the nodes, one line each: `[hosts ]type base64`, hosts as in known_hosts (patterns, hashed names); that of the connection is added. Checking cannot be turned off.",
        examples=[["10.0.0.11 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"]],
    )
    weak_algorithms: tuple[WeakAlgorithm, ...] = Field(
        (),
        description="Old ciphers and MACs to allow with the nodes, by name; without it only modern ones are offered.",
        examples=[["aes256-cbc", "hmac-sha1"]],
    )
    jump: JumpHost | None = Field(
        None, description="Jump host, for nodes in a private network.", examples=[{"host": "bastion.example.net"}]
    )
