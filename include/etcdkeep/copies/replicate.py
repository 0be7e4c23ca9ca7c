"""
Bringing every verified set of a cluster to every copy: what is missing there is copied, what is damaged is replaced, what was
removed there by its retention stays removed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from etcdkeep import naming
from etcdkeep.copies.copy_set import copy_pins, copy_set
from etcdkeep.errors import EtcdkeepError, NeedsAttention, StoreUnavailable, TransientError
from etcdkeep.retention.tombstones import Tombstones

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from etcdkeep.backup.publish import Transfer
    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)

Act = Literal["copy", "heal", "none", "removed"]


class PlannedCopy(NamedTuple):
    """
    What is to be done with one set.

    :param act: ``copy`` it; ``heal`` a copy that is not whole or not finished; ``none``; ``removed`` there by retention.
    :param there: The set as the copy has it.
    """

    found: BackupSet
    act: Act
    there: BackupSet | None = None


@dataclass
class CopyReport:
    """
    What became of one copy.

    :param url: Its repository.
    :param copied: Backup ids that are there now and were not; in a dry run, those that would be copied.
    :param healed: The same of those that were there and not whole.
    :param present: How many were there.
    :param failed: Why a set was not copied, by backup id; by the empty id why the repository could not be used at all.
    """

    url: str
    dry_run: bool
    copied: list[str] = field(default_factory=list)
    healed: list[str] = field(default_factory=list)
    present: int = 0
    removed_there: int = 0
    failed: dict[str, EtcdkeepError] = field(default_factory=dict)


def worth_copying(found: BackupSet) -> bool:
    """Say whether a set is copied: it is good, or its stored bytes were compared and it could not be opened for want of a key."""
    return found.state == "good" or (found.state == "unverified" and "stored" in found.levels)


def plan_copies(
    sets: Sequence[BackupSet], there: Mapping[str, BackupSet], is_removed: Callable[[BackupSet], bool]
) -> list[PlannedCopy]:
    """Return what is to be done for one copy, the newest set first."""
    planned = []
    for found in sorted(filter(worth_copying, sets), key=lambda each: each.taken_at, reverse=True):
        copy = there.get(found.backup_id)
        if copy is None:
            planned.append(PlannedCopy(found, "removed" if is_removed(found) else "copy"))
        else:
            finished = copy.whole and copy.copied is not None and copy.manifest_sha256 == found.manifest_sha256
            planned.append(PlannedCopy(found, "none" if finished else "heal", copy))
    return planned


@dataclass(frozen=True)
class Replicator:
    """
    Copies the sets of one cluster.

    :param duplicate: Copies one object, into bytes of its own.
    :param by: Who, or which run.
    """

    source: Repository
    cluster: Cluster
    duplicate: Transfer
    by: str
    clock: Callable[[], datetime]

    def run(self, open_copies: Mapping[str, Callable[[], Repository]], *, dry_run: bool = False) -> list[CopyReport]:
        """
        Bring the sets to each copy. One that fails keeps no other from being made.

        :param open_copies: By URL.
        :raises EtcdkeepError: when the sets themselves cannot be listed.
        """
        if not dry_run:
            self.source.records.require_signer("verify")
        sets = self.source.sets(self.cluster.name)
        reports = []
        for copy in self.cluster.copies:
            report = CopyReport(copy.repository, dry_run)
            reports.append(report)
            try:
                target = open_copies[copy.repository]()
                self._one_copy(sets, target, self.cluster.at_copy(copy).immutable_days, report)
            except EtcdkeepError as err:
                report.failed[""] = err
        return reports

    def _one_copy(self, sets: Sequence[BackupSet], target: Repository, immutable_days: int, report: CopyReport) -> None:
        there = {found.backup_id: found for found in target.sets(self.cluster.name)}
        tombstones = Tombstones(target.records, self.cluster.name)

        def is_removed(found: BackupSet) -> bool:
            return any(each.body.manifest_sha256 == found.manifest_sha256 for each in tombstones.of(found.backup_id))

        for planned in plan_copies(sets, there, is_removed):
            if planned.act in ("none", "removed"):
                report.present += planned.act == "none"
                report.removed_there += planned.act == "removed"
            if report.dry_run or planned.act == "removed":
                self._note(planned, report)
                continue
            try:
                self._do(planned, target, immutable_days)
                self._note(planned, report)
            except EtcdkeepError as err:
                log.warning("backup %s is not in %s: %s", planned.found.name, report.url, err)
                report.failed[planned.found.backup_id] = err

    def _do(self, planned: PlannedCopy, target: Repository, immutable_days: int) -> None:
        found = planned.found
        if planned.act == "none" and planned.there is not None:
            copy_pins(self.source, found, target, planned.there)
        elif found.manifest is not None:
            copy_set(
                self.source,
                found,
                found.manifest,
                target,
                self.duplicate,
                by=self.by,
                clock=self.clock,
                immutable_days=immutable_days,
            )

    def _note(self, planned: PlannedCopy, report: CopyReport) -> None:
        if planned.act == "copy":
            report.copied.append(planned.found.backup_id)
        elif planned.act == "heal":
            report.healed.append(planned.found.backup_id)


def raise_if_failed(cluster: str, reports: Sequence[CopyReport]) -> None:
    """
    Raise what kept sets from being copied, so that it is seen: a later attempt copies what is missing.

    :raises StoreUnavailable: when a retry may help.
    :raises NeedsAttention: when a person has to act.
    """
    failures = [
        (f"{naming.set_prefix(cluster, identifier).rstrip('/') if identifier else cluster} to {report.url}: {err}", err)
        for report in reports
        for identifier, err in report.failed.items()
    ]
    if not failures:
        return
    sentences = tuple(sentence for sentence, _ in failures)
    message = f"{len(failures)} copy(s) of cluster {cluster!r} were not made. The backups themselves are unchanged:"
    if any(isinstance(err, TransientError) for _, err in failures):
        raise StoreUnavailable("\n  ".join((message, *sentences)))
    raise NeedsAttention(message, sentences)
