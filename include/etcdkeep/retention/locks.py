"""
Locks: for how long the store refuses to delete which set.

A set is locked for `immutable_days` when it is published. Housekeeping extends that, because nothing else would while
backups fail: the floor and the pinned sets are locked for `immutable_days` from now on, every day. In an enforced run, what a
rule keeps is locked as `lock_days` says. The records that make a set good or pinned are locked with it, so that deleting
them does not undo it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.config.retention import LockDays
from etcdkeep.errors import AccessDenied, ConfigError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore
    from etcdkeep.retention.plan import PrunePlan, Verdict
    from etcdkeep.sets.backup_set import BackupSet

log = logging.getLogger(__name__)


def locks_anything(cluster: Cluster) -> bool:
    """Say whether a cluster's settings ask for locks."""
    rules = cluster.retention
    return bool(cluster.immutable_days or (rules and rules.enforce and rules.lock_days != LockDays()))


def locks_due(plan: PrunePlan, cluster: Cluster, now: datetime) -> dict[str, datetime]:
    """Return until when which sets are to be locked, by backup id; sets that need no longer lock are left out."""
    floor = {each.backup_id for each in plan.floor}
    due = {}
    for verdict in plan.kept:
        ends = [*_by_tier(verdict, cluster)]
        held = verdict.found.backup_id in floor or verdict.found.pinned is not None
        if cluster.immutable_days and held and verdict.found.believed:
            ends.append(now + timedelta(days=cluster.immutable_days))
        until = max(ends, default=now)
        if until > now:
            due[verdict.found.backup_id] = until
    return due


def _by_tier(verdict: Verdict, cluster: Cluster) -> Iterator[datetime]:
    """Yield the ends of the locks that the rules give a set; a period that is not over may still get a better one."""
    rules = cluster.retention
    if rules is None or not rules.enforce:
        return
    for name in sorted(verdict.settled):
        days = getattr(rules.lock_days, name, None)
        if days:
            yield verdict.found.taken_at + timedelta(days=days)


def extend_locks(store: ObjectStore, sets: Mapping[str, BackupSet], due: Mapping[str, datetime]) -> list[str]:
    """Lock the objects of some sets, and return what was refused, one sentence for each set."""
    problems = []
    for identifier, until in due.items():
        found = sets[identifier]
        try:
            if not all(store.protect(name, until) for name in _objects(found)):
                log.warning("%s cannot forbid deletion; immutable_days and lock_days have no effect there", store.url)
                return []
        except (ConfigError, AccessDenied, NotFound) as err:
            problems.append(f"the lock of {found.name} was not extended: {err}")
        else:
            log.info("backup %s: locked until %s UTC", found.name, f"{until:%Y-%m-%d %H:%M}")
    return problems


def _objects(found: BackupSet) -> list[str]:
    """Return the names of what must be kept so that a set stays good, and pinned."""
    if found.manifest is None:
        return []
    prefix = naming.set_prefix(found.cluster, found.backup_id)
    names = (naming.MANIFEST, naming.SIGNATURE, *(artifact.name for artifact in found.manifest.artifacts))
    records = (*(record.name for record in found.records), *(record.name for record in found.pins))
    return [*(prefix + name for name in names), *records]
