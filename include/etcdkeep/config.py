"""
The configuration's models: what is backed up, with what, and where to. Reading the file is :mod:`etcdkeep.config_file`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from croniter import CroniterBadDateError, croniter
from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from etcdkeep.age_keys import parse_recipients
from etcdkeep.errors import ConfigError
from etcdkeep.host_keys import parse_host_key
from etcdkeep.naming import split_address
from etcdkeep.profiles import ControlPlane, HostPath, ProfileName, Section
from etcdkeep.records import PURPOSES, Purpose, Trust
from etcdkeep.signature import parse_public_key
from etcdkeep.ssh_algorithms import check_weak

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""Names that Airflow takes in place of a cron expression."""

AFTER_BACKUP = "after_backup"
"""Schedule of drills that follow each verified backup."""


def _cron(schedule: str | None) -> str | None:
    if schedule is None or schedule in PRESETS:
        return schedule
    if len(schedule.split()) != 5 or not croniter.is_valid(schedule):
        raise ValueError(f"expected five cron fields such as '30 2 * * *', found {schedule!r}")
    if not _ever_comes(schedule):
        raise ValueError(
            f"{schedule!r} never comes: no such day exists in those months; correct day and month, or give null for none"
        )
    return schedule


def _ever_comes(schedule: str) -> bool:
    """Say whether a valid cron expression has a moment at all; croniter looks 50 years ahead, 29 February included."""
    try:
        croniter(schedule, datetime(2001, 1, 1, tzinfo=UTC)).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


def _drill_schedule(schedule: str | None) -> str | None:
    return schedule if schedule == AFTER_BACKUP else _cron(schedule)


def _host_key(line: str) -> str:
    try:
        parse_host_key(line)
    except ConfigError as err:
        raise ValueError(str(err)) from err
    return line


def _program(name: str) -> str:
    if not name or ("/" in name and not name.startswith("/")):
        raise ValueError(f"expected a program's name or its whole path, found {name!r}")
    if _INTERPRETER.fullmatch(name.rpartition("/")[2]):
        raise ValueError(f"{name!r} runs whatever a kubeconfig gives it; list the plugin itself")
    return name


_INTERPRETER = re.compile(
    r"(ba|da|a|z|k|c|tc|fi)?sh|busybox|env|sudo|su|xargs|nohup|timeout|setsid|nice|ssh|docker|kubectl|awk|find"
    r"|(python|perl|ruby|node|php|lua)[\d.]*"
)


def _address(address: str) -> str:
    split_address(address, 22)
    return address


ClusterName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
StoreUrl = Annotated[
    str, StringConstraints(pattern=r"^(gs://[a-z0-9][a-z0-9._-]+(/[^\s?#]*)?|file:///[^\s?#]+)$", max_length=500)
]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Port = Annotated[int, Field(ge=1, le=65535)]
Program = Annotated[str, AfterValidator(_program)]
HostKeyLine = Annotated[str, AfterValidator(_host_key)]
WeakAlgorithm = Annotated[str, AfterValidator(check_weak)]
Address = Annotated[str, AfterValidator(_address)]
Cron = Annotated[str | None, AfterValidator(_cron)]
DrillSchedule = Annotated[str | None, AfterValidator(_drill_schedule)]


PLACES = ("connection", "path", "in_cluster", "secret")
"""Fields of which a reference has exactly one."""


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
        description="What this kubeconfig may ask for although it exposes the cluster: not to check the server's certificate, or a server without TLS.",
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
                f"connection {self.connection!r} stands in place of {', '.join(both)}; remove either (connection: null where it "
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


