"""Checking a cluster by its repository."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.freshness.copied import check_copies
from etcdkeep.freshness.measure import measure
from etcdkeep.freshness.report import CheckReport, unknown
from etcdkeep.retention.gather import without_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import StoredObject
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository


@dataclass(frozen=True)
class StoredNames:
    """
    What a listing tells of a cluster's part of the repository; nothing of it is signed.

    :param attempts: Backup ids of the runs that began; each with the time at which its record was stored.
    :param published: Backup ids of the sets; each with the time at which its manifest was stored.
    :param newest_object: When the newest object was stored, by the store's clock.
    :param removed: The records of removals, by backup id; a reader believes those whose signature it has checked.
    """

    attempts: Mapping[str, datetime] = field(default_factory=dict)
    published: Mapping[str, datetime] = field(default_factory=dict)
    newest_object: datetime | None = None
    size_bytes: int = 0
    removed: Mapping[str, Sequence[StoredObject]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredSets(StoredNames):
    """
    What the repository holds of a cluster, as far as checks and metrics go by it.

    :param sets: Oldest first.
    :param lost: Backup ids of sets whose manifest nobody removed by a rule, and which have none.
    """

    sets: tuple[BackupSet, ...] = ()
    lost: Sequence[str] = ()


@dataclass(frozen=True)
class Checked:
    """
    A report with what it was made from.

    :param cluster: None where the cluster could not be opened or read.
    :param stored: None where the repository could not be read: nothing is known but that.
    """

    report: CheckReport
    at: datetime
    cluster: Cluster | None = None
    stored: StoredSets | None = None


def check_cluster(
    repository: Repository,
    cluster: Cluster,
    now: datetime,
    copies: Mapping[str, Callable[[], Repository]] | None = None,
) -> CheckReport:
    """
    Judge a cluster's backups and their copies; reads only.

    :param copies: Opens each copy, by URL.
    :raises EtcdkeepError: when the repository cannot be read.
    """
    return check_stored(repository, cluster, now, copies).report


def check_stored(
    repository: Repository,
    cluster: Cluster,
    now: datetime,
    copies: Mapping[str, Callable[[], Repository]] | None = None,
) -> Checked:
    """
    Judge a cluster's backups, and return also what was read for it.

    :raises EtcdkeepError: when the repository cannot be read.
    """
    stored = _read(repository, cluster.name)
    report = measure(cluster, stored.sets, list(stored.attempts), stored.newest_object, now, stored.lost)
    measures = dict(report.measures)
    findings = check_copies(cluster, copies or {}, now, measures)
    return Checked(CheckReport(cluster.name, (*report.findings, *findings), measures), now, cluster, stored)


def not_checked(cluster: str, sentence: str, now: datetime) -> Checked:
    """Return what is known of a cluster whose repository could not be read."""
    return Checked(unknown(cluster, sentence), now)


def read_names(repository: Repository, cluster: str) -> tuple[StoredNames, dict[str, list[StoredObject]]]:
    """Return what a cluster's names tell, and the objects of its sets by backup id, in name order."""
    attempts: dict[str, datetime] = {}
    published: dict[str, datetime] = {}
    removed: dict[str, list[StoredObject]] = {}
    groups: dict[str, list[StoredObject]] = {}
    newest, size_bytes = None, 0
    for folder, items in groupby(repository.store.list(f"{cluster}/"), key=lambda item: item.name.split("/", 2)[1]):
        all_of_it, prefix = list(items), f"{cluster}/{folder}/"
        latest = max(item.updated_at for item in all_of_it)
        newest = latest if newest is None else max(newest, latest)
        size_bytes += sum(item.size_bytes for item in all_of_it)
        group = [item for item in all_of_it if item.name.startswith(prefix)]  # an object may have a folder's name
        if folder == "attempts":
            begun = ((item.name.removeprefix(prefix).removesuffix(".json"), item.updated_at) for item in group)
            attempts |= {identifier: at for identifier, at in begun if naming.is_backup_id(identifier)}
        elif folder == "removed":
            for item in group:
                if naming.is_backup_id(identifier := item.name.removeprefix(prefix).partition("/")[0]):
                    removed.setdefault(identifier, []).append(item)
        elif group and naming.is_backup_id(folder):
            groups[folder] = group
            if manifest := next((item for item in group if item.name == prefix + naming.MANIFEST), None):
                published[folder] = manifest.updated_at
    return StoredNames(attempts, published, newest, size_bytes, removed), groups


def _read(repository: Repository, cluster: str) -> StoredSets:
    names, groups = read_names(repository, cluster)
    lost = without_manifest(repository.records, cluster, groups)
    sets = repository.sets(cluster, chain.from_iterable(groups.values()))
    return StoredSets(**vars(names), sets=tuple(sets), lost=lost)
