"""
What a set was found to be, in few bytes: kept by a process that looks at the same sets again and again.

It is made of a set that was opened, so that all of it comes from signed documents; it counts only as long as none of the set's
objects has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from etcdkeep.sets.backup_set import BackupSet, State
    from etcdkeep.sets.results import Restorable

PROBLEMS, PROBLEM_CHARS = 5, 1_000
"""How many problems are kept, and how much of each: they are text of others, and many sets are kept."""


class Looked(Protocol):
    """What checks ask of a set, whether it is open or was judged before; as :class:`BackupSet` says it."""

    @property
    def cluster(self) -> str: ...
    @property
    def backup_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def taken_at(self) -> datetime: ...
    @property
    def order(self) -> tuple[datetime, str]: ...
    @property
    def state(self) -> State: ...
    @property
    def believed(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    @property
    def missing(self) -> Sequence[str]: ...
    @property
    def problems(self) -> Sequence[str]: ...
    @property
    def doubted(self) -> str | None: ...
    @property
    def restorable(self) -> Restorable | None: ...
    @property
    def drilled(self) -> bool: ...
    @property
    def restore_took(self) -> tuple[datetime, float] | None: ...
    @property
    def expiry(self) -> tuple[datetime, str] | None: ...
    @property
    def revision(self) -> int | None: ...
    @property
    def snapshot_bytes(self) -> int | None: ...
    @property
    def database_bytes(self) -> int | None: ...
    @property
    def copied_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Judged:
    """A set as :class:`Looked` has it."""

    cluster: str
    backup_id: str
    taken_at: datetime
    state: State
    believed: bool
    whole: bool
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    doubted: str | None
    restorable: Restorable | None
    drilled: bool
    restore_took: tuple[datetime, float] | None
    expiry: tuple[datetime, str] | None
    revision: int | None
    snapshot_bytes: int | None
    database_bytes: int | None
    copied_at: datetime | None

    @property
    def name(self) -> str:
        return f"{self.cluster}/{self.backup_id}"

    @property
    def order(self) -> tuple[datetime, str]:
        return self.taken_at, self.backup_id


_NAMES = tuple(each.name for each in fields(Judged))


def judge(found: BackupSet) -> Judged:
    """Return what a set is found to be."""
    values = {name: getattr(found, name) for name in _NAMES}
    for name in ("missing", "problems"):
        values[name] = tuple(each[:PROBLEM_CHARS] for each in values[name][:PROBLEMS])
    return Judged(**values)


def may_change_by_itself(found: BackupSet) -> bool:
    """Say whether the judgement of a set can change although no object of it does: a clock, or a right to read, was in the way."""
    words = {each.word for each in found.refused}
    unread = found.doubt is not None and not found.manifest_bytes
    return unread or found.state == "future" or not words.isdisjoint({"future", "unreadable"})