class SigningKey(Section):
    """An Ed25519 key: the private half for those who sign, the public half for everybody who reads."""

    key: SecretRef | None = Field(
        None,
        description="Private key (PKCS#8 PEM), where something is signed.",
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
        for key in keys:
            parse_public_key(key)
        return keys


class Signing(SigningKey):
    """
    The keys that sign. `key` and `public_keys` are for everything that has no key of its own below.
    """

    backup: SigningKey | None = Field(
        None,
        description="For backup sets: held by the workers that take backups.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_backup"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    verify: SigningKey | None = Field(
        None,
        description="For results of verifications and drills: held by the workers that verify.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_verify"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    approve: SigningKey | None = Field(
        None,
        description="For answers of people: held by the workers that run the gates of restores and recoveries.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_approve"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )
    restore: SigningKey | None = Field(
        None,
        description="For plans and records of restores and recoveries: held by the workers that restore.",
        examples=[
            {
                "key": {"connection": "etcdkeep_sign_restore"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            }
        ],
    )

    def for_purpose(self, purpose: Purpose) -> SigningKey:
        """Return the key of one purpose."""
        own: SigningKey | None = getattr(self, purpose)
        return own or self

    @property
    def trust(self) -> Trust:
        """Per purpose, the public keys that may sign."""
        return {purpose: self.for_purpose(purpose).public_keys for purpose in PURPOSES}


class Limits(Section):
    """When something is given up. Long work gets `command_s` plus its size over `slowest_bytes_per_s`."""

    connect_s: float = Field(10, gt=0, description="Seconds to set a connection up.", examples=[10])
    command_s: float = Field(
        60, gt=0, description="Seconds for a small command, and the base for long work.", examples=[60]
    )
    stall_s: float = Field(30, gt=0, description="Seconds without a byte until a stream is given up.", examples=[30])
    unreachable_s: float = Field(
        300,
        gt=0,
        description="Seconds for which a restore waits for a node or API that does not answer, such as one that reboots, before its step fails.",
        examples=[300],
    )
    slowest_bytes_per_s: float = Field(
        2 * 2**20, gt=0, description="Slowest rate still waited for, bytes per second.", examples=[2097152]
    )
    task_s: float = Field(
        4 * 3600,
        gt=0,
        description="Seconds after which Airflow ends a task, whatever it waits for. Keep it far above the other limits, which end with words of their own; drills have `drill.time_limit_s`.",
        examples=[14400],
    )

    @model_validator(mode="after")
    def _outer_limit_is_the_longest(self) -> Self:
        longest = max(self.connect_s, self.command_s, self.stall_s, self.unreachable_s)
        if self.task_s <= longest:
            raise ValueError(
                f"task_s is {self.task_s:g}, expected more than the longest of the other limits, {longest:g}"
            )
        return self

    def long_work_s(self, size_bytes: int) -> float:
        """Seconds allowed for work on `size_bytes`."""
        return self.command_s + size_bytes / self.slowest_bytes_per_s


class Drill(Section):
    """
    Drills: a backup is restored into a throw-away etcd on the worker, and what that serves is compared with the backup.
    """

    schedule: DrillSchedule = Field(
        AFTER_BACKUP,
        description="`after_backup`: after each verified backup; or a cron expression (UTC); null: by hand only.",
        examples=[AFTER_BACKUP, "0 5 * * 0"],
    )
    etcd_dir: HostPath | None = Field(
        None,
        description="Folder on the worker with `etcd` and `etcdutl` (or `etcdctl` before 3.6); default: those on PATH.",
        examples=["/opt/etcd-3.6"],
    )
    work_dir: HostPath | None = Field(
        None,
        description="Folder on the worker for the plain files; default: `/dev/shm` where they take less than a quarter of what is free there, else `TMPDIR`.",
        examples=["/var/lib/etcdkeep/drills"],
    )
    time_limit_s: float = Field(
        3600, gt=0, description="Seconds until a drill is given up, which says nothing of the backup.", examples=[3600]
    )


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
    own_kubeconfig: KubeconfigRef | None = Field(
        None,
        description="For gke-user-kubeception: how the cluster's own API is reached; only for `recover_objects` and `objects diff --live`.",
        examples=[{"connection": "kubernetes_prod_user"}],
    )
    ssh: Ssh = Field(default_factory=Ssh, description="How its nodes are reached.")
    schedule: Cron = Field(
        "30 2 * * *", description="Cron expression (UTC) of the nightly backup; null for none.", examples=["30 2 * * *"]
    )
    repository: StoreUrl = Field(
        description="Where backup sets live.", examples=["gs://example-backups/etcd", "file:///srv/etcdkeep"]
    )
    repository_connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection of type `google_cloud_platform`, for the buckets of `repository` and `spool`; default: the credentials of where it runs (docs/connections.md).",
        examples=["google_backups"],
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
    signing: Signing = Field(description="Keys that sign backup sets and records.")
    approvers: tuple[str, ...] = Field(
        (),
        description="Airflow users (id or name) who may approve restores and recoveries; empty: whoever may answer a gate in Airflow.",
        examples=[["alice", "bob"]],
    )
    requester_may_approve: bool = Field(
        True,
        description="Whether the person who starts a restore or recovery may also approve it (as one of the two, for a restore).",
        examples=[False],
    )
    approval_hours: float = Field(
        12,
        gt=0,
        le=168,
        description="Hours for which an approval holds. A restore that has stopped the control plane may always be finished or rolled back.",
        examples=[12],
    )
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
    etcd_prefix: str | None = Field(
        None,
        pattern=r"^/?[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/?$|^/$",
        description="kube-apiserver's `--etcd-prefix`; default: as its archived manifest says, else as the snapshot shows.",
        examples=["/registry"],
    )
    rehearse: bool = Field(
        True,
        description="Whether each backup ends with a rehearsal: all that a restore's preflight asks, of the set just made; changes nothing.",
        examples=[True],
    )
    drill: Drill | None = Field(
        None,
        description="Makes the DAG `drill__<cluster>`; null for none.",
        examples=[{"schedule": AFTER_BACKUP}],
    )
    limits: Limits = Field(default_factory=Limits, description="Time-outs.")
    tags: tuple[Tag, ...] = Field((), description="More tags for its DAGs.", examples=[["prod"]])
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

    @property
    def namespace(self) -> str:
        """Namespace of the etcd pods."""
        return self.control_plane.namespace.replace("{cluster}", self.name)

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
