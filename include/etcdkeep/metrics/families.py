"""Every metric: its name, what it says and its labels. docs/monitoring.md holds the same table; a test compares them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A gauge; its name ends with its base unit."""

    name: str
    help: str
    labels: tuple[str, ...] = ("cluster",)

    def sample(self, value: float, *labels: str) -> Sample:
        """
        Return one value.

        :param labels: A value for each label, in order.
        """
        return Sample(self, float(value), labels)


@dataclass(frozen=True)
class Sample:
    """One value of one metric."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


CONFIGURATION_VALID = Metric(
    "etcdkeep_configuration_valid", "1 when every cluster of the configuration is usable, else 0.", ()
)
REPOSITORY_READABLE = Metric(
    "etcdkeep_repository_readable", "1 when the cluster's repository could be read, else 0."
)  # fmt: skip
MEASURED = Metric("etcdkeep_measured_timestamp_seconds", "When the numbers of this cluster were measured.")
CHECK_STATUS = Metric(
    "etcdkeep_check_status", "What check says of a topic: 0 OK or not judged, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.", ("cluster", "topic")
)  # fmt: skip
LAST_ATTEMPT = Metric("etcdkeep_last_attempt_timestamp_seconds", "Time of the newest run that began; 0 for none.")
LAST_GOOD = Metric("etcdkeep_last_good_timestamp_seconds", "When the newest good backup was taken; 0 for none.")
LAST_RESTORABLE = Metric(
    "etcdkeep_last_restorable_timestamp_seconds", "When the newest good backup that its rehearsal found restorable was taken; 0 for none."
)  # fmt: skip
LAST_DRILLED = Metric(
    "etcdkeep_last_drilled_timestamp_seconds", "When the newest good backup that passed a drill was taken; 0 for none."
)
LAST_COPIED = Metric(
    "etcdkeep_last_copied_timestamp_seconds", "When the newest backup in the copy furthest behind was taken; 0 for none; missing without copies."
)  # fmt: skip
AGE_LIMIT = Metric(
    "etcdkeep_age_limit_seconds", "Age above which a topic (good, restorable, drilled, copied) has that severity (warning, critical); missing where no age is judged.", ("cluster", "topic", "severity")
)  # fmt: skip
SETS = Metric("etcdkeep_sets", "Published backups by state.", ("cluster", "state"))
REPOSITORY_BYTES = Metric("etcdkeep_repository_bytes", "Size of everything the repository holds of the cluster.")
DATABASE_BYTES = Metric("etcdkeep_database_bytes", "Size of the largest member's database at the newest backup.")
DATABASE_QUOTA_BYTES = Metric("etcdkeep_database_quota_bytes", "etcd's quota for it: freshness.quota_bytes.")
DATABASE_QUOTA_RATIO = Metric("etcdkeep_database_quota_ratio", "Share of the quota that the database fills, 0 to 1.")
DATABASE_GROWTH = Metric(
    "etcdkeep_database_growth_bytes_per_second", "Growth of the database over the backups of the last 30 days."
)
CERTIFICATE_EXPIRY = Metric(
    "etcdkeep_certificate_expiry_timestamp_seconds", "When the first certificate of the cluster expires, by its newest good backup."
)  # fmt: skip
RESTORE_ESTIMATE = Metric(
    "etcdkeep_restore_estimate_seconds", "Seconds from the sealed snapshot to a serving etcd in the newest drill: what a restore takes at least."
)  # fmt: skip
PHASE_DURATION = Metric(
    "etcdkeep_phase_duration_seconds", "Duration of the newest backup (begin to manifest), verification, rehearsal and drill, by phase; phase total where only that is recorded.", ("cluster", "operation", "phase")
)  # fmt: skip

METRICS = (
    CONFIGURATION_VALID, REPOSITORY_READABLE, MEASURED, CHECK_STATUS,
    LAST_ATTEMPT, LAST_GOOD, LAST_RESTORABLE, LAST_DRILLED, LAST_COPIED, AGE_LIMIT,
    SETS, REPOSITORY_BYTES, DATABASE_BYTES, DATABASE_QUOTA_BYTES, DATABASE_QUOTA_RATIO, DATABASE_GROWTH,
    CERTIFICATE_EXPIRY, RESTORE_ESTIMATE, PHASE_DURATION,
)  # fmt: skip
