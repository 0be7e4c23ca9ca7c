"""
A check that opens few sets: those that say how fresh a cluster is, then the others by and by.

A fleet of a thousand clusters has tens of thousands of sets, and to open them all takes minutes. Of each cluster the newest set of every
kind is opened first; whatever was opened once is remembered until an object of it changes. As soon as every set was opened, the
report is that of :mod:`etcdkeep.freshness.check`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from etcdkeep.freshness.check import StoredNames, read_names
from etcdkeep.freshness.copied import check_copies, is_copy
from etcdkeep.freshness.measure import measure
from etcdkeep.freshness.removals import looks_removed, signed_removals
from etcdkeep.freshness.report import CheckReport
from etcdkeep.retention.gather import without_manifest
from etcdkeep.sets.backup_set import USABLE
from etcdkeep.sets.judged import Judged, judge, may_change_by_itself
from etcdkeep.sets.repository import ListedSet, fingerprint
from etcdkeep.side_by_side import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import StoredObject
    from etcdkeep.records import Trust
    from etcdkeep.sets.judged import Looked
    from etcdkeep.sets.repository import Repository

AGAIN = timedelta(hours=6)
"""A set is opened again after it even if its objects look the same: a store may not tell of a change."""
SOON = timedelta(minutes=5)
"""The same where a clock or a right to read was in the way."""
MORE = 8
"""Sets that are opened at each look, once a cluster was read whole, beyond those that say how fresh it is."""


class Look(NamedTuple):
    """
    A kind of set of which the newest is looked for.

    :param counts: Says whether an opened set is one.
    :param folder: Holds a record beside each such set, so that others need not be opened; `ending` is that of the record's name.
    """

    counts: Callable[[Looked], bool]
    folder: str = ""
    ending: str = ""


LOOKS = (
    Look(lambda found: found.state in USABLE and found.believed),
    Look(lambda found: found.state == "good", "verification"),
    Look(lambda found: found.state == "good" and found.restorable == "yes", "rehearsal"),
    Look(lambda found: found.state == "good" and found.drilled, "verification", "-drill.json"),
)
COPY = Look(is_copy, "copied")


@dataclass(frozen=True)
class GlancedSets(StoredNames):
    """
    What is known of a cluster's sets.

    :param sets: Those that were opened, oldest first.
    :param unread: Backup ids of the others.
    :param gone: Backup ids whose removal is signed.
    :param unproved: Those whose removal nobody has checked yet.
    """

    sets: tuple[Judged, ...] = ()
    unread: Sequence[str] = ()
    gone: Collection[str] = ()
    unproved: Collection[str] = ()


@dataclass(frozen=True)
class Glance:
    """A report with what it was made from."""

    report: CheckReport
    at: datetime
    cluster: Cluster
    stored: GlancedSets


class _Kept(NamedTuple):
    fingerprint: bytes
    judged: Judged
    again_at: datetime


@dataclass
class _Folder:
    """
    What is remembered of one cluster in one repository.

    :param trust: The keys with which it was judged.
    :param whole: Whether every set was opened once.
    :param removals: Whether a removal is signed, by the fingerprint of its records.
    """

    trust: Trust
    sets: dict[str, _Kept] = field(default_factory=dict)
    removals: dict[bytes, bool] = field(default_factory=dict)
    whole: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class JudgedSets:
    """
    What sets were found to be, in this process alone.

    :param most: How many clusters, each in each of its repositories, are remembered; those that were looked at last.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._folders: OrderedDict[tuple[str, str], _Folder] = OrderedDict()
        self._lock = threading.Lock()

    def folder(self, repository: Repository, cluster: str) -> _Folder:
        """Return what is remembered; nothing that was judged with other keys."""
        key = repository.store.url, cluster
        with self._lock:
            found = self._folders.get(key)
            if found is None or found.trust != repository.trust:
                found = self._folders[key] = _Folder(repository.trust)
            self._folders.move_to_end(key)
            while len(self._folders) > self._most:
                self._folders.popitem(last=False)
            return found


def glance(
    repository: Repository,
    cluster: Cluster,
    now: datetime,
    judged: JudgedSets,
    copies: Mapping[str, Callable[[], Repository]] | None = None,
    *,
    everything: bool = False,
) -> Glance:
    """
    Judge a cluster's backups by the newest of each kind, and by the others as far as they are remembered; reads only.

    :param everything: Open all that is not remembered.
    :raises EtcdkeepError: when the repository cannot be read.
    """
    names, groups = read_names(repository, cluster.name)
    lost = without_manifest(repository.records, cluster.name, groups)
    opening = _Opening(repository, cluster.name, now, judged, (names, groups))
    for look in LOOKS:
        opening.newest(look)
    opening.others(everything=everything)
    sets, unread = opening.close()
    report = measure(cluster, sets, list(names.attempts), names.newest_object, now, lost, names.published)
    measures = dict(report.measures)

    def copied(copy: Repository, name: str) -> Sequence[Judged]:
        in_copy = _Opening(copy, name, now, judged, read_names(copy, name))
        in_copy.newest(COPY)
        return in_copy.close()[0]

    findings = check_copies(cluster, copies or {}, now, measures, copied)
    gone, unproved = _removals(repository, cluster.name, names, sets, judged, now, everything=everything)
    stored = GlancedSets(**vars(names), sets=tuple(sets), unread=tuple(unread), gone=gone, unproved=unproved)
    return Glance(CheckReport(cluster.name, (*report.findings, *findings), measures), now, cluster, stored)


