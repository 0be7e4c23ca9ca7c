"""
The configuration file: what is backed up, with what, and where to.

Load → normalise (defaults and profile beneath each cluster) → schema → rules across fields. All problems are reported
at once, each with its path. A cluster entry with a problem is left out and reported; the others stay usable.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from etcdkeep.age_keys import parse_recipients
from etcdkeep.errors import ConfigError
from etcdkeep.profiles import PROFILES, ControlPlane, HostPath, ProfileName, Section

CONFIG_VARIABLE = "ETCDKEEP_CONFIG"
SCHEMA_VERSION = 1

ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
StoreUrl = Annotated[str, StringConstraints(pattern=r"^(gs://[a-z0-9][a-z0-9._-]+(/[^\s]*)?|file:///[^\s]+)$")]
KeyLine = Annotated[str, StringConstraints(pattern=r"^(\S+ )?(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( .*)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class SecretRef(Section):
    """Where a key is kept: exactly one of an Airflow connection or a file. Never the key itself."""

    connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection id; the key is its `private_key` extra or its password.",
        examples=["etcdkeep_signing"],
    )
    path: HostPath | None = Field(
        None,
        description="File with the key, readable by the worker only.",
        examples=["/run/secrets/etcdkeep/signing.pem"],
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if sum(value is not None for value in self.__dict__.values()) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self


class KubeconfigRef(SecretRef):
    """How the Kubernetes API is reached: exactly one of the three."""

    connection: str | None = Field(
        None, min_length=1, description="Airflow connection of type `kubernetes`.", examples=["kubernetes_prod"]
    )
    path: HostPath | None = Field(
        None, description="kubeconfig file.", examples=["/run/secrets/etcdkeep/prod.kubeconfig"]
    )
    in_cluster: Literal[True] | None = Field(
        None, description="The service account of the pod that the worker runs in.", examples=[True]
    )


class SshKeyRef(SecretRef):
    """Where the SSH key is kept: exactly one of the three."""

    secret: str | None = Field(
        None,
        pattern=r"^[^/\s]+/[^/\s]+/[^/\s]+$",
        description="Secret of the cluster itself, as namespace/name/field.",
        examples=["kube-system/sshkeys/vsphere_tmp"],
    )


class JumpHost(Section):
    """A host through which the nodes are reached."""

    host: str = Field(min_length=1, description="Name or address.", examples=["bastion.example.net"])
    port: Port = Field(22, description="SSH port.", examples=[22])
    user: str = Field("ubuntu", min_length=1, description="Login name.", examples=["ubuntu"])
    key: SshKeyRef | None = Field(
        None, description="Its own key; without one, the node's key.", examples=[{"connection": "ssh_bastion"}]
    )
    host_keys: tuple[KeyLine, ...] = Field(
        (),
        description="Its public host keys, as printed by `python -m etcdkeep trust`.",
        examples=[["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"]],
    )


class Ssh(Section):
    """How the control-plane nodes are reached."""

    user: str = Field("ubuntu", min_length=1, description="Login name; may run `sudo -n`.", examples=["ubuntu"])
    port: Port = Field(22, description="SSH port of the nodes.", examples=[22])
    addresses: Mapping[str, str] = Field(
        default_factory=dict,
        description="Node name → address[:port], where the API's external (else internal) address is not the one to use.",
        examples=[{"admin-cp-0": "10.0.0.11"}],
    )
    key: SshKeyRef = Field(
        default_factory=lambda: SshKeyRef(secret="kube-system/sshkeys/vsphere_tmp"),  # noqa: S106 - names a Secret, holds none
        description="The SSH key.",
        examples=[{"secret": "kube-system/sshkeys/vsphere_tmp"}],
    )
    host_keys: tuple[KeyLine, ...] = Field(
        (),
        description="Public host keys of the nodes, one line each: `[host ]type base64`. Checking cannot be turned off.",
        examples=[["10.0.0.11 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYkbcZFHlq+gXzovhFW9y86qS3Bim9pXID1mxlOc0tI"]],
    )
    jump: JumpHost | None = Field(
        None, description="Jump host, for nodes in a private network.", examples=[{"host": "bastion.example.net"}]
    )


class Signing(Section):
    """The Ed25519 key that signs manifests."""

    key: SecretRef | None = Field(
        None,
        description="Private key (PKCS#8 PEM); needed by `upload` only.",
        examples=[{"connection": "etcdkeep_signing"}],
    )
    public_keys: tuple[str, ...] = Field(
        min_length=1,
        description="Trusted public keys, base64 of the 32 raw bytes; more than one while a key is being replaced.",
        examples=[["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="]],
    )

    @field_validator("public_keys")
    @classmethod
    def _are_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        from etcdkeep.signature import parse_public_key

        for key in keys:
            parse_public_key(key)
        return keys


class Limits(Section):
    """When something is given up. Long work gets `command_s` plus its size over `slowest_bytes_per_s`."""

    connect_s: float = Field(10, gt=0, description="Seconds to set a connection up.", examples=[10])
    command_s: float = Field(
        60, gt=0, description="Seconds for a small command, and the base for long work.", examples=[60]
    )
    stall_s: float = Field(30, gt=0, description="Seconds without a byte until a stream is given up.", examples=[30])
    slowest_bytes_per_s: float = Field(
        2 * 2**20, gt=0, description="Slowest rate still waited for, bytes per second.", examples=[2097152]
    )

    def long_work_s(self, size_bytes: int) -> float:
        """Seconds allowed for work on `size_bytes`."""
        return self.command_s + size_bytes / self.slowest_bytes_per_s


class Cluster(Section):
    """One etcd and its control plane."""

    name: ClusterName = Field(
        description="Unique name: DAG ids and the folder in the repository come from it.", examples=["prod-admin"]
    )
    profile: ProfileName = Field(
        description="What kind of cluster it is; gives every default of `control_plane`.", examples=["gke-admin"]
    )
    admin_cluster: ClusterName | None = Field(
        None,
        description="For gke-user-kubeception: the configured admin cluster whose kubeconfig reaches it.",
        examples=["prod-admin"],
    )
    kubeconfig: KubeconfigRef | None = Field(
        None,
        description="How its API is reached (kubeception: the admin cluster's).",
        examples=[{"connection": "kubernetes_prod"}],
    )
    ssh: Ssh = Field(default_factory=Ssh, description="How its nodes are reached.")
    schedule: str | None = Field(
        "30 2 * * *", description="Cron expression (UTC) of the nightly backup; null for none.", examples=["30 2 * * *"]
    )
    repository: StoreUrl = Field(
        description="Where backup sets live.", examples=["gs://example-backups/etcd", "file:///srv/etcdkeep"]
    )
    spool: StoreUrl | None = Field(
        None,
        description="Where artifacts wait to be published; default `<repository>/.spool`.",
        examples=["gs://example-backups/etcd/.spool"],
    )
    immutable_days: int = Field(
        0,
        ge=0,
        le=3650,
        description="Days for which the store forbids deletion of a published set; 0 for none.",
        examples=[30],
    )
    age_recipients: tuple[str, ...] = Field(
        min_length=1,
        description="Public keys that every artifact is sealed to: age1… or ssh-ed25519 …",
        examples=[["age1z04tf0zf3evfv40maecvnxvqevzqfc7qj2ejzg775yvumsr3l9jqe4lmqv"]],
    )
    age_identity: SecretRef | None = Field(
        None,
        description="Private age identity; only for verify, drill and restore. Without it, verify stops at `stored`.",
        examples=[{"connection": "etcdkeep_age"}],
    )
    signing: Signing = Field(description="Signature of manifests.")
    copy_out: Literal["exec", "node"] = Field(
        "exec",
        description="How the snapshot leaves the pod: `exec` runs cat in it; `node` reads the container's file over SSH (distroless images).",
        examples=["exec"],
    )
    extra_paths: tuple[HostPath, ...] = Field(
        (),
        description="More files or folders of the nodes to keep; missing ones fail the backup.",
        examples=[["/etc/kubernetes/audit"]],
    )
    cert_warning_days: int = Field(
        30, ge=0, description="Warn when a certificate expires within so many days.", examples=[30]
    )
    limits: Limits = Field(default_factory=Limits, description="Time-outs.")
    tags: tuple[str, ...] = Field((), description="More tags for its DAGs.", examples=[["prod"]])
    queue: str | None = Field(None, description="Airflow queue of its tasks.", examples=["backup"])
    verify_queue: str | None = Field(
        None, description="Airflow queue of the tasks that need the age identity.", examples=["restore"]
    )
    control_plane: ControlPlane = Field(default_factory=ControlPlane, description="What differs from the profile.")

    @field_validator("age_recipients")
    @classmethod
    def _are_recipients(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_recipients(recipients)
        except ConfigError as err:
            raise ValueError(str(err)) from err
        return recipients

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str | None) -> str | None:
        if schedule is not None and not re.fullmatch(r"@(hourly|daily|weekly|monthly|yearly)|\S+( \S+){4}", schedule):
            raise ValueError(f"expected five cron fields such as '30 2 * * *', found {schedule!r}")
        return schedule

    @property
    def namespace(self) -> str:
        """Namespace of the etcd pods."""
        return self.control_plane.namespace.format(cluster=self.name)

    @property
    def spool_url(self) -> str:
        """Where artifacts wait until they are published."""
        return self.spool or f"{self.repository.rstrip('/')}/.spool"


class ConfigFile(Section):
    """The whole file."""

    schema_version: Literal[1] = Field(description="Version of this format.", examples=[1])
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Settings beneath every cluster's own; any key of a cluster but `name`."
    )
    clusters: tuple[Cluster, ...] = Field(description="What is backed up.")


@dataclass(frozen=True)
class Config:
    """
    A loaded file.

    :param clusters: The usable clusters by name, in the file's order.
    :param problems: What is wrong with the entries left out, each ``path: sentence``.
    """

    source: str
    clusters: Mapping[str, Cluster]
    problems: tuple[str, ...] = field(default=())

    def cluster(self, name: str) -> Cluster:
        """
        Return one cluster.

        :raises ConfigError: when it is not configured, or its entry is not usable.
        """
        try:
            return self.clusters[name]
        except KeyError:
            known = ", ".join(self.clusters) or "none"
            raise ConfigError(
                f"cluster {name!r} is not usable in {self.source}; usable are: {known}.", self.problems
            ) from None

    def raise_for_problems(self) -> None:
        """:raises ConfigError: when any entry was left out."""
        if self.problems:
            raise ConfigError(
                f"{self.source}: {len(self.problems)} problem(s); these clusters are not backed up:", self.problems
            )


class _StrictLoader(yaml.CSafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would silently let win."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    twice = [key for key, count in Counter(key.value for key, _ in node.value).items() if count > 1 and key != "<<"]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """
    Return the configuration file's path from ``ETCDKEEP_CONFIG``.

    :raises ConfigError: when the variable is not set.
    """
    value = environ.get(CONFIG_VARIABLE)
    if not value:
        raise ConfigError(
            f"{CONFIG_VARIABLE} is not set; expected the path of the configuration file (python -m etcdkeep config example)."
        )
    return Path(value)


def load_config(path: Path | None = None) -> Config:
    """
    Read and check the configuration file.

    :param path: The file; by default the one that ``ETCDKEEP_CONFIG`` names.
    :raises ConfigError: when the file as a whole cannot be used.
    """
    path = path or config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"configuration {path} cannot be read: {err}. Set {CONFIG_VARIABLE} to a readable YAML file."
        ) from err
    return parse_config(text, str(path))


def parse_config(text: str, source: str) -> Config:
    """
    Check the text of a configuration file.

    :raises ConfigError: for malformed YAML, an unknown top-level key or another ``schema_version``.
    """
    try:
        raw = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as err:
        raise ConfigError(f"{source} is not valid YAML: {err}") from err
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping with schema_version and clusters, found {type(raw).__name__}.")
    entries = raw.get("clusters")
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: clusters: expected a list of clusters, found {type(entries).__name__}.")
    try:
        head = ConfigFile.model_validate({**raw, "clusters": []})
    except ValidationError as err:
        raise ConfigError(f"{source} cannot be used:", tuple(_sentences(err, ""))) from err
    return _parse_clusters(head.defaults, entries, source)


def _parse_clusters(defaults: dict[str, Any], entries: list[Any], source: str) -> Config:
    clusters: dict[str, Cluster] = {}
    problems: list[str] = []
    names = Counter(str(entry.get("name")) for entry in entries if isinstance(entry, dict))
    for index, entry in enumerate(entries):
        where = f"clusters[{index}]"
        if not isinstance(entry, dict):
            problems.append(f"{where}: expected a mapping, found {type(entry).__name__}")
            continue
        name = str(entry.get("name"))
        where = f"{where} ({name})"
        if names[name] > 1:
            problems.append(f"{where}.name: {names[name]} clusters have this name; names are unique")
            continue
        try:
            clusters[name] = Cluster.model_validate(_normalise(defaults, entry))
        except ValidationError as err:
            problems.extend(_sentences(err, where))
    for name, cluster in list(clusters.items()):
        if problem := _reach_problem(cluster, clusters):
            problems.append(f"clusters ({name}).{problem}")
            del clusters[name]
    return Config(source, {name: _resolve(cluster, clusters) for name, cluster in clusters.items()}, tuple(problems))


def _normalise(defaults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    merged = _merge(defaults, entry)
    profile = PROFILES.get(str(merged.get("profile")), {})
    overrides = merged.get("control_plane", {})
    return {**merged, "control_plane": _merge(profile, overrides) if isinstance(overrides, dict) else overrides}


_ALTERNATIVES = frozenset({"key", "kubeconfig", "age_identity"})
"""Sections of which exactly one field is given: an entry replaces the default as a whole."""


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key not in _ALTERNATIVES
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _reach_problem(cluster: Cluster, clusters: Mapping[str, Cluster]) -> str | None:
    admin = cluster.admin_cluster
    if admin is not None and admin not in clusters:
        return f"admin_cluster: {admin!r} is not a usable cluster of this file"
    if admin is not None and clusters[admin].kubeconfig is None:
        return f"admin_cluster: {admin!r} has no kubeconfig of its own"
    if cluster.kubeconfig is None and admin is None:
        return "kubeconfig: missing; give a connection, a path or in_cluster (kubeception: or admin_cluster)"
    if cluster.copy_out == "node" and not cluster.control_plane.has_nodes and not cluster.ssh.addresses:
        return "copy_out: node needs ssh.addresses here, since this kind of cluster has no nodes of its own"
    return None


def _resolve(cluster: Cluster, clusters: Mapping[str, Cluster]) -> Cluster:
    if cluster.kubeconfig is None and cluster.admin_cluster is not None:
        return cluster.model_copy(update={"kubeconfig": clusters[cluster.admin_cluster].kubeconfig})
    return cluster


def _sentences(err: ValidationError, where: str) -> list[str]:
    sentences = []
    for problem in err.errors(include_url=False, include_input=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key; see `python -m etcdkeep config schema` for the known ones"
        sentences.append(f"{(where + path).lstrip('.')}: {message}")
    return sentences
