"""One line for each cluster: how its backups are, what is wrong, what to do next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from etcdkeep.freshness.glance import GlancedSets
from etcdkeep.freshness.report import Status
from etcdkeep.overview.calendar import calendar
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.freshness.check import Checked, StoredSets
    from etcdkeep.freshness.glance import Glance
    from etcdkeep.freshness.report import CheckFinding, CheckReport
    from etcdkeep.sets.judged import Looked

State = Literal["fresh", "stale", "failing", "never", "unknown"]
STATES: tuple[State, ...] = ("never", "stale", "failing", "unknown", "fresh")
"""In order of risk."""
KINDS = ("good", "restorable", "drilled", "copied")
FAILING = ("newest", "attempts", "missing", "trust", "restorable", "clock")
"""Topics of a check that say that new backups do not come out as they should."""
_RANK: Mapping[Status, int] = {"CRITICAL": 0, "UNKNOWN": 1, "WARNING": 2, "OK": 3}

NEXT_STEPS: Mapping[str, str] = {
    "configuration": "Correct the entry in the configuration file: python -m etcdkeep config check",
    "paused": "Open the DAG and switch it on.",
    "absent": "Read the import errors in Airflow, on its home page.",
    "never": "Open the DAG, trigger it, and read the log of the first task that fails.",
    "good": "Open the newest run of the DAG and read the log of the first task that failed.",
    "restorable": "Read why in the newest backup, correct it, and back up again.",
    "drilled": "Start a drill and read its log.",
    "copied": "Copy what is missing: python -m etcdkeep replicate {cluster}",
    "newest": "Read what is wrong with the newest backup, then back up again.",
    "missing": "Find out who deleted objects in the repository.",
    "trust": "Find out who wrote to the repository: python -m etcdkeep list {cluster}",
    "attempts": "Open the last failed run of the DAG and read the log of the first task that failed.",
    "certificates": "Renew the cluster's certificates: kubeadm certs renew, or the vendor's own way.",
    "quota": "Compact and defragment etcd, or raise its quota.",
    "clock": "Synchronise the clocks of the workers and of the store (NTP).",
    "repository": "Check that the API server reaches the repository, and its Airflow connection.",
}
"""By topic of a finding, and by what only the page knows."""


@dataclass(frozen=True)
class Newest:
    """
    The newest backup of a kind.

    :param taken_at: None where there is none.
    :param status: What `check` says of its age.
    """

    taken_at: datetime | None
    status: Status


@dataclass(frozen=True)
class FleetRow:
    """
    One cluster.

    :param problem: What is wrong, the worst first, in one sentence; empty when nothing is.
    :param more: How many other findings there are.
    :param newest: By kind: good, restorable, drilled, copied. A kind that is not configured has no entry.
    :param sizes: Of etcd's database in bytes, of the believed backups, oldest first.
    :param calendar: See :func:`etcdkeep.overview.calendar.calendar`; empty where nothing is known.
    :param unread: How many backups nobody has opened yet: until then, sizes and calendar are not whole, and what is wrong with
        an old backup is not said. State, ages and the newest backup do not wait for them.
    :param restore_s: Seconds from sealed snapshot to a served etcd in the last drill that measured it.
    :param usable: Whether its entry in the configuration can be used; of one that cannot, nothing was read.
    :param paused: Whether the DAG is paused in Airflow; None where nobody asked.
    :param known_at: When the repository was read for this row.
    :param last_error: Why the repository could not be read since then; empty where it could.
    """

    cluster: str
    state: State
    status: Status
    problem: str
    next_step: str
    known_at: datetime
    more: int = 0
    newest: Mapping[str, Newest] = field(default_factory=dict)
    newest_backup: str = ""
    revision: int | None = None
    database_bytes: int | None = None
    stored_bytes: int | None = None
    sets: int = 0
    unread: int = 0
    sizes: tuple[int, ...] = ()
    calendar: str = ""
    restore_s: float | None = None
    profile: str = ""
    tags: tuple[str, ...] = ()
    schedule: str | None = None
    usable: bool = True
    paused: bool | None = None
    next_run_at: datetime | None = None
    last_error: str = ""

    @property
    def risk(self) -> tuple[int, int, float, str]:
        """Sorts rows: the one that needs a person most is first."""
        good = self.newest.get("good")
        taken = good.taken_at.timestamp() if good and good.taken_at else 0.0
        return _RANK[self.status], STATES.index(self.state), taken, self.cluster


@dataclass(frozen=True)
class DagFacts:
    """
    What Airflow knows of a DAG.

    :param next_run_at: When its next run is due; None for one without schedule.
    """

    paused: bool
    next_run_at: datetime | None = None


def fleet_row(checked: Checked | Glance, now: datetime, gone: Collection[str] = ()) -> FleetRow:
    """
    Return a cluster's line from what a check or a glance found.

    :param gone: Backup ids whose removal is signed, for a check; a glance has found them itself.
    """
    report, cluster, stored = checked.report, checked.cluster, checked.stored
    state = _state(report, readable=stored is not None)
    first = next(iter(report.alarms), None)
    row = FleetRow(
        cluster=report.cluster,
        state=state,
        status=report.status,
        problem=one_line(first.sentence) if first else "",
        next_step=_next_step(report.cluster, "never" if state == "never" else first.topic) if first else "",
        more=max(0, len(report.alarms) - 1),
        known_at=checked.at,
        newest={kind: found for kind in KINDS if (found := _newest(checked, kind))},
    )
    return _with_sets(row, cluster, stored, now, gone) if cluster and stored else row


def unusable_row(cluster: str, sentence: str, now: datetime) -> FleetRow:
    """Return the line of a cluster whose entry in the configuration cannot be used: it is not backed up."""
    step = NEXT_STEPS["configuration"]
    return FleetRow(cluster, "failing", "CRITICAL", one_line(sentence), step, now, usable=False)


def waiting_row(cluster: Cluster, now: datetime) -> FleetRow:
    """Return the line of a cluster whose repository has not been read yet."""
    return FleetRow(
        cluster.name, "unknown", "UNKNOWN", "", "", now, profile=cluster.profile, tags=cluster.tags, schedule=cluster.schedule
    )  # fmt: skip


def unreadable_row(row: FleetRow, sentence: str) -> FleetRow:
    """Return a line that shows the last known state, and says that the repository cannot be read now."""
    if row.status == "CRITICAL":
        return replace(row, last_error=one_line(sentence))
    problem = f"the repository cannot be read: {one_line(sentence)}"
    return replace(row, state="unknown", status="UNKNOWN", problem=problem, next_step=NEXT_STEPS["repository"], last_error=one_line(sentence))  # fmt: skip


def with_airflow(row: FleetRow, dag: DagFacts | None) -> FleetRow:
    """Return a line with what Airflow knows of its DAG; None where Airflow has none."""
    if dag is None:
        return _first_of_all(row, f"Airflow has no DAG backup__{row.cluster}: no backup will be taken", "absent")
    row = replace(row, paused=dag.paused, next_run_at=None if dag.paused else dag.next_run_at)
    if not dag.paused:
        return row
    return _first_of_all(row, f"the DAG backup__{row.cluster} is paused: no backup will be taken", "paused")


def by_risk(rows: Sequence[FleetRow]) -> list[FleetRow]:
    """Return the rows, the one that needs a person most first."""
    return sorted(rows, key=lambda row: row.risk)


def _first_of_all(row: FleetRow, sentence: str, topic: str) -> FleetRow:
    """Put a cause before what follows from it. A cluster of which no further backup is taken is not fresh for long."""
    status: Status = "WARNING" if row.status == "OK" else row.status
    state: State = "failing" if row.state == "fresh" else row.state
    more = row.more + bool(row.problem)
    return replace(
        row, state=state, status=status, problem=sentence, next_step=_next_step(row.cluster, topic), more=more
    )


def _next_step(cluster: str, topic: str) -> str:
    return NEXT_STEPS.get(topic, "").replace("{cluster}", cluster)


def _state(report: CheckReport, *, readable: bool) -> State:
    """Return the one word for what a check found."""
    if not readable:
        return "unknown"
    statuses = {finding.topic: finding.status for finding in reversed(report.findings)}
    if statuses.get("good") != "OK":
        measure = report.measures.get("newest_good_age")
        return "never" if measure is None or measure.value is None else "stale"
    return "failing" if any(statuses.get(topic, "OK") != "OK" for topic in FAILING) else "fresh"


def _newest(checked: Checked | Glance, kind: str) -> Newest | None:
    measure = checked.report.measures.get(f"newest_{kind}_age")
    if measure is None:
        return None
    taken_at = None if measure.value is None else checked.at - timedelta(seconds=measure.value)
    return Newest(taken_at, _status_of(checked.report.findings, kind))


def _status_of(findings: Sequence[CheckFinding], topic: str) -> Status:
    found = [finding.status for finding in findings if finding.topic == topic]
    return min(found, key=lambda status: _RANK[status], default="OK")


def _with_sets(
    row: FleetRow, cluster: Cluster, stored: StoredSets | GlancedSets, now: datetime, gone: Collection[str]
) -> FleetRow:
    sets: Sequence[Looked] = stored.sets
    unread: Collection[str] = ()
    if isinstance(stored, GlancedSets):
        gone, unread = stored.gone, {*stored.unread, *stored.unproved}
    believed = [each for each in sets if each.believed]
    newest = believed[-1] if believed else None
    restores = sorted((took for each in believed if (took := each.restore_took)), key=lambda took: took[0])
    return replace(
        row,
        newest_backup=newest.backup_id if newest else "",
        revision=newest.revision if newest else None,
        database_bytes=newest.snapshot_bytes if newest else None,
        stored_bytes=stored.size_bytes,
        sets=len(stored.published),
        unread=len(unread),
        sizes=tuple(each.snapshot_bytes for each in believed[-60:] if each.snapshot_bytes is not None),
        calendar=calendar(stored, sets, cluster.schedule, now, gone, unread),
        restore_s=restores[-1][1] if restores else None,
        profile=cluster.profile,
        tags=cluster.tags,
        schedule=cluster.schedule,
    )
