"""One cluster as a page shows it: its backups with what keeps each, attempts that left none, drills, members, certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from etcdkeep.freshness.measure import RUN_TAKES, first_expiry
from etcdkeep.freshness.report import Status
from etcdkeep.naming import backup_time
from etcdkeep.overview.backup_set import CheckRow, MemberRow, SetRow, check_row, member_rows, set_row
from etcdkeep.overview.calendar import first_day
from etcdkeep.overview.copies import CopyRow
from etcdkeep.overview.fleet import FleetRow, fleet_row
from etcdkeep.overview.restores import RestoreRow
from etcdkeep.plain_text import one_line
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.retention.gather import set_facts
from etcdkeep.retention.plan import plan_prune
from etcdkeep.retention.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.freshness.check import Checked, StoredSets
    from etcdkeep.retention.plan import Verdict

LOOK_AHEAD_DAYS = 400
DRILLS = 12
"""How many of the newest drills are shown."""
ATTEMPTS = 200
"""How many of the newest runs that left no backup are told."""


@dataclass(frozen=True)
class Finding:
    """One thing that `check` looked at."""

    status: Status
    topic: str
    sentence: str


@dataclass(frozen=True)
class Attempt:
    """A run that began and left no backup; it may still be going on."""

    backup_id: str
    at: datetime
    running: bool


@dataclass(frozen=True)
class DrillRow:
    """A drill, of which backup."""

    backup_id: str
    check: CheckRow


@dataclass(frozen=True)
class Certificate:
    """The certificate that expires first."""

    expires_at: datetime
    file: str
    status: Status


@dataclass(frozen=True)
class ClusterView:
    """
    One cluster.

    :param sets: The newest first.
    :param members: Of the newest believed backup.
    :param older_attempts: How many runs that left no backup are older than those shown.
    :param older_restores: How many restores and recoveries were not read; the newest were.
    :param first_day: Of the calendar.
    :param retention: The rules, in words; empty where there are none.
    :param restore_dag: The DAG that restores it; `recover_dag` the one that brings objects back.
    :param drill_dag: Empty where it has no drills.
    """

    row: FleetRow
    findings: tuple[Finding, ...]
    sets: tuple[SetRow, ...]
    attempts: tuple[Attempt, ...]
    older_attempts: int
    drills: tuple[DrillRow, ...]
    members: tuple[MemberRow, ...]
    certificate: Certificate | None
    restores: tuple[RestoreRow, ...]
    older_restores: int
    first_day: date
    repositories: tuple[str, ...]
    retention: str
    enforced: bool
    restore_dag: str
    recover_dag: str
    drill_dag: str
    copies: tuple[CopyRow, ...] = ()


def cluster_view(
    checked: Checked,
    in_use: Mapping[str, str],
    restores: Sequence[RestoreRow],
    now: datetime,
    gone: Collection[str] = (),
    older_restores: int = 0,
) -> ClusterView | None:
    """
    Return all that a page shows of a cluster; None where its repository could not be read.

    :param in_use: What uses backups, by backup id, as retention gathers it.
    :param gone: Backup ids whose removal is signed: of these alone the run is known to have left a backup.
    """
    cluster, stored = checked.cluster, checked.stored
    if cluster is None or stored is None:
        return None
    attempts = _attempts(stored, gone, now)
    verdicts, goes = _retention(cluster, stored, in_use, now)
    believed = [each.manifest for each in stored.sets if each.manifest]
    queue = cluster.verify_queue or cluster.queue
    suffix = f"__{queue}" if queue else ""
    return ClusterView(
        row=fleet_row(checked, now, gone),
        findings=tuple(Finding(each.status, each.topic, one_line(each.sentence)) for each in (*checked.report.alarms, *(each for each in checked.report.findings if each.status == "OK"))),
        sets=tuple(set_row(each, now, verdicts.get(each.backup_id), goes.get(each.backup_id)) for each in reversed(stored.sets)),
        attempts=tuple(attempts[:ATTEMPTS]),
        older_attempts=len(attempts[ATTEMPTS:]),
        drills=tuple(_drills(stored)),
        members=member_rows(believed[-1] if believed else None),
        certificate=_certificate(checked, stored),
        restores=tuple(restores),
        older_restores=older_restores,
        first_day=first_day(now),
        repositories=(one_line(cluster.repository), *(one_line(copy.repository) for copy in cluster.copies)),
        retention=_rules(cluster),
        enforced=bool(cluster.retention and cluster.retention.enforce),
        restore_dag=f"restore{suffix}",
        recover_dag=f"recover_objects{suffix}",
        drill_dag=f"drill__{cluster.name}" if cluster.drill else "",
    )  # fmt: skip


def _retention(
    cluster: Cluster, stored: StoredSets, in_use: Mapping[str, str], now: datetime
) -> tuple[Mapping[str, Verdict], Mapping[str, datetime]]:
    """Return what becomes of each set, and when it would go."""
    if cluster.retention is None:
        return {}, {}
    facts = [set_facts(each, cluster, in_use.get(each.backup_id), now) for each in stored.sets]
    plan = plan_prune(facts, cluster.retention, now)
    ahead = simulate(facts, cluster.retention, cluster.schedule, now, LOOK_AHEAD_DAYS, cluster.immutable_days)
    return {each.found.backup_id: each for each in plan.verdicts}, ahead.goes


def _rules(cluster: Cluster) -> str:
    rules = cluster.retention
    if rules is None:
        return ""
    given = rules.model_dump(
        exclude_none=True, exclude_defaults=True, exclude={"enforce", "lock_days", "max_remove_share"}
    )
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())


def _attempts(stored: StoredSets, gone: Collection[str], now: datetime) -> list[Attempt]:
    """Return the runs that left no backup, the newest first; what retention removed had one."""
    known = {each.backup_id for each in stored.sets}.union(gone)
    left = sorted((each for each in stored.attempts if each not in known), reverse=True)
    return [Attempt(each, at, -CLOCK_SKEW <= now - at <= RUN_TAKES) for each in left for at in (backup_time(each),)]


def _drills(stored: StoredSets) -> list[DrillRow]:
    drills = [DrillRow(each.backup_id, check_row(drill)) for each in stored.sets for drill in each.drills]
    return sorted(drills, key=lambda drill: drill.check.at, reverse=True)[:DRILLS]


def _certificate(checked: Checked, stored: StoredSets) -> Certificate | None:
    expiry = first_expiry([each for each in stored.sets if each.state == "good"])
    if expiry is None:
        return None
    status: Status = next((each.status for each in checked.report.findings if each.topic == "certificates"), "OK")
    return Certificate(expiry[0], one_line(expiry[1]), status)