class _Opening:
    """One look at a cluster's sets in one repository."""

    def __init__(
        self,
        repository: Repository,
        cluster: str,
        now: datetime,
        judged: JudgedSets,
        found: tuple[StoredNames, Mapping[str, Sequence[StoredObject]]],
    ) -> None:
        names, groups = found
        self._repository = repository
        self._cluster = cluster
        self._now = now
        self._folder = judged.folder(repository, cluster)
        sets = (ListedSet(cluster, name, groups[name], at) for name, at in names.published.items())
        listed = sorted(sets, key=attrgetter("not_after"), reverse=True)
        self._listed = {each.backup_id: each for each in listed}
        self._marks: dict[str, bytes] = {}
        self._kept = self._still(self._folder.sets)

    def newest(self, look: Look) -> None:
        """Open sets from the newest on until one that counts is found, and none that was not opened can be newer."""
        waiting = (
            each for each in list(self._listed.values()) if not look.folder or each.has(look.folder, look.ending)
        )
        best: datetime | None = None
        at_once = 1
        while batch := [each for each in islice(waiting, at_once) if best is None or each.not_after >= best]:
            self._open(each for each in batch if self._is_due(each))
            found = (self._kept[each.backup_id].judged for each in batch if each.backup_id in self._kept)
            counted = (each.taken_at for each in found if look.counts(each))
            best = max(filter(None, (best, *counted)), default=None)
            at_once = min(2 * at_once, AT_ONCE)

    def others(self, *, everything: bool) -> None:
        """Open also others, those first that were never opened: all of them, or a few where all were opened once."""
        due = sorted((each for each in self._listed.values() if self._is_due(each)), key=lambda each: each.backup_id in self._kept)  # fmt: skip
        self._open(due if everything else due[:MORE] if self._folder.whole else ())

    def close(self) -> tuple[list[Judged], list[str]]:
        """Remember what was opened, and return it, oldest first; and the ids of the others."""
        with self._folder.lock:  # another look at the same cluster may have opened others meanwhile
            self._kept = self._folder.sets = {**self._still(self._folder.sets), **self._kept}
            unread = [name for name in self._listed if name not in self._kept]
            self._folder.whole = self._folder.whole or not unread
        return sorted((each.judged for each in self._kept.values()), key=attrgetter("order")), unread

    def _still(self, kept: Mapping[str, _Kept]) -> dict[str, _Kept]:
        """Return what is remembered of sets of which no object has changed."""
        return {name: kept[name] for name, each in self._listed.items() if name in kept and kept[name].fingerprint == self._mark(each)}  # fmt: skip

    def _mark(self, listed: ListedSet) -> bytes:
        mark = self._marks.get(listed.backup_id)
        if mark is None:
            mark = self._marks[listed.backup_id] = listed.fingerprint
        return mark

    def _is_due(self, listed: ListedSet) -> bool:
        kept = self._kept.get(listed.backup_id)
        return kept is None or kept.again_at <= self._now

    def _open(self, listed: Iterable[ListedSet]) -> None:
        asked = list(listed)
        opened, marks = {}, {each.backup_id: self._mark(each) for each in asked}
        for found in self._repository.open_all(self._cluster, asked) if asked else ():
            again = SOON if may_change_by_itself(found) else AGAIN
            opened[found.backup_id] = _Kept(marks[found.backup_id], judge(found), self._now + again)
        for each in asked:
            if each.backup_id in opened:
                self._kept[each.backup_id] = opened[each.backup_id]
            else:  # deleted since it was listed
                self._kept.pop(each.backup_id, None)
                del self._listed[each.backup_id]


def _removals(
    repository: Repository,
    cluster: str,
    names: StoredNames,
    sets: Sequence[Looked],
    judged: JudgedSets,
    now: datetime,
    *,
    everything: bool,
) -> tuple[Collection[str], Collection[str]]:
    """Return the ids whose removal is signed, and those of which that is not known yet; remembered like the sets."""
    folder = judged.folder(repository, cluster)
    asked = {name: fingerprint(names.removed[name]) for name in looks_removed(names, sets, now)}
    known = {of: folder.removals[of] for of in asked.values() if of in folder.removals}
    unproved = [name for name, of in asked.items() if of not in known]
    if everything or folder.whole:
        signed = signed_removals(repository.records, cluster, {name: names.removed[name] for name in unproved})
        known |= {asked[name]: name in signed for name in unproved}
        unproved = []
    folder.removals = known
    return {name for name, of in asked.items() if known.get(of)}, unproved
