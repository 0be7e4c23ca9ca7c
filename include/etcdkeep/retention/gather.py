"""What a prune plan needs to know of a cluster's sets, read from its repository."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.errors import AccessDenied, RequestRefused, UnsafeName
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.recover.record import PROPOSAL as RECOVERY_PROPOSAL
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.retention.plan import SetFacts
from etcdkeep.retention.tombstones import Tombstones, by_set, has_manifest, was_a_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import StoredObject
    from etcdkeep.records import Records
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import BackupRun
    from etcdkeep.sets.repository import Repository

PROPOSED_FOR = timedelta(days=8)
"""A proposal holds its set for so long, begun or not: an approval holds for seven days at the most."""

BY_HAND = "manual"
"""How Airflow begins the id of a run that a person started, where they gave it none."""


@dataclass(frozen=True)
class Known:
    """
    A cluster's sets.

    :param facts: For the plan.
    :param sets: The sets themselves, by backup id.
    :param problems: Why nothing may be removed now, one sentence each.
    :param attention: What else a person has to see: somebody may have changed the repository.
    """

    facts: tuple[SetFacts, ...]
    sets: Mapping[str, BackupSet]
    problems: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()


def gather(repository: Repository, cluster: Cluster, now: datetime) -> Known:
    """
    Read what is known of a cluster's sets.

    :raises TransientError: when the repository cannot be read.
    """
    newest = _Newest()
    groups = by_set(cluster.name, newest.of(repository.store.list(f"{cluster.name}/")))
    sets = {found.backup_id: found for found in repository.sets(cluster.name, chain.from_iterable(groups.values()))}
    in_use, problems = sets_in_use(repository.records, cluster.name, now)
    if newest.item is not None and newest.item.updated_at - now > CLOCK_SKEW:
        problems.append(
            f"{skew_problem(cluster.name, (newest.item.updated_at - now).total_seconds())} The newest object is {newest.item.name}; if "
            "the clocks agree, somebody set its time. Check who, then remove it."
        )
    facts = tuple(set_facts(found, cluster, in_use.get(found.backup_id), now) for found in sets.values())
    doubted = (f"backup {each.backup_id} stays: {each.doubted} is not believed. Check who wrote it, then delete it." for each in facts if each.doubted)  # fmt: skip
    lost = (
        f"backup {identifier} has lost its manifest and is no longer listed. Its artifacts stay. Check who deleted the manifest."
        for identifier in without_manifest(repository.records, cluster.name, groups)
    )
    return Known(facts, sets, tuple(problems), (*doubted, *lost))


@dataclass
class _Newest:
    """Remembers the newest object of a listing that goes by."""

    item: StoredObject | None = None

    def of(self, items: Iterable[StoredObject]) -> Iterator[StoredObject]:
        for item in items:
            if self.item is None or item.updated_at > self.item.updated_at:
                self.item = item
            yield item


def without_manifest(records: Records, cluster: str, groups: Mapping[str, Sequence[StoredObject]]) -> list[str]:
    """Return the ids of sets that were published, and whose manifest is gone although nobody removed them by a rule."""
    tombstones = Tombstones(records, cluster)
    return [identifier for identifier, items in groups.items() if not has_manifest(items) and was_a_set(items) and not tombstones.of(identifier)]  # fmt: skip


def set_facts(found: BackupSet, cluster: Cluster, in_use: str | None, now: datetime) -> SetFacts:
    """Return what the plan needs to know of one set."""
    configured = found.taken_at + timedelta(days=cluster.immutable_days) if cluster.immutable_days else None
    return SetFacts(
        backup_id=found.backup_id,
        taken_at=found.taken_at,
        state=found.state,
        believed=found.believed,
        restorable=found.restorable,
        drilled=found.drilled,
        by_hand=found.manifest is not None and _by_hand(found.manifest.run),
        pinned=found.pinned(now),
        locked_until=max((until for until in (configured, found.locked_until) if until), default=None),
        in_use=in_use or found.in_use(now),
        doubted=found.doubted,
    )


def _by_hand(run: BackupRun) -> bool:
    return run.run_id.startswith(BY_HAND) if run.by_hand is None else run.by_hand


def skew_problem(cluster: str, seconds: float) -> str:
    """Say that the clocks differ too much to remove anything by age."""
    return (
        f"the clocks of this worker and of the store of cluster {cluster!r} differ by {abs(seconds):.0f} s; at most "
        f"{CLOCK_SKEW.total_seconds():.0f} s are allowed. Correct them (NTP), then run again."
    )


def sets_in_use(records: Records, cluster: str, now: datetime) -> tuple[dict[str, str], list[str]]:
    """
    Return the sets that open restores and recoveries name, each with what uses it; and what makes that uncertain.

    :param now: A restore that was proposed and never begun counts for eight days.
    """
    in_use: dict[str, str] = {}
    problems: list[str] = []
    for restore in _folders(records, naming.restores_prefix(cluster)):
        try:
            named = _set_of_restore(RestoreRecord(records, cluster, restore), now)
        except (UnsafeName, AccessDenied) as err:
            problems.append(f"cannot tell which backup {restore} restores: {err}")
            continue
        except RequestRefused as err:
            problems.append(
                f"{restore} has begun, and its backup is unknown: {err} If it was ended by hand, delete "
                f"{naming.restores_prefix(cluster)}{restore}/."
            )
            continue
        if named:
            in_use[named] = restore
    prefix = f"{cluster}/recoveries/"
    for recovery in _folders(records, prefix):
        proposals, _ = records.in_folder(RECOVERY_PROPOSAL, f"{prefix}{recovery}/proposals/", cluster, recovery)
        in_use |= {each.body.backup_id: f"recovery {recovery}" for each in proposals if now - each.at < PROPOSED_FOR}
    return in_use, problems


def _set_of_restore(record: RestoreRecord, now: datetime) -> str | None:
    """
    Return the set that an open restore names; None for one that is over, or was not begun within its time.

    :raises RequestRefused: when it has begun and its plan cannot be read.
    """
    if record.end() is not None:
        return None
    begun = record.begun()
    if begun is not None:
        return record.proposal_of(begun.body.proposal).body.backup_id
    try:
        proposal = record.proposal()
    except RequestRefused:
        return None  # nothing was proposed, so nothing can have begun
    return proposal.body.backup_id if now - proposal.at < PROPOSED_FOR else None


def _folders(records: Records, prefix: str) -> Iterable[str]:
    """Return the names of the folders beneath a prefix."""
    depth = prefix.count("/")
    names = (item.name.split("/") for item in records.store.list(prefix))
    return dict.fromkeys(parts[depth] for parts in names if len(parts) > depth + 1)
