"""
The configuration's models: what is backed up, with what, and where to. Reading the file is :mod:`etcdkeep.config.loading`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from etcdkeep.config.access import KubeconfigRef, SecretRef, Ssh
from etcdkeep.config.copies import Copy, StoreUrl
from etcdkeep.config.notifications import EXAMPLE, Notifications, PingRef
from etcdkeep.config.profiles import ControlPlane, HostPath, ProfileName, Section
from etcdkeep.config.retention import MOST_LOCKED_DAYS, Freshness, Retention
from etcdkeep.config.signing import Signing
from etcdkeep.config.spreading import DAY_MINUTES, spread
from etcdkeep.config.values import AFTER_BACKUP, ClusterName, Cron, DrillSchedule, ExecutorName, QueueName, Tag
from etcdkeep.errors import ConfigError
from etcdkeep.sealing.age_keys import key_of, parse_recipients


class Limits(Section):
    """When something is stopped. Long work gets `command_s` plus its size over `slowest_bytes_per_s`."""

    connect_s: float = Field(10, gt=0, description="Seconds to set a connection up.", examples=[10])
    command_s: float = Field(
        60, gt=0, description="Seconds for a small command, and the base for long work.", examples=[60]
    )
    stall_s: float = Field(30, gt=0, description="Seconds without a byte until a stream is stopped.", examples=[30])
    unreachable_s: float = Field(
        300,
        gt=0,
        description="Seconds for which a restore waits for a node or API that does not answer, such as one that reboots, before its step fails.",
        examples=[300],
    )
    slowest_bytes_per_s: float = Field(
        2 * 2**20, gt=0, description="Slowest accepted rate, in bytes per second.", examples=[2097152]
    )
    run_s: float = Field(
        3 * 3600,
        gt=0,
        description="Seconds after which a backup run that has not ended is reported as late (event `backup_late`).",
        examples=[10800],
    )
    task_s: float = Field(
        4 * 3600,
        gt=0,
        description="Seconds after which Airflow ends a task, whatever it waits for. Keep it far above the other limits, which end with clearer messages; drills have `drill.time_limit_s`.",
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
        3600,
        gt=0,
        description="Seconds until a drill is stopped, which says nothing about the backup.",
        examples=[3600],
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
    spread_minutes: int = Field(
        0,
        ge=0,
        le=DAY_MINUTES,
        description="Begin `schedule` and `drill.schedule` up to so many minutes later, each cluster at a minute of its own that its name decides, so that many clusters with one schedule do not begin together.",
        examples=[90],
    )
    repository: StoreUrl = Field(
        description="Where backup sets live: a bucket of Google or of S3 (and compatible), or a directory.",
        examples=["gs://example-backups/etcd", "s3://example-backups/etcd", "file:///srv/etcdkeep"],
    )
    repository_connection: str | None = Field(
        None,
        min_length=1,
        description="Airflow connection for the buckets of `repository` and `spool`: type `google_cloud_platform` for gs://, `aws` for s3://; default: the credentials of where it runs (docs/connections.md).",
        examples=["google_backups"],
    )
    spool: StoreUrl | None = Field(
        None,
        description="Where artifacts wait to be published; default `<repository>/.spool`.",
        examples=["gs://example-backups/etcd/.spool"],
    )
    copies: tuple[Copy, ...] = Field(
        (),
        description="Other repositories that each verified backup is copied to (docs/copies.md).",
        examples=[[{"repository": "s3://example-copies/etcd", "connection": "aws_copies"}]],
    )
    immutable_days: int = Field(
        0,
        ge=0,
        le=MOST_LOCKED_DAYS,
        description="Days for which the store forbids deletion of a published set; 0 for none. For longer ones: `retention.lock_days`.",
        examples=[30],
    )
    age_recipients: tuple[str, ...] = Field(
        min_length=1,
        description="Public keys that every artifact is sealed to: age1… or ssh-ed25519 …",
        examples=[["age1z04tf0zf3evfv40maecvnxvqevzqfc7qj2ejzg775yvumsr3l9jqe4lmqv"]],
    )
    index_recipients: tuple[str, ...] = Field(
        (),
        description="More public keys that the index of each backup is sealed to, and nothing else: whoever holds their identity can read which objects exist, and no content (docs/objects.md).",
        examples=[["age18pz87rsyt9ny3vpk8rrh8fdjjp9ked4l4h07x57m9d75tsn0nvfq27ng7c"]],
    )
    age_identity: SecretRef | None = Field(
        None,
        description="Private age identity; only for verify, drill and restore. Without it, verify stops at `stored`.",
        examples=[{"connection": "etcdkeep_age"}],
    )
    index_identity: SecretRef | None = Field(
        None,
        description="Private age identity of one of `index_recipients`, for the page in Airflow: the API server needs no other key.",
        examples=[{"connection": "etcdkeep_index"}],
    )
    signing: Signing = Field(description="Keys that sign backup sets and records.")
    approvers: tuple[str, ...] = Field(
        (),
        description="Airflow users (id or name) who may approve restores and recoveries; empty: everyone who may answer a gate in Airflow.",
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
        description="Hours for which an approval is valid. A restore that has stopped the control plane may always be finished or rolled back.",
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
        description="Whether each backup ends with a rehearsal: all checks of a restore's preflight, on the new set; changes nothing.",
        examples=[True],
    )
    drill: Drill | None = Field(
        None,
        description="Creates the DAG `drill__<cluster>`; null for none.",
        examples=[{"schedule": AFTER_BACKUP}],
    )
    retention: Retention | None = Field(
        None,
        description="Which sets are kept; null: nothing is ever removed.",
        examples=[{"daily": 14, "weekly": 8, "monthly": 12}],
    )
    freshness: Freshness = Field(
        default_factory=Freshness, description="When `check` raises an alarm.", examples=[{"warn_after": "36h"}]
    )
    notifications: Notifications = Field(
        (),
        description="Who is notified of what; a cluster's list replaces that of the defaults (docs/monitoring.md).",
        examples=[EXAMPLE],
    )
    ping: PingRef | None = Field(
        None,
        description="Dead-man switch that is pinged at the start, after each verified backup, and when a backup has failed.",
        examples=[{"connection": "etcdkeep_ping"}],
    )
    limits: Limits = Field(default_factory=Limits, description="Time-outs.")
    tags: tuple[Tag, ...] = Field((), description="More tags for its DAGs.", examples=[["prod"]])
    queue: QueueName | None = Field(None, description="Airflow queue of its tasks.", examples=["backup"])
    verify_queue: QueueName | None = Field(
        None,
        description="Airflow queue of the tasks that need the age identity: verify, drill, restore, recover, housekeeping. Default: `queue`.",
        examples=["verify"],
    )
    pool: QueueName | None = Field(
        None,
        description="Airflow pool of the backup's tasks that read the cluster, such as one for a site or a jump host; make it under Admin → Pools. Restores wait for no pool.",
        examples=["site_east"],
    )
    verify_pool: QueueName | None = Field(
        None,
        description="Airflow pool of the tasks that read whole backups: verify, replicate, rehearse, drill. Default: `pool`.",
        examples=["drills"],
    )
    executor: ExecutorName | None = Field(
        None,
        description="Airflow executor of the cluster's tasks, where Airflow has several.",
        examples=["KubernetesExecutor"],
    )
    control_plane: ControlPlane = Field(default_factory=ControlPlane, description="What differs from the profile.")

    @model_validator(mode="after")
    def _can_be_spread(self) -> Self:
        drills = self.drill.schedule if self.drill else None
        for where, schedule in (("schedule", self.schedule), ("drill.schedule", drills)):
            try:
                spread(schedule, self.spread_minutes, self.name)
            except ValueError as err:
                raise ValueError(f"spread_minutes: {where} {err}") from err
        return self

    @field_validator("age_recipients", "index_recipients")
    @classmethod
    def _are_recipients(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        try:
            if recipients:
                parse_recipients(recipients)
        except ConfigError as err:
            raise ValueError(str(err)) from err
        return recipients

    @field_validator("index_recipients")
    @classmethod
    def _open_indexes_alone(cls, recipients: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        of_backups = {key_of(each) for each in info.data.get("age_recipients", ())}
        for each in recipients:
            if key_of(each) in of_backups:
                raise ValueError(
                    f"{key_of(each)} is also in age_recipients, so its identity opens whole backups. Give the indexes a key of "
                    "their own (python -m etcdkeep keygen)."
                )
        return recipients

    @property
    def namespace(self) -> str:
        """Namespace of the etcd pods."""
        return self.control_plane.namespace.replace("{cluster}", self.name)

    def at_copy(self, copy: Copy) -> Cluster:
        """Return the cluster as it is kept in one of its copies: with that repository, and the rules that hold there."""
        changes = {
            "repository": copy.repository,
            "repository_connection": copy.connection,
            "spool": None,
            "copies": (),
            "retention": copy.retention or self.retention,
            "immutable_days": self.immutable_days if copy.immutable_days is None else copy.immutable_days,
        }
        return self.model_copy(update=changes)

    @property
    def spool_url(self) -> str:
        """Where artifacts wait until they are published."""
        return self.spool or f"{self.repository.rstrip('/')}/.spool"


class ConfigFile(Section):
    """The whole file."""

    schema_version: Literal[1] = Field(description="Version of this format.", examples=[1])
    housekeeping_schedule: Cron = Field(
        "0 6 * * *",
        description="Cron expression (UTC) of the DAG `housekeeping`, which prunes and checks every cluster; null: by hand only.",
        examples=["0 6 * * *"],
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Defaults for every cluster; any key of a cluster except `name`."
    )
    clusters: tuple[Cluster, ...] = Field(description="What is backed up.")
